"""An evaluation as a page of plain text, made from its JSON alone: at most 100 columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from doctune.reports.evaluation_thresholds import threshold_words
from doctune.reports.numbers import counted, decimal
from doctune.reports.plots import shorten
from doctune.reports.summary import INDENT, WIDTH, paragraph
from doctune.reports.verdict import METRIC_WORDS

PAIRS = 5
STATUSES_SHOWN = 6
NOTES_SHOWN = 8
SOFT_WORDS = {"roc_auc_macro": "macro ROC-AUC", "average_precision_macro": "macro average precision"}
WORDS = METRIC_WORDS | SOFT_WORDS
SHOWN = ("accuracy", "f1_macro", "f1_weighted", "roc_auc_macro", "average_precision_macro", "log_loss")
STORED = "the probabilities that the run stored"

Report = Mapping[str, Any]


def summarize(report: Report) -> str:
    """The page: scores with their intervals, calibration, the threshold, what was not judged, the most confused."""
    blocks = [
        [f"doctune evaluation: {shorten(report['run'], WIDTH - 20)}"],
        paragraph("JUDGED", judged_words(report)),
        _scores(report),
        paragraph("TRUST", calibration_words(report)),
        paragraph("THRESHOLD", threshold_words(report["thresholds"], report["precision"], "document")),
        paragraph("COPIES", copies_words(report)),
        _confused(report),
        note_lines(report),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def judged_words(report: Report) -> str:
    """What was judged, by what, and what was not."""
    by = STORED if report["backend"] == "stored" else f"the exported model ({report['backend']})"
    documents, left = report["documents"], report["unjudged"]
    words = f"{counted(documents, 'document')} of {report['source']}, by {by}."
    if report["agreement"] is not None:
        words += f" {report['agreement']:,} of {documents:,} labels are those that the run stored."
    if left["count"]:
        words += f" Not judged: {status_words(left['by_status'])}."
    if left["unread"]:
        words += (
            f" If the {counted(left['unread'], 'file')} that could not be read counted as wrong, the accuracy would be "
            f"{decimal(left['accuracy_with_unread'])}."
        )
    return words


def status_words(by_status: Mapping[str, int]) -> str:
    """How many files are not judged for which kind of reason, the most frequent first."""
    ordered = sorted(by_status.items(), key=lambda pair: (-pair[1], pair[0]))
    shown = [f"{count:,} {status.replace('_', ' ')}" for status, count in ordered[:STATUSES_SHOWN]]
    return ", ".join([*shown, "…"] if len(ordered) > STATUSES_SHOWN else shown)


def calibration_words(report: Report) -> str:
    """The calibration error before the temperature and after it."""
    measured = report["calibration"]
    before, after = measured["before"], measured["after"]
    error = f"Expected calibration error {_bounded(before, 'ece')}"
    if measured["problem"]:
        return f"{error}. No temperature was fitted: {measured['problem']}."
    where = "stored in the model folder" if measured["is_in_artifact"] else "not stored in the model folder"
    return f"{error} before, {_bounded(after, 'ece')} after a temperature of {measured['temperature']:.3f} ({where})."


def copies_words(report: Report) -> str:
    """The accuracy with and without documents that have a near-copy in training."""
    found = report["training_copies"]
    if found is None:
        return "It is not known which documents have a near-copy in training."
    if not found["documents"]:
        return "No document has a near-copy in training."
    number = f"{counted(found['documents'], 'document')} of {report['documents']:,} have a near-copy in training"
    if found["without"] is None:
        return f"{number}: there is no other one, so nothing is known of new documents."
    return (
        f"{number}. Accuracy {_bounded(found['with'], 'accuracy')} with them, "
        f"{_bounded(found['without'], 'accuracy')} without."
    )


def _scores(report: Report) -> list[str]:
    scores = report["scores"]
    lines = [
        f"{WORDS[name]:<28}{decimal(scores[name]):>7}{_interval(scores, name)}"
        for name in SHOWN
        if scores.get(name) is not None
    ]
    lines += [
        f"{f'top-{k} accuracy':<28}{decimal(share):>7}{_interval(scores, f'top_{k}_accuracy')}"
        for k, share in scores["top_k_accuracy"].items()
    ]
    return [f"{'SCORES' if place == 0 else '':<{INDENT}}{line}" for place, line in enumerate(lines)]


def _interval(scores: Mapping[str, Any], name: str) -> str:
    bounds = scores["ci95"].get(name)
    return f"  (95 % interval {decimal(bounds[0])} to {decimal(bounds[1])})" if bounds else ""


def _bounded(scores: Mapping[str, Any], name: str) -> str:
    low, high = scores["ci95"][name]
    return f"{decimal(scores[name])} ({decimal(low)}–{decimal(high)})"


def _confused(report: Report) -> list[str]:
    lines = [
        f"{shorten(pair['truth'])} taken for {shorten(pair['predicted'])}: {pair['count']:,} of {pair['support']:,}"
        for pair in report["confused_pairs"][:PAIRS]
    ]
    return [f"{'CONFUSED' if place == 0 else '':<{INDENT}}{line}" for place, line in enumerate(lines)]


def note_lines(report: Report) -> list[str]:
    """What a reader must know, as a block of the page."""
    lines = [line for note in report["notes"][:NOTES_SHOWN] for line in paragraph("", f"- {note}", max_lines=3)]
    return [f"{'NOTES':<{INDENT}}{lines[0][INDENT:]}", *lines[1:]] if lines else []
