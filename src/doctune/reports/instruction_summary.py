"""The report of a tuned language model as a page of plain text that fits a chat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from doctune.reports.numbers import UNKNOWN
from doctune.reports.plots import shorten
from doctune.reports.summary import (
    INDENT,
    Report,
    account_words,
    assemble,
    compared_scores,
    machine,
    model,
    paragraph,
    score_line,
    score_lines,
    training,
)
from doctune.reports.verdict import ALL_METRIC_WORDS, PART_WORDS

SAMPLES = 2
_COMPLETIONS = ("f1", "exact_match")
_LARGE = 1e6  # perplexities from here on are written with an exponent


def summarize(report: Report) -> str:
    """The page, made from `report.json` alone."""
    return assemble(
        report,
        _losses(report),
        _completions(report),
        [*_data(report), *model(report), *training(report), *machine(report)],
        [line for sample in report["samples"][:SAMPLES] for line in _sample(sample)],
    )


def _losses(report: Report) -> list[str]:
    """The loss per token with its interval beside the perplexity, whose interval would not fit the page."""
    width = INDENT + 42 + 24
    head, *lines = score_lines(report, ("loss",), "conversations")
    rows = [scores for _, scores in compared_scores(report)]
    beside = [
        f"{line:<{width}}{perplexity_words(scores['perplexity'])}" for line, scores in zip(lines, rows, strict=True)
    ]
    return [f"{head:<{width}}perplexity", *beside]


def perplexity_words(perplexity: float | None) -> str:
    """A perplexity as it is read, a dash where it is not known."""
    if perplexity is None:
        return UNKNOWN
    return f"{perplexity:,.2f}" if perplexity < _LARGE else f"{perplexity:.1e}"


def _completions(report: Report) -> list[str]:
    """The scores of completions before and after training; none where nothing was generated."""
    part = report["part"]
    if "f1" not in report[part]:
        return []
    title = f"{PART_WORDS[part]}, {report[part]['completions']:,} completions; 95 % intervals"
    head = f"{'WRITTEN':<{INDENT}}{shorten(title, 42):<42}"
    rows = [(words, scores) for words, scores in compared_scores(report) if "f1" in scores]
    return [
        head + "".join(f"{ALL_METRIC_WORDS[column]:<24}" for column in _COMPLETIONS).rstrip(),
        *(score_line(words, scores, _COMPLETIONS) for words, scores in rows),
    ]


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
