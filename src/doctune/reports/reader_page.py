"""The report of a question-answering reader as one HTML page that needs nothing but itself, not even a script."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from doctune.reports import sections
from doctune.reports.numbers import counted, decimal, percent, whole
from doctune.reports.page import bar, escaped, isolated
from doctune.reports.plots import Curves
from doctune.reports.reader_records import ReaderRecords
from doctune.reports.reader_summary import GROUPINGS, compared_metrics, half_scores
from doctune.reports.sections import Report
from doctune.reports.verdict import MIN_DOCUMENTS, PART_WORDS

NOUN = "question"
REPORT_FILES = {
    "summary.txt": "this report as plain text, for pasting",
    "methods.txt": "the paragraph for a publication",
    "report.json": "this report for programs",
    "errors.csv": "every question that was not answered exactly",
    "loss_curves.png": "the picture of the losses",
    "metric_curve.png": "the picture of the validation scores",
}
KIND_WORDS = {
    "exact": "right, word by word",
    "answered the unanswerable": "there is no answer, and one was given",
    "no answer given": "there is an answer, and none was given",
    "boundary": "overlaps the reference: too short, too long or shifted",
    "same sentence": "another place in the sentence of the reference",
    "wrong type": "elsewhere, and of another type: date, number, name, other",
    "wrong sentence": "elsewhere, of the right type",
    "no overlap": "shares no word; its place is not known",
}
STYLE = (
    sections.STYLE
    + """
td.about { text-align: left; white-space: normal; color: var(--soft); } th.about { text-align: left; }
tr td.few { color: var(--soft); }
.pairs { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 0 1rem; }
.pairs th, .pairs td { padding: .35rem .5rem; } .pairs th { white-space: normal; vertical-align: bottom; }
.pairs td.name { min-width: 0; white-space: nowrap; } .pairs td.wide { width: 25%; }
.asked { font-weight: 600; } .answers { grid-template-columns: max-content 1fr; gap: .1rem .7rem; margin: .2rem 0; }
.answers dd { margin: 0; } .mistakes blockquote { border: 0; border-left: 3px solid var(--line); border-radius: 0;
  padding: .1rem .7rem; margin: .3rem 0; color: var(--soft); white-space: pre-line; background: none; }
mark { background: none; color: var(--success); font-weight: 600; text-decoration: underline; }
mark.predicted { color: var(--error); text-decoration: underline wavy from-font; }
.mistakes details ol { margin: .2rem 0; padding-left: 1.6rem; } .mistakes details ol li { all: revert; font: inherit; }
@media (max-width: 40rem) { .about { display: none; } .answers { grid-template-columns: max-content 1fr; gap: 0 .6rem; }
  .answers dd { margin: 0; } }
