"""The evaluation of a classifier: scores with intervals, calibration, thresholds and where it goes wrong.

Shapes: N documents, L labels.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doctune import __version__
from doctune.documents import STATUSES
from doctune.files import write_json, write_text, written_whole
from doctune.inference.artifact import Artifact
from doctune.reports import evaluation_page, evaluation_plots, evaluation_thresholds, facts
from doctune.reports.evaluation_slices import scores_without_training_copies, sliced_scores
from doctune.reports.evaluation_source import Evaluated, stored_part
from doctune.reports.evaluation_summary import summarize
from doctune.reports.evaluation_thresholds import Scored
from doctune.reports.numbers import counted
from doctune.reports.verdict import MIN_DOCUMENTS
from doctune.scoring import calibration, ranking
from doctune.scoring.calibration import TemperatureFit, apply_temperature, fit_temperature
from doctune.scoring.classification import STATISTICS, class_scores, confusion_matrix, document_log_losses, score
from doctune.scoring.intervals import (
    Interval,
    bootstrap_intervals,
    bootstrap_mean_interval,
    percentile_interval,
    resampled_values,
    unbiased_interval,
)

SCHEMA = 1
CONFUSED_PAIRS = 20
WORST_MISTAKES = 20
REPORT_FILE, SUMMARY_FILE = "evaluation_report.json", "evaluation_summary.csv"
PICTURES = {
    "confusion_matrix.png": "Confusion matrix",
    "roc_curves.png": "ROC curves",
    "precision_recall_curves.png": "Precision-recall curves",
    "reliability.png": "Reliability",
    "coverage.png": "Accuracy against coverage",
}
SUMMARY_COLUMNS = ("metric", "value", "low", "high", "documents")


@dataclass(frozen=True)
class Chosen:
    """What was chosen on validation data, and the validation part itself for thresholds; None without one.

    `temperature` is that of the artifact, or was fitted now where `is_in_artifact` is False; `problem` says why neither
    is there.
    """

    temperature: float
    is_in_artifact: bool
    problem: str
    fit: TemperatureFit | None
    validation: Scored | None


def choose(artifact: Artifact, run: Path | None) -> Chosen:
    """The artifact's temperature; where it has none, the one that fits the run's stored validation predictions.

    Raises:
        ArtifactError: the run's validation predictions are damaged.
    """
    has_validation = run is not None and (run / "predictions" / "val.parquet").is_file()
    is_in_artifact = artifact.temperature != 1
    if run is None or not has_validation:
        problem = "" if is_in_artifact else "there are no validation predictions to fit it on"
        return Chosen(artifact.temperature, is_in_artifact, problem, None, None)
    stored = stored_part(run, "val", artifact.labels)
    fit = fit_temperature(stored.truth, stored.probabilities)
    temperature, problem = (artifact.temperature, "") if is_in_artifact else (fit.temperature, fit.problem)
    given = apply_temperature(stored.probabilities, artifact.temperature)
    return Chosen(temperature, is_in_artifact, problem, fit, Scored(*calibration.scores_of(stored.truth, given)))


def write_evaluation(
    found: Evaluated, chosen: Chosen, artifact: Artifact, run_name: str, precision: float, folder: Path
) -> str:
    """Write the evaluation into a folder and return its summary.

    Args:
        found: the documents and what the model says of them.
        chosen: the temperature and the validation part.
        artifact: the model's.
        run_name: of the run, as a person knows it.
        precision: the share that must be right among what a threshold keeps.
        folder: where everything goes; files of an earlier evaluation are replaced.
    """
    report = build_evaluation(found, chosen, artifact, run_name, precision)
    given = apply_temperature(found.probabilities, artifact.temperature)
    evaluation_plots.write_pictures(report, found.truth, given, folder)
    write_json(folder / REPORT_FILE, report)
    _write_summary(report, folder / SUMMARY_FILE)
    write_text(folder / "index.html", evaluation_page.page(report, folder))
    summary = summarize(report)
    write_text(folder / "summary.txt", summary)
    return summary


def build_evaluation(
    found: Evaluated, chosen: Chosen, artifact: Artifact, run_name: str, precision: float
) -> dict[str, Any]:
    """The content of `evaluation_report.json`; every value is plain, and a number that is not finite becomes null.

    All scores are of the probabilities that `doctune predict` gives, those of the artifact's temperature; only
    `calibration` has others beside them.
    """
    given = apply_temperature(found.probabilities, artifact.temperature)
    predicted = given.argmax(axis=1).astype(np.int64)
    confusion = confusion_matrix(found.truth, predicted, len(found.labels))
    judged = Scored(*calibration.scores_of(found.truth, given))
    report = {
        "schema": SCHEMA,
        "task": artifact.task,
        "doctune_version": __version__,
        "run": run_name,
        "name": found.name,
        "source": found.source,
        "part": found.part,
        "backend": found.backend,
        "documents": len(found.documents),
        "agreement": found.agreement,
        "unjudged": _unjudged(found, predicted),
        "scores": _scores(found, given, predicted, confusion),
        "labels": list(found.labels.names),
        "per_class": _per_class(found, given, confusion),
        "confusion": confusion.tolist(),
        "confused_pairs": _confused_pairs(found, predicted, confusion),
        "calibration": _calibration(found, chosen, artifact),
        "coverage": evaluation_thresholds.curve(judged),
        "thresholds": evaluation_thresholds.threshold_rows(precision, chosen.validation, judged),
        "precision": precision,
        "slices": sliced_scores(found, predicted),
        "training_copies": scores_without_training_copies(found, predicted),
        "worst_mistakes": _worst_mistakes(found, given, predicted),
        "notes": _notes(found, chosen, confusion),
        "files": [REPORT_FILE, SUMMARY_FILE, "index.html", "summary.txt", *PICTURES],
    }
    plain: dict[str, Any] = facts.finite(report)
    return plain


# --- scores ------------------------------------------------------------------------------------------------------


def _scores(
    found: Evaluated, given: NDArray[np.float64], predicted: NDArray[np.int64], confusion: NDArray[np.int64]
) -> dict[str, Any]:
    """The headline numbers with 95 % intervals under `ci95`."""
    hard = score(found.truth, predicted, len(found.labels), given).to_dict()
    scores, is_right = calibration.scores_of(found.truth, given)
    ranked = ranking.rank_labels(found.truth, given)
    resampled = resampled_values(
        len(found.truth),
        {
            "roc_auc_macro": ranked.macro_roc_auc,
            "average_precision_macro": ranked.macro_average_precision,
            "ece": lambda weights: calibration.resampled_calibration_errors(scores, is_right, weights),
        },
    )
    soft = {
        "roc_auc_macro": ranking.macro(ranking.per_label(found.truth, given, ranking.roc_auc)),
        "average_precision_macro": ranking.macro(ranking.per_label(found.truth, given, ranking.average_precision)),
        "ece": calibration.expected_calibration_error(scores, is_right),
    }
    bounds = {name: percentile_interval(values) for name, values in resampled.items() if len(values)}
    bounds["ece"] = unbiased_interval(soft["ece"], resampled["ece"])  # type: ignore[arg-type]  # it is always known
    bounds |= {
        f"top_{k}_accuracy": _share_interval(share, len(found.truth)) for k, share in hard["top_k_accuracy"].items()
    }
    bounds |= bootstrap_intervals(confusion, STATISTICS)
    bounds["log_loss"] = bootstrap_mean_interval(document_log_losses(found.truth, given))
    return hard | soft | {"ci95": {name: list(pair) for name, pair in bounds.items()}}


def _share_interval(share: float, documents: int) -> Interval:
    """The interval of a share; which of the documents are counted does not matter."""
    hits = round(share * documents)
    return bootstrap_mean_interval(np.repeat([1.0, 0.0], [hits, documents - hits]))


def _per_class(found: Evaluated, given: NDArray[np.float64], confusion: NDArray[np.int64]) -> list[dict[str, Any]]:
    scores = class_scores(confusion)
    areas = ranking.per_label(found.truth, given, ranking.roc_auc)
    precisions = ranking.per_label(found.truth, given, ranking.average_precision)
    return [
        {
            "label": label,
            "precision": float(scores.precision[index]),
            "recall": float(scores.recall[index]),
            "f1": float(scores.f1[index]),
            "roc_auc": areas[index],
            "average_precision": precisions[index],
            "support": int(scores.support[index]),
            "predicted": int(scores.predicted[index]),
        }
        for index, label in enumerate(found.labels.names)
    ]


def _unjudged(found: Evaluated, predicted: NDArray[np.int64]) -> dict[str, Any]:
    """What has no prediction, and the accuracy if each file that is there but could not be read counts as wrong."""
    right = int((predicted == found.truth).sum())
    unread = sum(each.status in STATUSES for each in found.unjudged)
    return {
        "files": [asdict(each) for each in found.unjudged],
        "count": len(found.unjudged),
        "by_status": dict(sorted(Counter(each.status for each in found.unjudged).items())),
        "unread": unread,
        "accuracy_with_unread": right / (len(found.documents) + unread),
    }


# --- calibration -------------------------------------------------------------------------------------------------


def _calibration(found: Evaluated, chosen: Chosen, artifact: Artifact) -> dict[str, Any]:
    """How far scores are from shares, without a temperature and with it."""
    fit = chosen.fit
    return {
        "temperature": chosen.temperature,
        "is_in_artifact": chosen.is_in_artifact,
        "problem": chosen.problem,
        "validation": None if fit is None else asdict(fit),
        "before": _calibrated(found.truth, found.probabilities),
        "after": _calibrated(found.truth, apply_temperature(found.probabilities, chosen.temperature)),
    }


def _calibrated(truth: NDArray[np.int64], chances: NDArray[np.float64]) -> dict[str, Any]:
    scores, is_right = calibration.scores_of(truth, chances)
    error = calibration.expected_calibration_error(scores, is_right)
    resampled = resampled_values(
        len(truth), {"ece": lambda weights: calibration.resampled_calibration_errors(scores, is_right, weights)}
    )
    losses = document_log_losses(truth, chances)
    return {
        "ece": error,
        "ece_adaptive": calibration.adaptive_calibration_error(scores, is_right),
        "log_loss": float(losses.mean()),
        "mean_score": float(scores.mean()),
        "accuracy": float(is_right.mean()),
        "bins": [asdict(each) for each in calibration.reliability_bins(scores, is_right)],
        "ci95": {
            "ece": list(unbiased_interval(error, resampled["ece"])),
            "log_loss": list(bootstrap_mean_interval(losses)),
        },
    }


# --- mistakes ----------------------------------------------------------------------------------------------------


def _confused_pairs(
    found: Evaluated, predicted: NDArray[np.int64], confusion: NDArray[np.int64]
) -> list[dict[str, Any]]:
    """The most frequent mistakes, most frequent first; equal ones in label order; each with a document."""
    names = found.labels.names
    mistakes = confusion - np.diag(np.diag(confusion))
    order = np.argsort(-mistakes, axis=None, kind="stable")[:CONFUSED_PAIRS]
    pairs = [divmod(int(cell), len(names)) for cell in order if mistakes.flat[cell] > 0]
    return [
        {
            "truth": names[truth],
            "predicted": names[taken],
            "count": int(confusion[truth, taken]),
            "support": int(confusion[truth].sum()),
            "example": found.documents[int(((found.truth == truth) & (predicted == taken)).argmax())].path,
        }
        for truth, taken in pairs
    ]


def _worst_mistakes(found: Evaluated, given: NDArray[np.float64], predicted: NDArray[np.int64]) -> list[dict[str, Any]]:
    """The wrong labels with the highest probability, highest first; equal ones in the documents' order."""
    scores = given.max(axis=1)
    wrong = np.flatnonzero(predicted != found.truth)
    worst = wrong[np.argsort(-scores[wrong], kind="stable")][:WORST_MISTAKES]
    return [
        {
            "path": found.documents[row].path,
            "truth": found.labels.names[found.truth[row]],
            "predicted": found.labels.names[predicted[row]],
            "probability": float(scores[row]),
            "truth_probability": float(given[row, found.truth[row]]),
            "excerpt": found.documents[row].excerpt,
        }
        for row in worst.tolist()
    ]


