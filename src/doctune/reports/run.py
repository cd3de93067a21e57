"""The report of one run, made from the files in its folder: no model, no Lightning, no torch.

Every task has a report of its own; that of a classifier is made here.

Shapes: L labels.
"""

from __future__ import annotations

import base64
import csv
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doctune.errors import ArtifactError
from doctune.files import write_json, write_text, written_whole
from doctune.reports import facts, html, instructions, plots, reader, targets
from doctune.reports.confusions import confused_pairs
from doctune.reports.methods import describe_methods
from doctune.reports.part_scores import score_part
from doctune.reports.records import (
    INSTRUCTIONS,
    MULTI_TASK,
    QUESTION_ANSWERING,
    ChunkWeight,
    Predictions,
    RunRecords,
    read_run,
    read_task,
)
from doctune.reports.summary import summarize
from doctune.reports.verdict import PART_WORDS, judge, judged_metric
from doctune.scoring.classification import class_scores, confusion_matrix

SCHEMA = 1
METRICS = ("val/f1_macro", "val/accuracy")
WORST_MISTAKES = 20
SUREST_RIGHT, HEAVIEST_CHUNKS = 5, 3
FILES = (
    "index.html",
    "summary.txt",
    "methods.txt",
    "report.json",
    "per_class.csv",
    "loss_curves.png",
    "metric_curve.png",
    "confusion_matrix.png",
)


def write_report(run: Path) -> Path:
    """Write `report/` of a finished run and return the path of its `summary.txt`, a page made to be printed.

    Raises:
        ArtifactError: a file of the run is missing or damaged; the message names it.
    """
    task = read_task(run)
    if task == QUESTION_ANSWERING:
        return reader.write_report(run)
    if task == MULTI_TASK:
        return targets.write_report(run)
    if task == INSTRUCTIONS:
        return instructions.write_report(run)
    records = read_run(run)
    report = build_report(records)
    folder = run / "report"
    write_json(folder / "report.json", report)
    _write_per_class(report["per_class"], folder / "per_class.csv")
    pictures = _write_plots(records, report, folder)
    methods = describe_methods(report, records.config)
    write_text(folder / "methods.txt", methods + "\n")
    write_text(folder / "index.html", html.page(report, records, pictures, methods))
    write_text(folder / "summary.txt", summarize(report))
    return folder / "summary.txt"


def build_report(records: RunRecords) -> dict[str, Any]:
    """The content of a classifier's `report.json`; every value is plain, and a number that is not finite becomes null.

    Raises:
        ArtifactError: neither part has predictions.
    """
    part, predictions = _judged_part(records)
    scores = {name: score_part(getattr(records, name), len(records.labels)) for name in ("val", "test")}
    monitor = records.environment.get("monitor") or {}
    metric = judged_metric(monitor.get("metric", "")) or "f1_macro"
    verdict = judge(records, scores[part] or {}, part, metric)
    confusion = confusion_matrix(predictions.truth, predictions.predicted, len(records.labels))
    report = {
        "schema": SCHEMA,
        "verdict": verdict.sentence,
        "comparison": verdict.to_dict(),
        "run": facts.run_name(records),
        "part": part,
        **scores,
        "baselines": records.baselines,
        **facts.training_facts(records, METRICS[0]),
        "labels": list(records.labels.names),
        "per_class": _per_class(records, confusion),
        "confused_pairs": confused_pairs(confusion, records.labels.names),
        "worst_mistakes": _surest(records, part, predictions.truth != predictions.predicted, WORST_MISTAKES),
        **_surest_right(records, part),
        "confusion": confusion.tolist(),
        "account": records.audit,
        "notes": [*facts.told(records), *_notes(records, confusion, part, monitor)],
        "alarms": records.environment.get("alarms") or [],
        "files": list(FILES),
    }
    plain: dict[str, Any] = facts.finite(report)
    return plain


def _judged_part(records: RunRecords) -> tuple[str, Predictions]:
    if records.test is not None:
        return "test", records.test
    if records.val is not None:
        return "val", records.val
    raise ArtifactError(f"{records.folder}: neither predictions/test.parquet nor val.parquet has a row.")


