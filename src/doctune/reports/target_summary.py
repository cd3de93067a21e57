"""The report of several targets as a page of plain text that fits a chat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from doctune.reports.numbers import counted
from doctune.reports.plots import shorten
from doctune.reports.summary import (
    INDENT,
    Report,
    account_words,
    assemble,
    machine,
    model,
    paragraph,
    score_line,
    training,
)
from doctune.reports.verdict import ALL_METRIC_WORDS, BASELINE_WORDS, PART_WORDS

# So many that the page keeps to its length.
MAX_TARGETS = 3
WORST = 2
_COLUMNS = {"single": ("f1_macro", "accuracy"), "multi": ("f1_macro", "f1_micro")}


def summarize(report: Report) -> str:
    """The page, made from `report.json` alone."""
    shown = list(report["targets"].items())[:MAX_TARGETS]
    left = len(report["targets"]) - len(shown)
    more = [f"{'':<{INDENT}}{left} more targets in report.json"] if left else []
    return assemble(
        report,
        [*_mean(report), *(line for name, target in shown for line in _scores(report, name, target)), *more],
        _worst(report),
        [*_data(report), *model(report), *training(report), *machine(report)],
    )


def _mean(report: Report) -> list[str]:
    """The macro F1 of all targets together."""
    scores = report[report["part"]]
    title = f"mean of {counted(scores['targets'], 'target')}, {scores['texts']:,} texts; 95 %"
    return [
        f"{'MEAN':<{INDENT}}{title:<42}{ALL_METRIC_WORDS['f1_macro']}",
        score_line("this run", scores, ["f1_macro"]),
    ]


def _scores(report: Report, name: str, target: Mapping[str, Any]) -> list[str]:
    """The scores of a target beside those of its baselines."""
    part, columns = report["part"], _COLUMNS[target["kind"]]
    own = target[part]
    if own is None:
        return paragraph("SCORES", f"{name}: no {PART_WORDS[part]} text knows it.")
    title = f"{shorten(name, 14)}: {PART_WORDS[part]}, {own['texts']:,} texts; 95 %"
    head = f"{'SCORES':<{INDENT}}{shorten(title, 41):<42}"
    rows = [("this run", own)]
    rows += [(BASELINE_WORDS.get(each, each), parts.get(part)) for each, parts in target["baselines"].items()]
    if part == "test":
        rows.append(("this run, validation", target["val"]))
    return [
        head + "".join(f"{ALL_METRIC_WORDS[column]:<24}" for column in columns).rstrip(),
        *(score_line(words, scores, columns) for words, scores in rows if scores),
    ]


def _worst(report: Report) -> list[str]:
    """The labels of all targets with the lowest F1 among those that the part has texts of."""
    judged = [
        (row["f1"], name, row) for name, target in report["targets"].items() for row in target["per_label"]
        if row["support"] > 0
    ]  # fmt: skip
    worst = sorted(judged, key=lambda each: (each[0], each[1], each[2]["label"]))[:WORST]
    lines = [f"{'WORST':<{INDENT}}{'label':<42}{'F1':>8}{'precision':>11}{'recall':>8}{'texts':>11}"]
    for _, name, row in worst:
        scores = f"{row['f1']:>8.3f}{row['precision']:>11.3f}{row['recall']:>8.3f}{row['support']:>11,}"
        label = shorten(f"{name}: {row['label']}", 41)
        lines.append(f"{'':<{INDENT}}{label:<42}{scores}")
    return lines


def _data(report: Report) -> list[str]:
    kinds = ", ".join(f"{name} {len(target['labels'])}" for name, target in report["targets"].items())
    return paragraph("DATA", f"{account_words(report['account'])} Labels of the targets: {kinds}.", max_lines=3)
