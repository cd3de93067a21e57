"""A k-fold multirun as one run of a comparison: one configuration, and every document or question judged once.

The scores are those of the pooled test predictions of its finished folds; validation scores and gap are means over
them, the time is their sum, and the size is that of the largest (a vocabulary learnt from fewer documents is smaller).
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from doctune.corpus.targets import TargetSpec
from doctune.reports.facts import finite, history_key
from doctune.reports.folds import RUNS, Fold, pool, read_folds
from doctune.reports.folds_answers import AnswerPart
from doctune.reports.folds_conversations import ConversationPart
from doctune.reports.folds_labels import LabelPart
from doctune.reports.folds_parts import JudgedPart
from doctune.reports.folds_targets import TargetsPart
from doctune.reports.instruction_records import InstructionRecords
from doctune.reports.reader_records import ReaderRecords
from doctune.reports.records import INSTRUCTIONS, MULTI_TASK, QUESTION_ANSWERING, RunFiles, RunRecords, read_json
from doctune.reports.target_records import MultiTaskRecords, TargetPart, TargetRecords
from doctune.scoring.gap import GapThresholds


@dataclass(frozen=True)
class PooledFolds:
    """What `compare` knows of a k-fold multirun; `records` and `report` are like those of a run."""

    records: RunRecords | ReaderRecords | MultiTaskRecords | InstructionRecords
    report: dict[str, Any]
    num_folds: int
    missing: tuple[int, ...]
    """The folds without a finished run."""


def is_kfold(folder: Path) -> bool:
    """Whether the runs directly in a folder are folds of one configuration, each there once."""
    numbers, configs = [], []
    for path in sorted(folder.glob(RUNS)):
        config = _config(path)
        split = config.get("split") or {}
        if split.get("kind") != "kfold" or split.get("fold") is None:
            return False
        numbers.append(split["fold"])
        configs.append(_without_fold(config))
    return bool(numbers) and len(set(numbers)) == len(numbers) and all(each == configs[0] for each in configs)


def read_pooled(folder: Path) -> PooledFolds:
    """Read a k-fold multirun of which at least one fold has finished.

    Raises:
        ArtifactError: a file of a finished fold is missing or damaged, or the folds do not belong together.
    """
    finished = [fold for fold in read_folds(folder) if fold.is_finished]
    first, test = finished[0], pool(finished)
    assert test is not None, "a finished fold has predictions"
    num_folds = int(first.config["split"]["folds"])
    done = {fold.number for fold in finished}
    files = RunFiles(
        folder=folder,
        audit={},
        history=_mean_history([fold.history for fold in finished], first.config["monitor"]["metric"], test),
        baselines={},
        environment={"config": _without_fold(first.config), "monitor": first.config["monitor"]},
        config={},
        overrides=[],
    )
    report = _report(finished, test) | {"test": test.scores()}
    missing = tuple(number for number in range(num_folds) if number not in done)
    return PooledFolds(_records(files, test), finite(report), num_folds, missing)


def _records(files: RunFiles, test: JudgedPart) -> RunRecords | ReaderRecords | MultiTaskRecords | InstructionRecords:
    """What a run with this test part, and without a validation part and baselines, would tell."""
    if isinstance(test, ConversationPart):
        return InstructionRecords(**vars(files), before={}, after={"test": test.conversations}, checks=[])
    if isinstance(test, AnswerPart):
        return ReaderRecords(**vars(files), version=test.version, val=None, test=test.answers, baseline_answers={})
    if isinstance(test, TargetsPart):
        return MultiTaskRecords(**vars(files), targets=tuple(_target(spec, part) for spec, part in test.targets))
    assert isinstance(test, LabelPart), "there are parts of four kinds"
    return RunRecords(**vars(files), labels=test.labels, val=None, test=test.predictions, baseline_ids={})


def _target(spec: TargetSpec, test: TargetPart | None) -> TargetRecords:
    return TargetRecords(spec, val=None, test=test, baselines={}, baseline_sets={}, train_counts={})


def _config(path: Path) -> dict[str, Any]:
    """The configuration in an `environment.json`; empty for a file that is damaged, which `read_run` refuses."""
    try:
        config = (json.loads(path.read_text(encoding="utf-8")) or {}).get("config")
    except (OSError, ValueError, AttributeError):
        return {}
    return config if isinstance(config, dict) else {}


def _without_fold(config: Mapping[str, Any]) -> dict[str, Any]:
    return {**config, "split": {key: value for key, value in config["split"].items() if key != "fold"}}


def _report(finished: Sequence[Fold], test: JudgedPart) -> dict[str, Any]:
    """What `report.json` would hold, without the test scores."""
    reports = [read_json(fold.folder, "report/report.json", dict) for fold in finished]
    config = finished[0].config
    return {
        **({"task": QUESTION_ANSWERING} if isinstance(test, AnswerPart) else {}),
        **({"task": INSTRUCTIONS} if isinstance(test, ConversationPart) else {}),
        **(_targets(reports, test) if isinstance(test, TargetsPart) else {}),
        "val": _mean_scores([report.get("val") or {} for report in reports], test.metric_words),
        "gap": _mean_gap([(report.get("gap") or {}).get("value") for report in reports], config),
        "training_seconds": _all_or_none(sum, [report.get("training_seconds") for report in reports]),
        "parameters": {
            name: _all_or_none(max, [(report.get("parameters") or {}).get(name) for report in reports])
            for name in ("total", "trainable")
        },
        "epochs": None,
        "best_epoch": None,
        "monitor": config["monitor"],
    }


def _targets(reports: Sequence[Mapping[str, Any]], test: TargetsPart) -> dict[str, Any]:
    """The task, and the scores of each target: out-of-fold, and the means of validation."""
    scores = test.target_scores()

    def validated(name: str) -> dict[str, Any]:
        found = [(report.get("targets") or {}).get(name) or {} for report in reports]
        return _mean_scores([each.get("val") or {} for each in found], test.metric_words)

    return {
        "task": MULTI_TASK,
        "targets": {
            spec.name: {"test": scores.get(spec.name), "val": validated(spec.name)} for spec, _ in test.targets
        },
    }


def _mean_scores(parts: Sequence[Mapping[str, Any]], names: Iterable[str]) -> dict[str, Any]:
    """The mean of every validation score, and under `std` their standard deviations (ddof 1) for two folds or more."""
    shared = [name for name in names if all(part.get(name) is not None for part in parts)]
    known = {name: [float(part[name]) for part in parts] for name in shared}
    means: dict[str, Any] = {name: statistics.fmean(each) for name, each in known.items()}
    spread = {name: statistics.stdev(each) for name, each in known.items()} if len(parts) > 1 else {}
    return means | {"std": spread}


def _mean_gap(gaps: Sequence[float | None], config: Mapping[str, Any]) -> dict[str, Any]:
    value = _all_or_none(statistics.fmean, gaps)
    knobs = (config.get("callbacks") or {}).get("gap") or {}
    thresholds = GapThresholds(**{name: knobs[name] for name in ("good", "moderate", "critical") if name in knobs})
    return {"value": value, "status": None if value is None else thresholds.status(value)}


def _all_or_none(of: Any, values: Sequence[Any]) -> Any:
    """A sum, mean or maximum of all folds; None where one is not known, since one of the others would flatter."""
    return None if None in values else of(values)


def _mean_history(
    histories: Sequence[Sequence[Mapping[str, Any]]], metric: str, test: JudgedPart
) -> list[dict[str, Any]]:
    """The epochs that all folds have, with the means of what is drawn of them."""
    rows = []
    keys = dict.fromkeys(["val_loss", history_key(metric), *(f"val_{name}" for name in test.metric_words)])
    for epoch in zip(*histories, strict=False):
        means = {key: _all_or_none(statistics.fmean, [row.get(key) for row in epoch]) for key in keys}
        rows.append({"epoch": epoch[0]["epoch"], **means})
    return rows
