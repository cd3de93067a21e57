"""The evaluation of a reader as one HTML page that needs nothing but itself, and as a page of plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from doctune.reports import sections
from doctune.reports.evaluation_page import files_list, notes, thresholds, unjudged, whole_page
from doctune.reports.evaluation_summary import note_lines, status_words
from doctune.reports.evaluation_thresholds import threshold_words
from doctune.reports.numbers import counted, decimal, percent, whole
from doctune.reports.page import bar, escaped, isolated
from doctune.reports.plots import shorten
from doctune.reports.reader_page import KIND_WORDS
from doctune.reports.reader_summary import GROUPINGS, HALVES
from doctune.reports.sections import Row, Section
from doctune.reports.summary import INDENT, WIDTH, paragraph
from doctune.reports.verdict import ANSWER_METRIC_WORDS, MIN_DOCUMENTS

FILE_WORDS = {
    "evaluation_report.json": "this page for programs",
    "evaluation_summary.csv": "the scores with their intervals",
    "summary.txt": "the main numbers as plain text, for pasting",
    "errors.csv": "every question that was not answered exactly",
    "coverage.png": "exact match against the share that is answered",
}
METRICS = ("f1", "exact_match")

Report = Mapping[str, Any]


def page(report: Report, folder: Path) -> str:
    """The whole page.

    Args:
        report: what `build_evaluation` gives.
        folder: holds the picture, which goes into the page.
    """
    blocks: list[Section] = [
        ("scores", "Scores", _scores(report)),
        ("notes", "Notes", notes(report)),
        ("thresholds", "Accepting only sure answers", thresholds(report, folder, "question", "doctune ask")),
        ("errors", "Kinds of error", _kinds(report)),
        ("groups", "Scores by slice", _groups(report)),
        ("mistakes", "Most confident mistakes", _mistakes(report)),
        ("unjudged", "Not judged", unjudged(report, "question")),
        ("files", "Files", files_list(report["files"], FILE_WORDS)),
    ]
    opening = [escaped(report["source"]), f"SQuAD {report['version']}", counted(report["questions"], "question")]
    return whole_page(report, opening, blocks)


def summarize(report: Report) -> str:
    """The page of plain text: scores, the threshold, the kinds of error."""
    blocks = [
        [f"doctune evaluation: {shorten(report['run'], WIDTH - 20)}"],
        paragraph("JUDGED", judged_words(report)),
        _score_lines(report),
        paragraph("THRESHOLD", threshold_words(report["thresholds"], report["precision"], "question")),
        paragraph("KINDS", _kind_words(report)),
        note_lines(report),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def judged_words(report: Report) -> str:
    """What was asked, by what, and what could not be."""
    questions, left = report["questions"], report["unjudged"]
    words = f"{counted(questions, 'question')} of {report['source']}, by the exported model ({report['backend']})."
    if report["agreement"] is not None:
        words += f" {report['agreement']:,} of {questions:,} answers are those that the run stored."
    return f"{words} Not judged: {status_words(left['by_status'])}." if left["count"] else words


def _parts(report: Report) -> list[tuple[str, Mapping[str, Any]]]:
    """All questions, and in version 2.0 those with and without an answer."""
    scores = report["scores"]
    return [("all questions", scores), *((words, scores[half]) for half, words in HALVES.items() if half in scores)]


def _score_lines(report: Report) -> list[str]:
    lines = [
        f"{words:<28}{ANSWER_METRIC_WORDS[metric]:<13}{decimal(scores[metric]):>6}  (95 % interval "
        f"{decimal(scores['ci95'][metric][0])} to {decimal(scores['ci95'][metric][1])})"
        for words, scores in _parts(report)
        for metric in METRICS
    ]
    return [f"{'SCORES' if place == 0 else '':<{INDENT}}{line}" for place, line in enumerate(lines)]


def _kind_words(report: Report) -> str:
    kinds = report["errors"]["by_kind"]
    return ", ".join(f"{k['group']} {k['count']:,} ({percent(k['count'] / report['questions'])})" for k in kinds) + "."


def _scores(report: Report) -> str:
    table = sections.score_table(_parts(report), METRICS)
    return f'<p class="lead">{escaped(judged_words(report))}</p>{table}'


def _kinds(report: Report) -> str:
    heads = [("answer", "name"), ("", "name"), ("questions", ""), ("share", ""), ("", "wide")]
    rows = [
        [
            f'<td class="name">{escaped(kind["group"])}</td>',
            f'<td class="name">{KIND_WORDS.get(kind["group"], "")}</td>',
            f"<td>{whole(kind['count'])}</td>",
            f"<td>{percent(kind['count'] / report['questions'])}</td>",
            f'<td class="wide">{bar(kind["count"] / report["questions"])}</td>',
        ]
        for kind in report["errors"]["by_kind"]
    ]
    return sections.table(heads, rows)


def _groups(report: Report) -> str:
    tables = [f"<h3>By {words}</h3>{_group_table(report['errors'][name])}" for name, words in GROUPINGS.items()]
    return (
        f'{"".join(tables)}<p class="soft">The bar is F1 from 0 to 1. Of groups in grey, with fewer than '
        f"{MIN_DOCUMENTS} questions, the scores say little.</p>"
    )


def _group_table(groups: Sequence[Mapping[str, Any]]) -> str:
    heads = [("", "name"), ("", "wide"), ("questions", ""), ("F1", ""), ("exact match", "")]
    return sections.table(heads, [_group_row(group) for group in groups])


def _group_row(group: Mapping[str, Any]) -> Row:
    cells = [whole(group["count"]), decimal(group["f1"]), decimal(group["exact_match"])]
    return sections.group_row(escaped(group["group"]), group["f1"], cells, is_small=group["is_small"])


def _mistakes(report: Report) -> str:
    worst = report["worst_mistakes"]
    if not worst:
        return "<p>Every answer shares a word with its reference.</p>"
    return (
        '<p class="soft">The answers without one right word that the model was surest of, and the sentence around '
        f'each.</p><ol class="mistakes">{"".join(_mistake(mistake) for mistake in worst)}</ol>'
    )


def _mistake(mistake: Mapping[str, Any]) -> str:
    given = isolated(mistake["prediction"]) if mistake["prediction"] else '<span class="soft">no answer</span>'
    wanted = " or ".join(map(isolated, mistake["references"])) or '<span class="soft">no answer</span>'
    sentence = (
        f'<blockquote class="excerpt">{isolated(mistake["sentence"])}</blockquote>' if mistake["sentence"] else ""
    )
    return (
        f"<li><strong>{percent(mistake['probability'])}</strong>{given} "
        f'<span class="soft">instead of</span> {wanted}<br>{isolated(mistake["question"])} '
        f'<span class="soft">{isolated(mistake["article"].replace("_", " "))}</span>{sentence}</li>'
    )
