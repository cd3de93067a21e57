"""The evaluation of a classifier as one HTML page that needs nothing but itself; one script sorts the tables."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from doctune.reports import sections
from doctune.reports.evaluation_slices import SLICES
from doctune.reports.evaluation_summary import (
    SHOWN,
    WORDS,
    calibration_words,
    copies_words,
    judged_words,
    status_words,
)
from doctune.reports.evaluation_thresholds import threshold_words
from doctune.reports.html import SORTING
from doctune.reports.numbers import UNKNOWN, counted, decimal, percent, whole
from doctune.reports.page import bar, document, escaped, isolated, path_code
from doctune.reports.sections import Row, Section
from doctune.reports.verdict import MIN_DOCUMENTS

UNJUDGED_SHOWN = 50
FILE_WORDS = {
    "evaluation_report.json": "this page for programs",
    "evaluation_summary.csv": "every number with its interval",
    "summary.txt": "the main numbers as plain text, for pasting",
    "confusion_matrix.png": "which label was taken for which",
    "roc_curves.png": "ROC curves, one label against the rest",
    "precision_recall_curves.png": "precision and recall, one label against the rest",
    "reliability.png": "score against accuracy, before and after the temperature",
    "coverage.png": "accuracy against the share that is kept",
}
STYLE = (
    sections.STYLE
    + """
tr td.few { color: var(--soft); } .lead { font-size: 1.05rem; } .scroll + figure, p + .scroll { margin-top: .6rem; }
.excerpt { margin: .3rem 0 0; padding: .1rem .7rem; border: 0; border-left: 3px solid var(--line); border-radius: 0;
  background: none; color: var(--soft); font-size: .85rem; overflow-wrap: anywhere; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: .8rem; }
