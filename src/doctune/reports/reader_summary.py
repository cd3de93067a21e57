"""The report of a reader as a page of plain text that fits a chat: at most 60 lines of at most 100 columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from doctune.reports.numbers import percent
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
    score_lines,
    training,
)
from doctune.reports.verdict import MIN_DOCUMENTS
from doctune.scoring.answer_errors import NO_ANSWER

WEAKEST = 4
GROUPINGS = {
    "by_question_word": "question word",
    "by_answer_length": "words of the answer",
    "by_position": "place of the answer in its context",
    "by_num_windows": "windows of the context",
}
HALVES = {"has_answer": "questions with an answer", "no_answer": "questions without one"}


def summarize(report: Report) -> str:
    """The page of a reader, made from `report.json` alone; values that a run does not have are shown as a dash."""
    metrics = compared_metrics(report)
    halves = [score_line(f"{words}: {scores['questions']:,}", scores, metrics) for words, scores in half_scores(report)]
    return assemble(
        report,
        [*score_lines(report, metrics, "questions"), *halves],
        [*_data(report), *model(report), *training(report), *machine(report)],
        _weakest(report),
        _kinds(report),
    )


def compared_metrics(report: Report) -> list[str]:
    """Both scores of answers, the judged one first."""
    metric = report["comparison"]["metric"]
    return [metric, "exact_match" if metric == "f1" else "f1"]


def half_scores(report: Report) -> list[tuple[str, dict[str, Any]]]:
    """The scores of the questions with and without an answer, in words; none for version 1.1."""
    scores = report[report["part"]]
    return [(words, scores[half]) for half, words in HALVES.items() if half in scores]


def _data(report: Report) -> list[str]:
    account = report["account"]
    articles = account.get("articles") or {}
    about = ", ".join(f"{count:,} {part}" for part, count in articles.items())
    without = sum((account.get("impossible") or {}).values())
    impossible = f" Questions without an answer: {without:,}." if without else ""
    words = f" Articles: {about}." if about else ""
    return paragraph("DATA", f"SQuAD {report['version']}. {account_words(account)}{words}{impossible}", max_lines=4)


def _weakest(report: Report) -> list[str]:
    """The groups with the lowest F1 among those that are large enough to be judged and not all of the questions.

    Questions without an answer, which stand among the scores, are not repeated.
    """
    rows = [
        (words, group)
        for name, words in GROUPINGS.items()
        for group in report["errors"][name]
        if MIN_DOCUMENTS <= group["count"] < report[report["part"]]["questions"] and group["group"] != NO_ANSWER
    ]
    worst = sorted(rows, key=lambda row: row[1]["f1"])[:WEAKEST]
    if not worst:
        return []
    head = f"{'WEAKEST':<{INDENT}}{'group':<50}{'F1':>8}{'exact match':>13}{'questions':>11}"
    return [head, *(_group_line(words, group) for words, group in worst)]


def _group_line(words: str, group: dict[str, Any]) -> str:
    scores = f"{group['f1']:>8.3f}{group['exact_match']:>13.3f}{group['count']:>11,}"
    name = shorten(f"{words}: {group['group']}", 49)
    return f"{'':<{INDENT}}{name:<50}{scores}"


def _kinds(report: Report) -> list[str]:
    """How many answers were exact, and how many wrong in which way."""
    questions = report[report["part"]]["questions"]
    return paragraph("KINDS", _kind_words(report["errors"]["by_kind"], questions), max_lines=3)


def _kind_words(kinds: Sequence[dict[str, Any]], questions: int) -> str:
    return (
        ", ".join(f"{kind['group']} {kind['count']:,} ({percent(kind['count'] / questions)})" for kind in kinds) + "."
    )
