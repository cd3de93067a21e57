"""The report of a run that learnt several targets, made from the files in its folder.

Shapes: N texts of a part that know a target, L labels of the target.
"""

from __future__ import annotations

import base64
import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from doctune.errors import ArtifactError
from doctune.files import write_json, write_text, written_whole
from doctune.reports import facts, plots, target_page
from doctune.reports.methods import describe_methods
from doctune.reports.records import MULTI_TASK
from doctune.reports.target_mistakes import describe_mistakes
from doctune.reports.target_records import MultiTaskRecords, TargetPart, TargetRecords, read_targets_run
from doctune.reports.target_scores import METRIC, Said, align, all_ids, label_rows, score_target, score_together
from doctune.reports.target_summary import summarize
from doctune.reports.verdict import PART_WORDS, Verdict, judge_scores, targets_headline
from doctune.scoring.intervals import Difference
from doctune.scoring.targets import paired_difference

SCHEMA = 1
FILES = (
    "index.html",
    "summary.txt",
    "methods.txt",
    "report.json",
    "per_label.csv",
    "loss_curves.png",
    "metric_curve.png",
)
LABEL_COLUMNS = ("target", "label", "precision", "recall", "f1", "support", "predicted", "train", "threshold")


def write_report(run: Path) -> Path:
    """Write `report/` of a finished run and return the path of its `summary.txt`.

    Raises:
        ArtifactError: a file of the run is missing or damaged; the message names it.
    """
    records = read_targets_run(run)
    report = build_report(records)
    folder = run / "report"
    write_json(folder / "report.json", report)
    _write_per_label(report["targets"], folder / "per_label.csv")
    pictures = _write_plots(records, report, folder)
    methods = describe_methods(report, records.config)
    write_text(folder / "methods.txt", methods + "\n")
    write_text(folder / "index.html", target_page.page(report, records, pictures, methods))
    write_text(folder / "summary.txt", summarize(report))
    return folder / "summary.txt"


def build_report(records: MultiTaskRecords) -> dict[str, Any]:
    """The content of `report.json`; every value is plain, and a number that is not finite becomes null.

    Raises:
        ArtifactError: neither part has predictions of any target.
    """
    part = _judged_part(records)
    judged = {target.spec.name: _judge(target, part, records) for target in records.targets}
    matrices = _matrix_files(judged)
    report = {
        "schema": SCHEMA,
        "task": MULTI_TASK,
        "verdict": verdict_words(judged),
        "comparison": _compare(records, judged, part),
        "run": facts.run_name(records),
        "part": part,
        **{name: score_together(_known(records, name), _scores(judged, name)) for name in ("val", "test")},
        "targets": judged,
        "baselines": records.baselines,
        **facts.training_facts(records, f"val/{METRIC}"),
        "account": records.audit,
        "notes": facts.told(records),
        "alarms": records.environment.get("alarms") or [],
        "files": [*FILES, *matrices.values()],
    }
    plain: dict[str, Any] = facts.finite(report)
    return plain


def verdict_words(judged: Mapping[str, Mapping[str, Any]]) -> str:
    """On how many targets the run is better than its baselines, and what became of each.

    Args:
        judged: the entries of `report["targets"]`.
    """
    told = [f"{name}: {found['verdict']}" for name, found in judged.items()]
    return f"{targets_headline(judged)} {' '.join(told)}"


def _judged_part(records: MultiTaskRecords) -> str:
    for part in ("test", "val"):
        if any(target.part(part) for target in records.targets):
            return part
    raise ArtifactError(f"{records.folder}: neither predictions/test.parquet nor val.parquet knows any target.")


def _known(records: MultiTaskRecords, part: str) -> list[Said]:
    """The targets that a part knows, with what was said of them."""
    return [(target.spec, found) for target in records.targets if (found := target.part(part)) is not None]


def _scores(judged: Mapping[str, Mapping[str, Any]], part: str) -> dict[str, Any]:
    return {name: found[part] for name, found in judged.items()}


def _judge(target: TargetRecords, part: str, records: MultiTaskRecords) -> dict[str, Any]:
    """One entry of `report["targets"]`."""
    spec, environment, found = target.spec, records.environment, target.part(part)
    scores = {name: score_target(spec, target.part(name)) for name in ("val", "test")}
    verdict = _verdict(target, scores[part], part)
    return {
        "kind": spec.kind,
        "labels": list(spec.labels.names),
        "verdict": "No text of the judged part knows it." if verdict is None else verdict.sentence,
        "comparison": {} if verdict is None else verdict.to_dict(),
        **scores,
        "baselines": target.baselines,
        "per_label": _per_label(target, found, (environment.get("thresholds") or {}).get(spec.name)),
        "weight": (environment.get("target_weights") or {}).get(spec.name),
        **({} if found is None else describe_mistakes(spec, found, target.train_counts, _trained(target, records))),
    }