def _notes(found: Evaluated, chosen: Chosen, confusion: NDArray[np.int64]) -> list[str]:
    """What a reader must know before trusting the numbers."""
    documents, absent = len(found.documents), int((confusion.sum(axis=1) == 0).sum())
    notes = [*found.notes]
    if found.part == "val":
        notes.append(
            "These validation documents chose the checkpoint, the temperature and the thresholds: the scores flatter."
        )
    if documents < MIN_DOCUMENTS:
        notes.append(f"There are only {counted(documents, 'document')}, too few for their scores to be trusted.")
    if absent:
        notes.append(f"{absent} of {len(confusion)} labels have no document here, so nothing is known of them.")
    if np.trace(confusion) == documents:
        notes.append(
            f"No document was wrong: with {documents:,} of them an error rate of up to {min(1.0, 3 / documents):.1%} "
            "cannot be excluded (rule of three), whatever the interval says."
        )
    return [*notes, *_temperature_notes(chosen)]


def _temperature_notes(chosen: Chosen) -> list[str]:
    if chosen.problem:
        return [f"No temperature was fitted: {chosen.problem}."]
    if not chosen.is_in_artifact:
        return [
            f"The model folder has no temperature; {chosen.temperature:.3f} was fitted now on validation predictions. "
            "Predictions do not use it: only a run that is trained again stores its own."
        ]
    return []


# --- files -------------------------------------------------------------------------------------------------------


def _write_summary(report: dict[str, Any], path: Path) -> None:
    with written_whole(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(SUMMARY_COLUMNS)
        writer.writerows(summary_rows(report))


def summary_rows(report: dict[str, Any]) -> list[Sequence[object]]:
    """The rows of `evaluation_summary.csv`, columns `SUMMARY_COLUMNS`; empty cells for what is not known."""
    scores = report["scores"]
    flat = {name: value for name, value in scores.items() if isinstance(value, float)}
    flat |= {f"top_{k}_accuracy": share for k, share in scores["top_k_accuracy"].items()}
    bounds = dict(scores["ci95"])
    for moment in ("before", "after"):
        for name in ("ece", "log_loss"):
            flat[f"{name}_{moment}_temperature"] = report["calibration"][moment][name]
            bounds[f"{name}_{moment}_temperature"] = report["calibration"][moment]["ci95"][name]
    flat |= {f"f1[{row['label']}]": row["f1"] for row in report["per_class"] if row["support"]}
    return [(name, value, *(bounds.get(name) or ("", "")), report["documents"]) for name, value in flat.items()]