"""
)

Report = Mapping[str, Any]


def page(report: Report, folder: Path) -> str:
    """The whole page.

    Args:
        report: what `build_evaluation` gives.
        folder: holds the pictures, which go into the page.
    """
    blocks: list[Section] = [
        ("scores", "Scores", _scores(report)),
        ("notes", "Notes", notes(report)),
        ("calibration", "Can the probabilities be trusted?", _calibration(report, folder)),
        ("thresholds", "Accepting only sure labels", thresholds(report, folder, "document", "doctune predict")),
        ("slices", "Scores by slice", _slices(report)),
        ("copies", "Near-copies in training", _copies(report)),
        ("mistakes", "Most confident mistakes", _mistakes(report)),
        ("confusions", "Confusions", _confusions(report, folder)),
        ("classes", "Scores per class", _classes(report)),
        ("curves", "ROC and precision-recall curves", _curves(folder)),
        ("unjudged", "Not judged", unjudged(report, "file")),
        ("files", "Files", _files(report)),
    ]
    return whole_page(report, _opening(report), blocks)


def whole_page(report: Report, opening: Iterable[str], blocks: Sequence[Section]) -> str:
    """A head with the run and what was judged, links to the sections, the sections."""
    title = f"Evaluation of {report['run']}: {report['name']}"
    heading = f"<h1>Evaluation of {isolated(report['run'])}: {isolated(report['name'])}</h1>"
    facts = f'<p class="soft">{" · ".join(part for part in opening if part)}</p>'
    links = "".join(f'<a href="#{name}">{words}</a>' for name, words, _ in blocks)
    body = [f'<section id="{name}"><h2>{words}</h2>\n{content}</section>' for name, words, content in blocks]
    text = "\n".join([f"<header>{heading}{facts}</header><nav>{links}</nav>", *body])
    return document(title, text, style=STYLE, script=SORTING)


def notes(report: Report) -> str:
    """What a reader must know, as a card."""
    if not report["notes"]:
        return "<p>Nothing to warn of.</p>"
    items = sections.listed(escaped(note) for note in report["notes"])
    return f'<article class="warning notes">{items}</article>'


def picture(folder: Path, name: str, words: str) -> str:
    """A PNG of the folder, inside the page."""
    data = base64.b64encode((folder / name).read_bytes()).decode("ascii")
    return f'<figure><img src="data:image/png;base64,{data}" alt="{escaped(words)}"></figure>'


def _opening(report: Report) -> list[str]:
    left = report["unjudged"]["count"]
    return [
        escaped(report["source"]),
        counted(report["documents"], "document"),
        counted(len(report["labels"]), "class", "classes"),
        f"{counted(left, 'file')} not judged" if left else "",
    ]


def _scores(report: Report) -> str:
    scores = report["scores"]
    names = [*SHOWN[:3], *("precision_macro", "recall_macro"), *SHOWN[3:]]
    rows = [_score_row(WORDS[name], scores, name) for name in names if scores.get(name) is not None]
    rows += [
        _score_row(f"top-{k} accuracy", {f"top_{k}_accuracy": share, "ci95": scores["ci95"]}, f"top_{k}_accuracy")
        for k, share in scores["top_k_accuracy"].items()
    ]
    heads = [("", "name"), ("score", ""), ("95 % interval", ""), ("", "wide")]
    return (
        f'<p class="lead">{escaped(judged_words(report))}</p>{sections.table(heads, rows)}'
        '<p class="soft">Intervals are percentile bootstraps over documents. Log loss is in nats, lower is better, and '
        "has no bar. Areas and precisions are one label against the rest, their plain mean over the labels that "
        "occur.</p>"
    )


def _score_row(words: str, scores: Mapping[str, Any], name: str) -> Row:
    drawn = "" if name == "log_loss" else bar(scores[name])
    return [
        f'<td class="name">{words}</td>',
        f"<td>{decimal(scores[name])}</td>",
        f"<td>{_range(scores, name)}</td>",
        f'<td class="wide">{drawn}</td>',
    ]


def _range(scores: Mapping[str, Any], name: str) -> str:
    bounds = scores["ci95"].get(name)
    return f"{decimal(bounds[0])}–{decimal(bounds[1])}" if bounds else UNKNOWN


def _calibration(report: Report, folder: Path) -> str:
    measured = report["calibration"]
    words = {
        "ece": "expected calibration error",
        "ece_adaptive": "the same, bins of equal count",
        "log_loss": "log loss",
    }
    rows = [
        [
            f'<td class="name">{text}</td>',
            *(
                f"<td>{decimal(measured[moment][name])} {_beside(measured[moment], name)}</td>"
                for moment in ("before", "after")
            ),
        ]
        for name, text in words.items()
    ]
    before = measured["before"]
    heads = [("", "name"), ("before (95 %)", ""), ("after the temperature (95 %)", "")]
    return (
        f"<p>{escaped(calibration_words(report))} The mean score is {percent(before['mean_score'])} before, and "
        f"{percent(before['accuracy'])} are right.</p>{sections.table(heads, rows)}"
        f"{picture(folder, 'reliability.png', 'Reliability before and after the temperature')}"
        '<p class="soft">A temperature (Guo et al. 2017) changes no label. It is fitted on validation data only. The '
        "error is the mean distance of score and accuracy in 15 bins; with few documents it is above 0 even for a "
        "perfect model.</p>"
    )


def _beside(scores: Mapping[str, Any], name: str) -> str:
    return f'<span class="fixed">({_range(scores, name)})</span>' if name in scores["ci95"] else ""


def thresholds(report: Report, folder: Path, noun: str, command: str) -> str:
    """What a threshold on the score of `command` buys; `noun` is what is judged."""
    heads = [
        ("precision wanted", "name"),
        ("threshold", ""),
        ("validation: right", ""),
        ("kept", ""),
        ("judged: right (95 %)", ""),
        ("kept", ""),
    ]
    rows = [_threshold_row(row) for row in report["thresholds"]]
    words = threshold_words(report["thresholds"], report["precision"], noun)
    return (
        f"<p>{escaped(words)}</p>{sections.table(heads, rows)}"
        f"{picture(folder, 'coverage.png', f'Accuracy against the share of {noun}s kept')}"
        f'<p class="soft">A threshold is chosen on validation {noun}s and judged on the others. It is compared with '
        f"the score that <code>{command}</code> gives.</p>"
    )


def _threshold_row(row: Mapping[str, Any]) -> Row:
    name = f'<td class="name">{100 * row["precision"]:g} %</td>'
    if row["threshold"] is None:
        return [name, *[f"<td>{UNKNOWN}</td>"] * 5]
    chosen, judged = row["validation"], row["judged"]
    bounds = judged["ci95"]
    interval = f' <span class="fixed">({percent(bounds[0])}–{percent(bounds[1])})</span>' if bounds else ""
    return [
        name,
        f"<td>{row['threshold']:.4f}</td>",
        f"<td>{percent(chosen['accuracy'])}</td>",
        f"<td>{percent(chosen['coverage'])}</td>",
        f"<td>{percent(judged['accuracy'])}{interval}</td>",
        f"<td>{percent(judged['coverage'])}</td>",
    ]


def _slices(report: Report) -> str:
    tables = [f"<h3>By {SLICES[name]}</h3>{_group_table(groups)}" for name, groups in report["slices"].items()]
    return (
        f'{"".join(tables)}<p class="soft">The bar is accuracy. Of groups in grey, with fewer than {MIN_DOCUMENTS} '
        "documents, the scores say little. Macro F1 is over the labels of the group, so groups with other labels "
        "are not comparable in it.</p>"
    )


def _group_table(groups: Sequence[Mapping[str, Any]]) -> str:
    heads = [("", "name"), ("", "wide"), ("documents", ""), ("accuracy (95 %)", ""), ("macro F1 (95 %)", "")]
    return sections.table(heads, [_group_row(group) for group in groups])


def _group_row(group: Mapping[str, Any]) -> Row:
    scores = [f"{decimal(group[name])} {_beside(group, name)}" for name in ("accuracy", "f1_macro")]
    cells = [whole(group["documents"]), *scores]
    return sections.group_row(isolated(group["group"]), group["accuracy"], cells, is_small=group["is_small"])


def _copies(report: Report) -> str:
    found = report["training_copies"]
    words = f"<p>{escaped(copies_words(report))}</p>"
    if found is None or not found["documents"]:
        return words
    return words + _group_table([group for group in (found["with"], found["without"]) if group])


def _mistakes(report: Report) -> str:
    worst = report["worst_mistakes"]
    if not worst:
        return "<p>No document was given a wrong label.</p>"
    items = [
        f"<li><strong>{percent(mistake['probability'])}</strong>{isolated(mistake['predicted'])} "
        f'<span class="soft">instead of</span> {isolated(mistake["truth"])} '
        f'<span class="soft fixed">({percent(mistake["truth_probability"])})</span>'
        f"{path_code(mistake['path'])}{_excerpt(mistake['excerpt'])}</li>"
        for mistake in worst
    ]
    return (
        '<p class="soft">The wrong labels that the model was surest of, each with its probability and that of the true '
        f'one, and how its text begins.</p><ol class="mistakes">{"".join(items)}</ol>'
    )


def _excerpt(text: str) -> str:
    on_one_line = " ".join(text.split())
    return f'<blockquote class="excerpt">{isolated(on_one_line)}</blockquote>' if on_one_line else ""


def _confusions(report: Report, folder: Path) -> str:
    pairs, no_pair = report["confused_pairs"], "<p>No document was given a wrong label.</p>"
    table = sections.pair_table(pairs, "true class", "taken for") if pairs else no_pair
    return f"{table}{picture(folder, 'confusion_matrix.png', 'Confusion matrix')}"


def _classes(report: Report) -> str:
    """Every class, the lowest F1 first; at the end those that have no document."""
    names = ("f1", "precision", "recall", "roc_auc", "average_precision", "support", "predicted")
    words = ("F1", "precision", "recall", "ROC-AUC", "average precision", "documents", "predicted")
    heads = [("class", "name"), *((word, "") for word in words)]
    ordered = sorted(report["per_class"], key=lambda row: (row["support"] == 0, row["f1"], row["label"]))
    rows = [
        [f'<td class="name">{isolated(row["label"])}</td>', *(_class_cell(row, name) for name in names)]
        for row in ordered
    ]
    return sections.table(heads, rows, is_sortable=True)


def _class_cell(row: Mapping[str, Any], name: str) -> str:
    """A number of a class; what cannot be known without a document of the class is a dash and sorts last."""
    is_count = name in ("support", "predicted")
    value = row[name] if is_count or row["support"] else None
    shown = whole(value) if is_count else decimal(value)
    return sections.sortable_cell(value, shown)


def _curves(folder: Path) -> str:
    return (
        f'<div class="pair">{picture(folder, "roc_curves.png", "ROC curves")}'
        f"{picture(folder, 'precision_recall_curves.png', 'Precision-recall curves')}</div>"
        '<p class="soft">The labels with the smallest areas are named, with their area.</p>'
    )


def unjudged(report: Report, noun: str) -> str:
    """What has no prediction, and why; `noun` is what it is."""
    left = report["unjudged"]
    if not left["count"]:
        return f"<p>Every {noun} was judged.</p>"
    heads = [(noun, "name"), ("label" if noun == "file" else "article", "name"), ("reason", "name")]
    rows = [
        [
            f'<td class="name">{path_code(each["path"])}</td>',
            f'<td class="name">{isolated(each["label"])}</td>',
            f'<td class="name">{escaped(each["status"].replace("_", " "))}: {escaped(each["reason"])}</td>',
        ]
        for each in left["files"][:UNJUDGED_SHOWN]
    ]
    more = left["count"] - len(rows)
    rest = f'<p class="soft">{more:,} more are in evaluation_report.json.</p>' if more else ""
    return f"<p>{escaped(status_words(left['by_status']))}.</p>{sections.table(heads, rows)}{rest}"


def _files(report: Report) -> str:
    return files_list(report["files"], FILE_WORDS)


def files_list(names: Iterable[str], words: Mapping[str, str]) -> str:
    """Links to the files beside the page."""
    links = [f'<a href="{quote(name)}">{escaped(name)}</a>: {words[name]}' for name in names if name in words]
    return sections.listed(links, "files")