def _per_class(records: RunRecords, confusion: NDArray[np.int64]) -> list[dict[str, Any]]:
    scores = class_scores(confusion)
    trained = (records.audit.get("class_counts") or {}).get("train")
    return [
        {
            "label": label,
            "precision": float(scores.precision[index]),
            "recall": float(scores.recall[index]),
            "f1": float(scores.f1[index]),
            "support": int(scores.support[index]),
            "predicted": int(scores.predicted[index]),
            "train": None if trained is None else trained.get(label, 0),
        }
        for index, label in enumerate(records.labels.names)
    ]


def _surest_right(records: RunRecords, part: str) -> dict[str, Any]:
    """Where the model reads chunks: the right labels that it was surest of, with what it went by."""
    predictions = getattr(records, part)
    if not records.attention.get(part):
        return {}
    return {"surest_right": _surest(records, part, predictions.truth == predictions.predicted, SUREST_RIGHT)}


def _surest(records: RunRecords, part: str, chosen: NDArray[np.bool_], count: int) -> list[dict[str, Any]]:
    """Of the chosen documents those with the highest probability, highest first; equal ones in the file's order."""
    predictions: Predictions = getattr(records, part)
    labels = records.labels.names
    sureness = predictions.probabilities[np.arange(len(predictions)), predictions.predicted]
    places = np.flatnonzero(chosen)
    surest = places[np.argsort(-sureness[places], kind="stable")][:count]
    return [
        {
            "path": predictions.paths[row],
            "truth": labels[predictions.truth[row]],
            "predicted": labels[predictions.predicted[row]],
            "probability": float(sureness[row]),
            "truth_probability": float(predictions.probabilities[row, predictions.truth[row]]),
            **_heaviest_chunks(records.attention.get(part, {}).get(predictions.ids[row], [])),
        }
        for row in surest
    ]


def _heaviest_chunks(chunks: Sequence[ChunkWeight]) -> dict[str, Any]:
    """The chunks that counted most, heaviest first, and how many the document has; nothing without chunks."""
    if not chunks:
        return {}
    heaviest = sorted(chunks, key=lambda chunk: (-chunk.weight, chunk.number))[:HEAVIEST_CHUNKS]
    return {"num_chunks": len(chunks), "chunks": [asdict(chunk) for chunk in heaviest]}


def _notes(records: RunRecords, confusion: NDArray[np.int64], part: str, monitor: dict[str, Any]) -> list[str]:
    """What a reader must know before trusting the numbers."""
    documents = int(confusion.sum())
    absent = int((confusion.sum(axis=1) == 0).sum())
    word = PART_WORDS[part]
    notes = []
    if absent:
        notes.append(f"{absent} of {len(confusion)} labels have no {word} document, so nothing is known of them.")
    if np.trace(confusion) == documents:
        notes.append(
            f"No {word} document was wrong: with {documents:,} of them an error rate of up to "
            f"{min(1.0, 3 / documents):.1%} cannot be excluded (rule of three), whatever the interval says."
        )
    if monitor.get("metric") and judged_metric(monitor["metric"]) is None:
        notes.append(f"No baseline has the monitored {monitor['metric']}: the verdict is on macro F1.")
    return notes


def _write_per_class(rows: Sequence[dict[str, Any]], path: Path) -> None:
    with written_whole(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _write_plots(records: RunRecords, report: dict[str, Any], folder: Path) -> html.Pictures:
    """Write the PNG files; give the same pictures as the page has them."""
    part = report["part"]
    title = f"{PART_WORDS[part].capitalize()}, {report[part]['documents']:,} documents"
    levels = facts.baseline_levels(records.baselines, report["comparison"]["metric"])
    metrics = facts.curve_metrics(records, METRICS)
    curves = plots.write_curves(records.history, metrics, report["best_epoch"], levels, folder)
    matrix = folder / "confusion_matrix.png"
    plots.save(plots.confusion_matrix(np.asarray(report["confusion"]), records.labels.names, title), matrix)
    return html.Pictures(
        loss_curves=curves.losses,
        metric_curve=curves.scores,
        confusion_matrix="data:image/png;base64," + base64.b64encode(matrix.read_bytes()).decode("ascii"),
    )
