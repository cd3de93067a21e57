"""The report of a run that learnt several targets, made from the files in its folder.

Shapes: N texts of a part that know a target, L labels of the target.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from doctune.corpus.target_baselines import score_label_sets
from doctune.errors import ArtifactError
from doctune.files import write_json, write_text
from doctune.reports import facts, plots
from doctune.reports.part_scores import score_part
from doctune.reports.records import MULTI_TASK, Predictions
from doctune.reports.target_records import MultiTaskRecords, TargetPart, TargetRecords, read_targets_run
from doctune.reports.target_summary import summarize
from doctune.reports.verdict import Verdict, judge_scores
from doctune.scoring.classification import STATISTICS
from doctune.scoring.intervals import Difference, paired_difference
from doctune.scoring.multilabel import label_counts, label_scores

SCHEMA = 1
METRIC = "f1_macro"
FILES = ("summary.txt", "report.json", "loss_curves.png", "metric_curve.png")


def write_report(run: Path) -> Path:
    """Write `report/` of a finished run and return the path of its `summary.txt`.

    Raises:
        ArtifactError: a file of the run is missing or damaged; the message names it.
    """
    records = read_targets_run(run)
    report = build_report(records)
    folder = run / "report"
    write_json(folder / "report.json", report)
    curves = {"val_f1_macro": "mean macro F1"} | {
        f"val_{target.spec.name}_f1_macro": f"{target.spec.name}, macro F1" for target in records.targets
    }
    plots.write_curves(records.history, curves, report["best_epoch"], {}, folder)
    write_text(folder / "summary.txt", summarize(report))
    return folder / "summary.txt"


def build_report(records: MultiTaskRecords) -> dict[str, Any]:
    """The content of `report.json`; every value is plain, and a number that is not finite becomes null.

    Raises:
        ArtifactError: neither part has predictions of any target.
    """
    part = _judged_part(records)
    judged = {target.spec.name: _judge(target, part, records.environment) for target in records.targets}
    report = {
        "schema": SCHEMA,
        "task": MULTI_TASK,
        "verdict": verdict_words(judged),
        "run": facts.run_name(records),
        "part": part,
        **{name: _together(judged, name) for name in ("val", "test")},
        "targets": judged,
        "baselines": records.baselines,
        **facts.training_facts(records, f"val/{METRIC}"),
        "account": records.audit,
        "notes": facts.told(records),
        "alarms": records.environment.get("alarms") or [],
        "files": list(FILES),
    }
    plain: dict[str, Any] = facts.finite(report)
    return plain


def verdict_words(judged: Mapping[str, Mapping[str, Any]]) -> str:
    """On how many targets the run is better than its baselines, and what became of each.

    Args:
        judged: the entries of `report["targets"]`.
    """
    better = [name for name, found in judged.items() if found["comparison"].get("status") == "better"]
    told = [f"{name}: {found['verdict']}" for name, found in judged.items()]
    return f"Better than the baseline on {len(better)} of {len(judged)} targets. {' '.join(told)}"


def _judged_part(records: MultiTaskRecords) -> str:
    for part in ("test", "val"):
        if any(target.part(part) for target in records.targets):
            return part
    raise ArtifactError(f"{records.folder}: neither predictions/test.parquet nor val.parquet knows any target.")


def _together(judged: Mapping[str, Mapping[str, Any]], part: str) -> dict[str, Any] | None:
    """The mean of the targets' macro F1 in a part; None where it knows no target."""
    scores = [found[part][METRIC] for found in judged.values() if found[part]]
    return {METRIC: float(np.mean(scores)), "targets": len(scores)} if scores else None


def _judge(target: TargetRecords, part: str, environment: Mapping[str, Any]) -> dict[str, Any]:
    """One entry of `report["targets"]`."""
    spec = target.spec
    scores = {name: score_target(target, name) for name in ("val", "test")}
    verdict = _verdict(target, scores[part], part)
    return {
        "kind": spec.kind,
        "labels": list(spec.labels.names),
        "verdict": "No text of the judged part knows it." if verdict is None else verdict.sentence,
        "comparison": {} if verdict is None else verdict.to_dict(),
        **scores,
        "baselines": target.baselines,
        "per_label": _per_label(target, part, (environment.get("thresholds") or {}).get(spec.name)),
        "weight": (environment.get("target_weights") or {}).get(spec.name),
    }


def score_target(target: TargetRecords, part: str) -> dict[str, Any] | None:
    """The scores of a target in a part with 95 % intervals, and `texts`, how many know it; None where none does."""
    found = target.part(part)
    if found is None:
        return None
    if target.spec.is_multi:
        return score_label_sets(found.truth, found.predicted)
    scores = score_part(_predictions(found), len(target.spec.labels)) or {}
    return scores | {"texts": scores["documents"]}


def _predictions(found: TargetPart) -> Predictions:
    truth, predicted = found.truth.argmax(axis=1), found.predicted.argmax(axis=1)
    return Predictions(found.ids, found.ids, truth, predicted, found.probabilities)


def _verdict(target: TargetRecords, scores: dict[str, Any] | None, part: str) -> Verdict | None:
    if scores is None:
        return None
    baselines = {name: _counted(parts, scores["texts"]) for name, parts in target.baselines.items()}
    return judge_scores(scores, baselines, part, METRIC, _difference_to(target, part), noun="text")


def _counted(parts: Mapping[str, Any], texts: int) -> dict[str, Any]:
    return {name: None if found is None else found | {"texts": texts} for name, found in parts.items()}


def _difference_to(target: TargetRecords, part: str) -> Callable[[str], Difference | None]:
    """The difference to a baseline on the same texts; for label sets there is none, and intervals are compared."""

    def difference(name: str) -> Difference | None:
        if target.spec.is_multi or part != "test" or target.test is None or name not in target.baseline_sets:
            return None
        own = _predictions(target.test)
        other = target.baseline_sets[name].argmax(axis=1)
        return paired_difference(own.truth, own.predicted, other, len(target.spec.labels), STATISTICS[METRIC])

    return difference


def _per_label(target: TargetRecords, part: str, thresholds: Sequence[float] | None) -> list[dict[str, Any]]:
    found = target.part(part)
    if found is None:
        return []
    counts = label_counts(found.truth, found.predicted)
    scores = label_scores(counts)
    return [
        {
            "label": label,
            "precision": float(scores.precision[row]),
            "recall": float(scores.recall[row]),
            "f1": float(scores.f1[row]),
            "support": int(counts.support[row]),
            "predicted": int(counts.predicted[row]),
            "train": target.train_counts.get(label, 0),
            "threshold": None if thresholds is None else thresholds[row],
        }
        for row, label in enumerate(target.spec.labels.names)
    ]