"""
)


def page(report: Report, records: ReaderRecords, pictures: Curves, methods: str) -> str:
    """The whole page.

    Args:
        report: what `build_report` gives.
        records: the run that it was made from.
        pictures: drawn already.
        methods: the paragraph of `describe_methods`.
    """
    blocks = [
        ("verdict", "Verdict", _verdict(report)),
        ("notes", "Notes", sections.notes(report)),
        ("curves", "Curves", sections.curves(pictures)),
        ("gap", "Gap", sections.gap(report, records.history, NOUN)),
        ("errors", "Kinds of error", _kinds(report)),
        ("groups", "Scores by group", _groups(report)),
        ("examples", "Examples of errors", _examples(report)),
        ("mistakes", "Worst mistakes", _mistakes(report)),
        ("data", "Data account", _data(report)),
        ("lengths", "Lengths", _lengths(report)),
        ("inference", "Inference", _inference(report)),
        ("throughput", "Throughput", sections.throughput(report, records.history)),
        ("configuration", "Configuration", sections.configuration(records)),
        ("environment", "Environment", sections.environment(report)),
        ("files", "Files of the run", sections.files(report, records, REPORT_FILES, NOUN)),
        ("methods", "For a publication", f"<blockquote>{escaped(methods)}</blockquote>"),
    ]
    return sections.whole_page(report, _opening(report), blocks, STYLE)


def _opening(report: Report) -> list[str]:
    model = report["model"]
    return [
        isolated(model["name"]) if model.get("name") else "",
        f"SQuAD {escaped(report['version'])}",
        counted(report[report["part"]]["questions"], f"{PART_WORDS[report['part']]} question"),
        sections.finished_words(report),
    ]


# --- what came of it ---------------------------------------------------------------------------------------------


def _verdict(report: Report) -> str:
    metrics = compared_metrics(report)
    halves = [(f"{words}: {scores['questions']:,}", scores) for words, scores in half_scores(report)]
    split = f"<h3>With and without an answer</h3>{sections.score_table(halves, metrics)}" if halves else ""
    return f"{sections.verdict(report, metrics, NOUN)}{split}{_threshold(report)}"


def _threshold(report: Report) -> str:
    threshold = report["no_answer_threshold"]
    if threshold is None:
        return ""
    return (
        f'<p class="soft">A question was left unanswered where having no answer scored more than {decimal(threshold)} '
        "above the best span. The threshold was chosen on validation questions.</p>"
    )


def _kinds(report: Report) -> str:
    """How many answers were right, and how many wrong in which way."""
    questions = report[report["part"]]["questions"]
    heads = [("answer", "name"), ("", "about"), ("questions", ""), ("share", ""), ("", "wide"), ("F1", "")]
    rows = [
        [
            f'<td class="name">{escaped(kind["group"])}</td>',
            f'<td class="about">{KIND_WORDS.get(kind["group"], "")}</td>',
            f"<td>{whole(kind['count'])}</td>",
            f'<td class="fixed">{percent(kind["count"] / questions)}</td>',
            f'<td class="wide">{bar(kind["count"] / questions)}</td>',
            f"<td>{decimal(kind['f1'])}</td>",
        ]
        for kind in report["errors"]["by_kind"]
    ]
    return sections.table(heads, rows)


def _groups(report: Report) -> str:
    tables = [
        f"<div><h3>By {words}</h3>{_group_table(report['errors'][name])}</div>" for name, words in GROUPINGS.items()
    ]
    return (
        f'<div class="pairs">{"".join(tables)}</div>'
        f'<p class="soft">The bar is F1 from 0 to 1. Of groups in grey, with fewer than {MIN_DOCUMENTS} questions, the '
        "scores say little.</p>"
    )


def _group_table(groups: Sequence[Mapping[str, Any]]) -> str:
    heads = [("", "name"), ("", "wide"), ("F1", ""), ("exact match", ""), ("questions", "")]
    return sections.table(heads, [_group_row(group) for group in groups])


def _group_row(group: Mapping[str, Any]) -> sections.Row:
    cells = [decimal(group["f1"]), decimal(group["exact_match"]), whole(group["count"])]
    return sections.group_row(escaped(group["group"]), group["f1"], cells, is_small=group["count"] < MIN_DOCUMENTS)


# --- which answers were wrong ------------------------------------------------------------------------------------


def _examples(report: Report) -> str:
    """Up to 3 questions of every kind of error."""
    kinds = [kind for kind in report["errors"]["by_kind"] if kind["group"] != "exact"]
    if not kinds:
        return "<p>Every answer was exact.</p>"
    blocks = [
        f'<h3>{escaped(kind["group"])}</h3><ol class="mistakes">'
        f"{''.join(f'<li>{_example(example)}</li>' for example in kind['examples'])}</ol>"
        for kind in kinds
    ]
    return f"{_KEY}{''.join(blocks)}"


_KEY = (
    '<p class="soft">In the sentence around the reference <mark>the reference</mark> is underlined, and '
    '<mark class="predicted">the prediction</mark> where it stands in the same sentence.</p>'
)


def _example(example: Mapping[str, Any], probability: float | None = None) -> str:
    sureness = "" if probability is None else f' <span class="soft fixed">({percent(probability)})</span>'
    references = ' <span class="soft">or</span> '.join(isolated(text) for text in example["references"])
    answers = [
        ("reference", references or '<span class="soft">no answer</span>'),
        ("prediction", _answer(example["prediction"]) + sureness),
    ]
    pairs = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in answers)
    article = f'<span class="soft">{isolated(example["article"].replace("_", " "))}</span>'
    sentence = f"<blockquote><bdi>{_marked(example)}</bdi></blockquote>" if example["sentence"] else ""
    asked = f'<span class="asked">{isolated(example["question"])}</span> {article}'
    return f'{asked}<dl class="answers">{pairs}</dl>{sentence}'


def _answer(text: str) -> str:
    return isolated(text) if text.strip() else '<span class="soft">no answer</span>'


def _marked(example: Mapping[str, Any]) -> str:
    """The sentence with reference and prediction marked; where they overlap a stretch belongs to both."""
    text, places = example["sentence"], {"reference": example["reference_at"], "predicted": example["prediction_at"]}
    known = {kind: place for kind, place in places.items() if place is not None}
    cuts = sorted({0, len(text), *(cut for place in known.values() for cut in place)})
    return "".join(_stretch(text[low:high], _kinds_at(known, low, high)) for low, high in itertools.pairwise(cuts))


def _kinds_at(places: Mapping[str, Sequence[int]], low: int, high: int) -> list[str]:
    return [kind for kind, (start, end) in places.items() if start <= low and high <= end]


def _stretch(text: str, kinds: Sequence[str]) -> str:
    marked = escaped(text)
    for kind in kinds:
        marked = f'<mark class="predicted">{marked}</mark>' if kind == "predicted" else f"<mark>{marked}</mark>"
    return marked


def _mistakes(report: Report) -> str:
    worst = report["worst_mistakes"]
    if not worst:
        return "<p>None.</p>"
    items = [f"<li>{_example(mistake, mistake['probability'])}{_n_best(mistake)}</li>" for mistake in worst]
    return (
        '<p class="soft">The answers without one right word that the model was surest of, each with its probability.'
        f'</p><ol class="mistakes">{"".join(items)}</ol>'
    )


def _n_best(mistake: Mapping[str, Any]) -> str:
    """The answers that it was chosen from, openable."""
    if not mistake["n_best"]:
        return ""
    answers = "".join(
        f'<li>{_answer(best["text"])} <span class="soft fixed">({percent(best["probability"])})</span></li>'
        for best in mistake["n_best"]
    )
    summary = f"The {counted(len(mistake['n_best']), 'best span')}"
    return f"<details><summary>{summary}</summary><ol>{answers}</ol></details>"


# --- which questions ---------------------------------------------------------------------------------------------


def _data(report: Report) -> str:
    account = report["account"]
    parts, reasons = account.get("parts") or {}, account.get("left_out_reasons") or {}
    if not parts:
        return "<p>Not recorded.</p>"
    rows = max(account.get("rows") or sum(parts.values()), 1)
    facts = [("rows of the source", whole(account.get("rows")))]
    if account.get("misaligned") is not None:
        facts.append(("answers not where the file says", whole(account["misaligned"])))
    why = sections.count_table("left out because", reasons, rows, NOUN) if reasons else "<p>No row was left out.</p>"
    return f"{sections.fact_list(facts)}{_part_table(report, parts)}<h3>Left out</h3>{why}"


def _part_table(report: Report, parts: Mapping[str, int]) -> str:
    account = report["account"] | {"windows": report["windows"]}
    columns = {
        "impossible": "without an answer",
        "articles": "articles",
        "contexts": "contexts",
        "windows": "windows",
    }
    known = {name: words for name, words in columns.items() if any((account.get(name) or {}).values())}
    heads = [("part", "name"), ("questions", ""), *((words, "") for words in known.values())]
    rows = [
        [
            f'<td class="name">{escaped(part.replace("_", " "))}</td>',
            f"<td>{whole(count)}</td>",
            *(f"<td>{whole(account[name].get(part))}</td>" for name in known),
        ]
        for part, count in parts.items()
    ]
    return sections.table(heads, rows)


def _lengths(report: Report) -> str:
    lengths = report["length_analysis"]
    if not lengths:
        return "<p>Not measured.</p>"
    names = {"p50": "median", "p95": "95 % have at most", "max": "longest"}
    heads = [("tokens of the", "name"), *((words, "") for words in names.values())]
    rows = [
        [f'<td class="name">{what}</td>', *(f"<td>{whole(lengths[what].get(name))}</td>" for name in names)]
        for what in ("question", "context")
        if lengths.get(what)
    ]
    windows = lengths.get("windows_per_question") or {}
    total = max(sum(windows.values()), 1)
    counts = sections.count_table("windows of the context", windows, total, NOUN) if windows else ""
    cut = lengths.get("cut_questions")
    note = f'<p class="soft">{counted(cut, "question")} longer than a window allows, cut off there.</p>' if cut else ""
    return f"{sections.table(heads, rows)}{note}{'<h3>Windows per question</h3>' if counts else ''}{counts}"


def _inference(report: Report) -> str:
    inference = report["inference"]
    if not inference:
        return "<p>Not measured.</p>"
    latency = inference.get("latency_ms") or {}
    shown = " · ".join(
        f"{words} {_milliseconds(latency.get(name))}"
        for name, words in (("p50", "median"), ("p90", "90 % within"), ("p99", "99 % within"))
    )
    facts = [
        ("questions per second", whole(inference.get("questions_per_s"))),
        ("time per question", shown),
        ("memory", f"{whole(inference.get('memory_mb'))} MB"),
    ]
    return sections.fact_list(facts)


def _milliseconds(value: float | None) -> str:
    return f"{whole(value)} ms" if value is None or value >= 10 else f"{value:.1f} ms"
