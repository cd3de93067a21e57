"""The report of a classifier as one HTML page that needs nothing but itself: no network, no JavaScript, no file beside.

The one script sorts the table of classes; without it the table stands in the order that matters, the lowest F1 first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from doctune.reports import sections
from doctune.reports.numbers import counted, decimal, percent, whole
from doctune.reports.page import bar, escaped, isolated, path_code
from doctune.reports.plots import Curves
from doctune.reports.records import RunRecords
from doctune.reports.sections import Report
from doctune.reports.summary import compared_metrics, soft_scores
from doctune.reports.verdict import PART_WORDS

NOUN = "document"
STYLE = sections.STYLE  # of the pages about folds and comparisons, too
REPORT_FILES = {
    "summary.txt": "this report as plain text, for pasting",
    "methods.txt": "the paragraph for a publication",
    "report.json": "this report for programs",
    "per_class.csv": "the table of classes",
    "loss_curves.png": "the picture of the losses",
    "metric_curve.png": "the picture of the validation scores",
    "confusion_matrix.png": "the picture of the confusion matrix",
}

SORTING = """
for (const table of document.querySelectorAll("table.sortable")) {
  const rows = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const value = (row, place) => row.cells[place].dataset.value ?? row.cells[place].textContent;
  heads.forEach((head, place) => {
    if (!head.textContent) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const falls = head.getAttribute("aria-sort") === "ascending";
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falls ? "descending" : "ascending");
      const sorted = [...rows.rows].sort((first, second) => {
        const [a, b] = [value(first, place), value(second, place)];
        if (a === "" || b === "") return (a === "") - (b === "");
        const order = isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b;
        return falls ? -order : order;
      });
      rows.append(...sorted);
    });
  });
}
"""


@dataclass(frozen=True)
class Pictures:
    """What a page shows of a run's curves and confusions: two SVG elements, and a PNG as the URI of its data."""

    loss_curves: str
    metric_curve: str
    confusion_matrix: str


def page(report: Report, records: RunRecords, pictures: Pictures, methods: str) -> str:
    """The whole page.

    Args:
        report: what `build_report` gives.
        records: the run that it was made from.
        pictures: drawn already.
        methods: the paragraph of `describe_methods`.
    """
    word = PART_WORDS[report["part"]].capitalize()
    drawn = Curves(pictures.loss_curves, pictures.metric_curve)
    blocks = [
        ("verdict", "Verdict", _verdict(report)),
        ("notes", "Notes", sections.notes(report)),
        ("curves", "Curves", sections.curves(drawn)),
        ("gap", "Gap", sections.gap(report, records.history, NOUN)),
        ("classes", f"{word} scores per class", _classes(report)),
        ("confusions", "Confusions", _confusions(report, pictures)),
        ("mistakes", "Worst mistakes", _mistakes(report)),
        *([("why", "Why these labels", _surest_right(report))] if "surest_right" in report else []),
        ("data", "Data account", _data(report)),
        ("throughput", "Throughput", sections.throughput(report, records.history)),
        ("configuration", "Configuration", sections.configuration(records)),
        ("environment", "Environment", sections.environment(report)),
        ("files", "Files of the run", sections.files(report, records, REPORT_FILES, NOUN)),
        ("methods", "For a publication", f"<blockquote>{escaped(methods)}</blockquote>"),
    ]
    return sections.whole_page(report, _opening(report), blocks, STYLE, SORTING)


def _opening(report: Report) -> list[str]:
    model = report["model"]
    return [
        isolated(model["name"]) if model.get("name") else "",
        counted(len(report["labels"]), "class", "classes"),
        counted(report[report["part"]]["documents"], f"{PART_WORDS[report['part']]} document"),
        sections.finished_words(report),
    ]


def _verdict(report: Report) -> str:
    part = report["part"]
    return (
        f"{sections.verdict(report, compared_metrics(report), NOUN)}"
        f'<p class="soft">{PART_WORDS[part].capitalize()}: {soft_scores(report[part])}.</p>'
    )


