"""The report as a page of plain text that fits a chat: at most 60 lines of at most 100 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from doctune.reports.numbers import UNKNOWN, decimal, duration, percent, whole
from doctune.reports.plots import shorten
from doctune.reports.verdict import ALL_METRIC_WORDS, BASELINE_WORDS, PART_WORDS

WIDTH = 100
MAX_LINES = 60
INDENT = 11
WORST = 5
MAX_REASONS = 6
MAX_NOTES = 6
Report = Mapping[str, Any]


def summarize(report: Report) -> str:
    """The page of a classifier, made from `report.json` alone; values that a run does not have are shown as a dash."""
    soft = f"{'':<{INDENT}}{soft_scores(report[report['part']])}"
    return assemble(
        report,
        [*score_lines(report, compared_metrics(report), "documents"), soft],
        [*_data(report), *model(report), *training(report), *machine(report)],
        _worst_labels(report),
        _confused(report),
    )


def assemble(report: Report, *middle: Sequence[str]) -> str:
    """The page of any run: its name and verdict, the blocks of lines of its task, its notes and files.

    Blocks without lines are left out, with the empty line above them.
    """
    blocks = [
        [f"doctune report: {shorten(report['run'], WIDTH - 16)}"],
        paragraph("VERDICT", report["verdict"]),
        *middle,
        _notes(report),
        paragraph("FILES", ", ".join(report["files"])),
    ]
    text = "\n\n".join("\n".join(block) for block in blocks if block)
    assert text.count("\n") < MAX_LINES, "each block is bounded, so the page is"
    return text + "\n"


def paragraph(head: str, text: str, max_lines: int = 5) -> list[str]:
    """A head in the margin and wrapped text beside it; text beyond `max_lines` ends in an ellipsis."""
    lines = textwrap.wrap(
        " ".join(text.split()),
        WIDTH - INDENT,
        break_on_hyphens=False,  # paths and dates are left whole, to be copied
        break_long_words=False,
        max_lines=max_lines,
        placeholder=" …",
    )
    return [f"{head if place == 0 else '':<{INDENT}}{line}" for place, line in enumerate(lines)]


def compared_metrics(report: Report) -> list[str]:
    """The two metrics that a run and its baselines are shown in: the judged one first."""
    metric = report["comparison"]["metric"]
    return [metric, *(name for name in ("f1_macro", "accuracy") if name != metric)][:2]


def compared_scores(report: Report) -> list[tuple[str, dict[str, Any]]]:
    """What stands beside each other, in words, and its scores: the run, its baselines, the run on validation."""
    part = report["part"]
    rows = [("this run", report[part])]
    rows += [(BASELINE_WORDS.get(name, name), scores.get(part)) for name, scores in report["baselines"].items()]
    if part == "test":
        rows.append(("this run, validation", report["val"]))
    return [(name, scores) for name, scores in rows if scores]


def soft_scores(scores: dict[str, Any]) -> str:
    """What the probabilities of a part are worth, as a phrase."""
    top_k = [f"top-{k} accuracy {decimal(share)}" for k, share in (scores.get("top_k_accuracy") or {}).items()]
    return ", ".join([f"log loss {decimal(scores.get('log_loss'))} nats", *top_k])


def score_lines(report: Report, columns: Sequence[str], noun: str) -> list[str]:
    """The scores of the run beside those of its baselines; the plural `noun` says what was judged."""
    part = report["part"]
    title = f"{PART_WORDS[part]}, {report[part][noun]:,} {noun}; 95 % intervals"
    head = f"{'SCORES':<{INDENT}}{shorten(title, 42):<42}"
    return [
        head + "".join(f"{ALL_METRIC_WORDS[column]:<24}" for column in columns).rstrip(),
        *(score_line(name, scores, columns) for name, scores in compared_scores(report)),
    ]


def score_line(name: str, scores: Mapping[str, Any], columns: Sequence[str]) -> str:
    """A name and its scores with their intervals."""
    cells = "".join(f"{_with_interval(scores, column):<24}" for column in columns)
    return f"{'':<{INDENT}}{shorten(name, 41):<42}{cells}".rstrip()


def account_words(account: Mapping[str, Any]) -> str:
    """Where the rows of the source went, as a sentence."""
    parts = account.get("parts", {})
    reasons = account.get("left_out_reasons", {})
    why = ", ".join(f"{count:,} {reason}" for reason, count in list(reasons.items())[:MAX_REASONS])
    sizes = ", ".join(f"{parts[name]:,} {name}" for name in ("train", "val", "test") if name in parts)
    left_out = f"{parts.get('left_out', 0):,} left out" + (f" ({why})" if why else "")
    return f"{whole(account.get('rows'))} rows: {sizes}; {left_out}."


def _data(report: Report) -> list[str]:
    groups = report["account"].get("duplicate_groups")
    copies = "" if groups is None else f" Groups of copies: {groups:,}."
    return paragraph("DATA", f"{account_words(report['account'])} {_label_words(report)}{copies}")


def _label_words(report: Report) -> str:
    counts = {row["label"]: row["train"] for row in report["per_class"] if row["train"] is not None}
    if not counts:
        return f"{len(report['labels'])} labels."
    fewest, most = min(counts, key=lambda name: counts[name]), max(counts, key=lambda name: counts[name])
    return (
        f"{len(report['labels'])} labels, from {counts[fewest]:,} ({shorten(fewest)}) to {counts[most]:,} "
        f"({shorten(most)}) training documents."
    )


def model(report: Report) -> list[str]:
    """What was trained."""
    known, parameters = report["model"], report["parameters"]
    architecture = f" ({known['architecture']})" if known.get("architecture") else ""
    total, trainable = whole(parameters["total"]), whole(parameters["trainable"])
    return paragraph(
        "MODEL", f"{known.get('name', UNKNOWN)}{architecture}, {total} parameters, {trainable} of them trained."
    )


def training(report: Report) -> list[str]:
    """How the training went."""
    gap = report["gap"]
    sentences = [
        f"{_epochs(report)}",
        f"best epoch {report['best_epoch'] or UNKNOWN} by {report['monitor'].get('metric', UNKNOWN)}",
        duration(report["training_seconds"]),
        f"precision {report['precision'] or UNKNOWN}",
        f"padding {percent(report['padding_share'])}",
        f"seed {UNKNOWN if report['seed'] is None else report['seed']}",
    ]
    measured = "not measured" if gap["value"] is None else f"{gap['value']:.3f} ({gap['status'] or 'no status'})"
    return paragraph("TRAINING", f"{', '.join(sentences)}. Gap between validation and training loss: {measured}.")


def _epochs(report: Report) -> str:
    ended = {
        "max_epochs": "all that were asked for",
        "early_stopping": "stopped early",
        "gap": "stopped by the gap guard",
        None: "",
    }
    words = ended.get(report["stopped"], report["stopped"])
    count = f"{report['epochs']} epoch{'' if report['epochs'] == 1 else 's'}"
    return f"{count} ({words})" if words else count


def machine(report: Report) -> list[str]:
    """On what it ran, and which code."""
    hardware = report["hardware"]
    cores = f"{hardware.get('cores', UNKNOWN)} cores"
    parts = [", ".join(hardware.get("gpus") or []), hardware.get("processor"), cores]
    commit = (report["git"].get("commit") or "no commit")[:12] + (" with changes" if report["git"].get("dirty") else "")
    return paragraph("MACHINE", f"{'; '.join(part for part in parts if part)}. Code: {commit}.", max_lines=2)


def _worst_labels(report: Report) -> list[str]:
    """The labels with the lowest F1 among those that the part has documents of."""
    judged = [row for row in report["per_class"] if row["support"] > 0]
    worst = sorted(judged, key=lambda row: (row["f1"], row["label"]))[:WORST]
    lines = [f"{'WORST':<{INDENT}}{'label':<42}{'F1':>8}{'precision':>11}{'recall':>8}{'documents':>11}"]
    for row in worst:
        scores = f"{row['f1']:>8.3f}{row['precision']:>11.3f}{row['recall']:>8.3f}{row['support']:>11,}"
        lines.append(f"{'':<{INDENT}}{shorten(row['label'], 41):<42}{scores}")
    return lines


def _confused(report: Report) -> list[str]:
    """The most frequent mistakes: true label, predicted label, how many of the true label's documents."""
    lines = [
        f"{shorten(pair['truth'])} taken for {shorten(pair['predicted'])}: {pair['count']:,} of {pair['support']:,}"
        for pair in report["confused_pairs"][:WORST]
    ]
    return [f"{'CONFUSED' if place == 0 else '':<{INDENT}}{line}" for place, line in enumerate(lines)]


def _notes(report: Report) -> list[str]:
    notes = report["notes"]
    lines = [line for note in notes[:MAX_NOTES] for line in paragraph("", f"- {note}", max_lines=2)]
    if len(notes) > MAX_NOTES:
        lines.append(f"{'':<{INDENT}}- {len(notes) - MAX_NOTES} more in report.json")
    return [f"{'NOTES':<{INDENT}}{lines[0][INDENT:]}", *lines[1:]] if lines else []


def _with_interval(scores: Mapping[str, Any], metric: str) -> str:
    interval = (scores.get("ci95") or {}).get(metric)
    bounds = f" ({decimal(interval[0])}–{decimal(interval[1])})" if interval else ""
    return decimal(scores.get(metric)) + bounds
