"""The data part of a configuration -> questions with their parts. Imports no torch, for `doctune prepare`."""

from __future__ import annotations

import logging

from doctune.corpus.questions import QuestionCorpus, prepare_questions
from doctune.corpus.squad import SquadFile
from doctune.corpus.squad_source import SquadSource, read_squad_source
from doctune.errors import ConfigError
from doctune.text.questions import WindowSettings
from doctune.training import config as schema
from doctune.training.sources import split_settings

log = logging.getLogger(__name__)


def squad(data: schema.DataConfig) -> schema.SquadConfig:
    """The data choice as questions."""
    if not isinstance(data, schema.SquadConfig):
        raise ConfigError(f"data.kind={data.kind} is not a data set of questions.")
    return data


def corpus(data: schema.SquadConfig, split: schema.SplitConfig) -> QuestionCorpus:
    """Questions, read and divided.

    Raises:
        DataError: a source cannot be used, or not be divided as asked for.
    """
    source = read_squad_source(data.path)
    found = prepare_questions(
        source.train,
        _judge(data, split, source),
        split=split_settings(split),
        max_questions=data.max_questions,
        max_judge_questions=data.max_judge_questions,
    )
    totals = found.totals()
    parts = ", ".join(f"{totals['questions'][part]:,} {part}" for part in totals["questions"])
    reasons = "".join(f", {count:,} {reason}" for reason, count in totals["left_out_reasons"].items())
    log.info("Questions: %d rows: %s%s.", totals["rows"], parts, reasons)
    return found


def _judge(data: schema.SquadConfig, split: schema.SplitConfig, source: SquadSource) -> SquadFile | None:
    """The questions that judge; None where they are taken from those that train, as with folds."""
    if split.kind == "kfold":
        return None
    if data.test_path is None:
        return source.judge
    named = read_squad_source(data.test_path)
    return named.judge or named.train


def window_settings(data: schema.SquadConfig, *, question_first: bool = True) -> WindowSettings:
    """How questions and contexts are cut."""
    return WindowSettings(data.max_length, data.doc_stride, data.max_question_length, question_first)