def _trained(target: TargetRecords, records: MultiTaskRecords) -> int:
    """How many training texts know a target."""
    missing = (records.audit["targets"][target.spec.name].get("missing") or {}).get("train", 0)
    return int(records.audit.get("parts", {}).get("train", 0)) - int(missing)


def _compare(records: MultiTaskRecords, judged: Mapping[str, Mapping[str, Any]], part: str) -> dict[str, Any]:
    """The mean macro F1 beside that of the strongest baseline of each target, where all of them have one.

    `difference`, `low` and `high` are of the same test texts; null where it is not known what the baselines said of
    them.
    """
    known = [target for target in records.targets if target.part(part)]
    chosen = {target.spec.name: judged[target.spec.name]["comparison"].get("baseline") for target in known}
    if None in chosen.values():
        return {"metric": METRIC, "baselines": None, "baseline": None, **_bounds(None)}
    scores = [target.baselines[chosen[target.spec.name]][part][METRIC] for target in known]
    difference = None
    if part == "test" and all(chosen[target.spec.name] in target.baseline_sets for target in known):
        difference = _lead(known, chosen)
    return {"metric": METRIC, "baselines": chosen, "baseline": float(np.mean(scores)), **_bounds(difference)}


def _bounds(difference: Difference | None) -> dict[str, float | None]:
    if difference is None:
        return {"difference": None, "low": None, "high": None}
    return {"difference": difference.value, "low": difference.low, "high": difference.high}


def _lead(targets: Sequence[TargetRecords], baselines: Mapping[str, str]) -> Difference:
    """By how much the mean macro F1 of these targets is higher than with a baseline of each, on the same test texts."""
    tests = [(target, target.test) for target in targets if target.test is not None]
    ids = all_ids([test for _, test in tests])
    own = [align(target.spec, test, test.predicted, ids) for target, test in tests]
    other = [align(each.spec, test, each.baseline_sets[baselines[each.spec.name]], ids) for each, test in tests]
    return paired_difference(own, other)


def _verdict(target: TargetRecords, scores: dict[str, Any] | None, part: str) -> Verdict | None:
    if scores is None:
        return None
    baselines = {name: _counted(parts, scores["texts"]) for name, parts in target.baselines.items()}
    return judge_scores(scores, baselines, part, METRIC, _difference_to(target, part), noun="text")


def _counted(parts: Mapping[str, Any], texts: int) -> dict[str, Any]:
    return {name: None if found is None else found | {"texts": texts} for name, found in parts.items()}


def _difference_to(target: TargetRecords, part: str) -> Callable[[str], Difference | None]:
    """The difference to a baseline on the same test texts; None where it is not known what the baseline said."""

    def difference(name: str) -> Difference | None:
        if part != "test" or target.test is None or name not in target.baseline_sets:
            return None
        return _lead([target], {target.spec.name: name})

    return difference


def _per_label(
    target: TargetRecords, found: TargetPart | None, thresholds: Sequence[float] | None
) -> list[dict[str, Any]]:
    if found is None:
        return []
    return [
        {
            **scores,
            "train": target.train_counts.get(scores["label"], 0),
            "threshold": None if thresholds is None else thresholds[row],
        }
        for row, scores in enumerate(label_rows(target.spec, found))
    ]


def _write_per_label(targets: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Every label of every target; a threshold is empty where the most probable label is predicted."""
    rows = [{"target": name, **row} for name, found in targets.items() for row in found["per_label"]]
    with written_whole(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=LABEL_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _matrix_files(judged: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Target -> the file of its confusion matrix; numbered, since the name of a target may be none of a file."""
    drawn = [name for name, found in judged.items() if "confusion" in found]
    return {name: f"confusion_matrix_{number}.png" for number, name in enumerate(drawn, start=1)}


def _write_plots(records: MultiTaskRecords, report: Mapping[str, Any], folder: Path) -> target_page.Pictures:
    """Write the PNG files; give the same pictures as the page has them."""
    shown = [target.spec.name for target in records.targets[: target_page.MAX_CURVES]]
    metrics = {"val_f1_macro": "mean macro F1"} | {f"val_{name}_f1_macro": f"macro F1, {name}" for name in shown}
    curves = plots.write_curves(records.history, metrics, report["best_epoch"], {}, folder)
    matrices = {}
    for name, file in _matrix_files(report["targets"]).items():
        found, part = report["targets"][name], report["part"]
        title = f"{name}: {PART_WORDS[part]}, {found[part]['texts']:,} texts"
        figure = plots.confusion_matrix(np.asarray(found["confusion"]), found["labels"], title, noun="text")
        plots.save(figure, folder / file)
        data = base64.b64encode((folder / file).read_bytes()).decode("ascii")
        matrices[name] = target_page.Matrix(file, f"data:image/png;base64,{data}")
    return target_page.Pictures(curves, matrices)
