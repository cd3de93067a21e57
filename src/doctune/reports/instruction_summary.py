"""The report of a tuned language model as a page of plain text that fits a chat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from doctune.reports.plots import shorten
from doctune.reports.summary import (
    INDENT,
    Report,
    account_words,
    assemble,
    machine,
    model,
    paragraph,
    score_lines,
    training,
)

SAMPLES = 2
_LOSSES, _COMPLETIONS = ("perplexity", "loss"), ("f1", "exact_match")


def summarize(report: Report) -> str:
    """The page, made from `report.json` alone."""
    has_completions = "f1" in report[report["part"]]
    answers = score_lines(report, _COMPLETIONS, "completions") if has_completions else []
    return assemble(
        report,
        score_lines(report, _LOSSES, "conversations"),
        answers,
        [*_data(report), *model(report), *training(report), *machine(report)],
        [line for sample in report["samples"][:SAMPLES] for line in _sample(sample)],
    )


def _sample(sample: Mapping[str, Any]) -> list[str]:
    """A prompt with its reference and both answers, a line each."""
    rows = {"prompt": "prompt", "reference": "reference", "before": "before training", "after": "after training"}
    lines = [f"{words:<17}{shorten(' '.join((sample[key] or '-').split()), 70)}" for key, words in rows.items()]
    return [f"{'SAMPLE' if place == 0 else '':<{INDENT}}{line}" for place, line in enumerate(lines)]


def _data(report: Report) -> list[str]:
    tokens = report["account"].get("tokens") or {}
    learnt = f" Tokens to learn: {tokens['train']['learnt']:,}." if tokens else ""
    copies = report["account"].get("duplicate_groups")
    groups = "" if copies is None else f" Groups of copies: {copies:,}."
    return paragraph("DATA", f"{account_words(report['account'])}{learnt}{groups}", max_lines=4)