def _classes(report: Report) -> str:
    """Every class, the lowest F1 first; at the end those that the part has no document of."""
    names = ("f1", "precision", "recall", "support", "predicted", "train")
    words = ("F1", "precision", "recall", "documents", "predicted", "in training")
    heads = [("class", "name"), ("", "wide"), *((word, "") for word in words)]
    ordered = sorted(report["per_class"], key=lambda row: (row["support"] == 0, row["f1"], row["label"]))
    rows = [
        [
            f'<td class="name">{isolated(row["label"])}</td>',
            f'<td class="wide">{bar(row["f1"])}</td>',
            *(_class_cell(row, name) for name in names),
        ]
        for row in ordered
    ]
    return (
        f"{sections.table(heads, rows, is_sortable=True)}"
        f'<p class="soft">The lowest F1 first. documents: of the class in the {PART_WORDS[report["part"]]} part; '
        "predicted: how many were given the label; in training: what the model could learn from.</p>"
    )


def _class_cell(row: Mapping[str, Any], name: str) -> str:
    """A number of a class; what cannot be known without a document of the class is a dash and sorts last."""
    is_score = name in ("f1", "precision", "recall")
    value = None if row["support"] == 0 and is_score else row[name]
    shown = decimal(value) if is_score else whole(value)
    return sections.sortable_cell(value, shown)


def _confusions(report: Report, pictures: Pictures) -> str:
    pairs = report["confused_pairs"]
    no_pair = "<p>No document was given a wrong label.</p>"
    table = sections.pair_table(pairs, "true class", "taken for") if pairs else no_pair
    return (
        f'{table}<h3>Confusion matrix</h3><figure><img src="{pictures.confusion_matrix}" '
        f'alt="Confusion matrix of {counted(len(report["labels"]), "class", "classes")}"></figure>'
        '<p class="soft"><a href="confusion_matrix.png">The picture alone</a>, to zoom into.</p>'
    )


def _mistakes(report: Report) -> str:
    worst = report["worst_mistakes"]
    if not worst:
        return "<p>None.</p>"
    items = [
        f"<li><strong>{percent(mistake['probability'])}</strong>{isolated(mistake['predicted'])} "
        f'<span class="soft">instead of</span> {isolated(mistake["truth"])} '
        f'<span class="soft fixed">({percent(mistake["truth_probability"])})</span>'
        f"{path_code(mistake['path'])}{_chunks(mistake)}</li>"
        for mistake in worst
    ]
    return (
        '<p class="soft">The wrong labels that the model was surest of, each with its probability and that of the '
        f'true one.</p><ol class="mistakes">{"".join(items)}</ol>'
    )


def _surest_right(report: Report) -> str:
    items = [
        f"<li><strong>{percent(right['probability'])}</strong>{isolated(right['predicted'])}"
        f"{path_code(right['path'])}{_chunks(right)}</li>"
        for right in report["surest_right"]
    ]
    return (
        '<p class="soft">The right labels that the model was surest of, each with the chunks that counted most and '
        f'their share. A share says what was read, not that it was understood.</p><ol class="mistakes">'
        f"{''.join(items)}</ol>"
    )


def _chunks(document: Mapping[str, Any]) -> str:
    """The beginnings of the chunks that counted most; nothing where a document was not read in chunks."""
    items = [
        f"<li><strong>{percent(chunk['weight'])}</strong>"
        f'<span class="soft fixed">chunk {chunk["number"] + 1} of {document["num_chunks"]}</span> '
        f"{isolated(chunk['text'])}</li>"
        for chunk in document.get("chunks", [])
    ]
    return f'<ul class="chunks">{"".join(items)}</ul>' if items else ""


def _data(report: Report) -> str:
    account = report["account"]
    parts, reasons = account.get("parts") or {}, account.get("left_out_reasons") or {}
    if not parts:
        return "<p>Not recorded.</p>"
    rows = max(account.get("rows") or sum(parts.values()), 1)
    facts = [("rows of the source", whole(account.get("rows")))]
    if account.get("duplicate_groups") is not None:
        copies = account.get("duplicate_documents")
        of = "" if copies is None else f" with {counted(copies, 'document')}, each kept in one part"
        facts.append(("groups of near-copies", f"{whole(account['duplicate_groups'])}{of}"))
    if account.get("conflicting_groups") is not None:
        facts.append(("texts under several labels", whole(len(account["conflicting_groups"]))))
    why = sections.count_table("left out because", reasons, rows, NOUN) if reasons else "<p>No row was left out.</p>"
    return f"{sections.fact_list(facts)}{sections.count_table('part', parts, rows, NOUN)}<h3>Left out</h3>{why}"
