"""The data part of a configuration -> labelled texts with their parts. Imports no torch, for `doctune prepare`."""

from __future__ import annotations

import logging
from pathlib import Path

from doctune.corpus.labelled_rows import LabelledFile, RowSettings, read_labelled_rows
from doctune.corpus.tables import TableLayout
from doctune.corpus.target_corpus import PartFiles, TargetCorpus, describe_targets, prepare_targets
from doctune.corpus.targets import Target, read_label_names
from doctune.errors import ConfigError
from doctune.training import config as schema
from doctune.training.config_target_checks import described_target
from doctune.training.sources import split_settings

log = logging.getLogger(__name__)


def multi_task(data: schema.DataConfig) -> schema.MultiTaskConfig:
    """The data choice as texts with several targets."""
    if not isinstance(data, schema.MultiTaskConfig):
        raise ConfigError(f"data.kind={data.kind} is not a data set with several targets.")
    return data


def targets(data: schema.MultiTaskConfig) -> tuple[Target, ...]:
    """What is learnt, with the names of label ids read.

    Raises:
        DataError: a file of label names cannot be used.
    """
    return tuple(_target(name, target) for name, target in data.typed_targets().items())


def corpus(data: schema.MultiTaskConfig, split: schema.SplitConfig) -> TargetCorpus:
    """Texts, read and divided.

    Raises:
        DataError: a table cannot be used, or not be divided as asked for.
    """
    learnt = targets(data)
    layout = TableLayout(None if data.header is None else tuple(data.header), data.quoted)
    settings = RowSettings(learnt, data.text_column, data.id_column, layout)
    found = prepare_targets(
        PartFiles(*(_tables(paths, settings) for paths in (data.train, data.val, data.test))),
        learnt,
        split=split_settings(split),
        stratify=data.stratify,
        cache=Path(data.cache_dir),
        duplicate_threshold=data.duplicate_threshold,
        max_unusable=data.max_unusable,
        max_train=data.max_train,
    )
    log.info("Texts: %s.", describe_targets(found))
    return found


def _target(name: str, target: schema.TargetConfig) -> Target:
    names = () if target.names is None else read_label_names(Path(target.names))
    return described_target(name, target, names)


def _tables(paths: list[str], settings: RowSettings) -> tuple[LabelledFile, ...]:
    return tuple(read_labelled_rows(Path(path), settings) for path in paths)
