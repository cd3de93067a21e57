"""The report of several targets as one HTML page that needs nothing but itself: an overview, then a section per target.

The one script sorts the tables of labels; without it they stand in the order that matters, the lowest F1 first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from doctune.reports import sections
from doctune.reports.html import SORTING
from doctune.reports.numbers import UNKNOWN, counted, decimal, percent, whole
from doctune.reports.page import bar, escaped, isolated, path_code
from doctune.reports.plots import Curves
from doctune.reports.sections import Report
from doctune.reports.summary import compared_scores
from doctune.reports.target_records import MultiTaskRecords
from doctune.reports.verdict import BASELINE_WORDS, PART_WORDS, targets_headline

NOUN = "text"
COLUMNS = {"single": ("f1_macro", "accuracy"), "multi": ("f1_macro", "f1_micro")}
KIND_WORDS = {"single": "one per text", "multi": "any number per text"}
MAX_CURVES = 8  # targets in one picture
MAX_LABELS = 6  # of a text that is shown as a mistake
REPORT_FILES = {
    "summary.txt": "this report as plain text, for pasting",
    "methods.txt": "the paragraph for a publication",
    "report.json": "this report for programs",
    "per_label.csv": "the tables of labels",
    "loss_curves.png": "the picture of the losses",
    "metric_curve.png": "the picture of the validation scores",
}
STYLE = (
    sections.STYLE
    + """
.labels span { display: inline-block; border: 1px solid var(--line); border-radius: 999px; padding: 0 .55rem;
  margin: .1rem .3rem .1rem 0; } .labels .wrong { border-color: var(--error); color: var(--error); }
.labels .missed { border: 1px dashed var(--ink); } .labels b { font-weight: 400; }
  .confusion { margin-top: .6rem; } .mistakes blockquote { border: 0; border-left: 3px solid var(--line);
  border-radius: 0; padding: .1rem .7rem; margin: .3rem 0; background: none; }
.mistakes dl { grid-template-columns: max-content 1fr; gap: .1rem .7rem; margin: .2rem 0; } .mistakes dd { margin: 0; }
.overview td.range { width: 22%; } .overview .of { display: block; font-size: .8rem; }
@media (max-width: 40rem) { .side, .overview .of { display: none; } .overview td.name { min-width: 6rem; }
  .mistakes dl { grid-template-columns: max-content 1fr; gap: 0 .6rem; } }
"""
)


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix: its file beside the page, and a PNG as the URI of its data."""

    file: str
    picture: str


@dataclass(frozen=True)
class Pictures:
    """What a page shows: the curves, and the confusion matrix of each target with one label per text."""

    curves: Curves
    matrices: Mapping[str, Matrix]


def page(report: Report, records: MultiTaskRecords, pictures: Pictures, methods: str) -> str:
    """The whole page.

    Args:
        report: what `build_report` gives.
        records: the run that it was made from.
        pictures: drawn already.
        methods: the paragraph of `describe_methods`.
    """
    of_targets = [
        (_anchor(number), isolated(name), _target(report, name, pictures.matrices.get(name)))
        for number, name in enumerate(report["targets"], start=1)
    ]
    matrices = {matrix.file: f"the confusion matrix of {escaped(name)}" for name, matrix in pictures.matrices.items()}
    blocks = [
        ("verdict", "Overview", _overview(report)),
        ("notes", "Notes", sections.notes(report)),
        *of_targets,
        ("curves", "Curves", sections.curves(pictures.curves) + _not_drawn(report)),
        ("gap", "Gap", sections.gap(report, records.history, NOUN) + _ADDED_UP),
        ("data", "Data account", _data(report)),
        ("throughput", "Throughput", sections.throughput(report, records.history)),
        ("configuration", "Configuration", sections.configuration(records)),
        ("environment", "Environment", sections.environment(report)),
        ("files", "Files of the run", sections.files(report, records, REPORT_FILES | matrices, NOUN)),
        ("methods", "For a publication", f"<blockquote>{escaped(methods)}</blockquote>"),
    ]
    return sections.whole_page(report, _opening(report), blocks, STYLE, SORTING)


def _opening(report: Report) -> list[str]:
    model = report["model"]
    return [
        isolated(model["name"]) if model.get("name") else "",
        counted(len(report["targets"]), "target"),
        counted(report[report["part"]]["texts"], f"{PART_WORDS[report['part']]} text"),
        sections.finished_words(report),
    ]


def _anchor(number: int) -> str:
    return f"target-{number}"


_ADDED_UP = '<p class="soft">Losses are added up over the targets, each the mean over the texts that know it.</p>'


def _not_drawn(report: Report) -> str:
    left = len(report["targets"]) - MAX_CURVES
    return "" if left <= 0 else f'<p class="soft">{counted(left, "more target")} in training_history.json.</p>'


# --- all targets -------------------------------------------------------------------------------------------------


def _overview(report: Report) -> str:
    """The verdict as a card, the combined score, and a row for every target."""
    headline = targets_headline(report["targets"])
    caveat = "" if report["part"] == "test" else " There is no test part: these texts chose the checkpoint."
    return (
        f'<article class="verdict {_tone(report)}"><span class="tag">{_word(report)}</span>'
        f"<p>{escaped(headline)} {_together(report)}{caveat}</p></article>"
        f'<div class="overview">{_target_table(report)}</div>'
        f'<p class="soft">Macro F1 on {PART_WORDS[report["part"]]} texts with 95 % intervals; {_mean_words(report)} '
        "The baseline is the one with the highest validation score. weight: of the target's loss at the end.</p>"
    )


def _statuses(report: Report) -> list[str | None]:
    return [found["comparison"].get("status") for found in report["targets"].values()]


def _tone(report: Report) -> str:
    statuses = _statuses(report)
    if "worse" in statuses:
        return "error"
    return "success" if set(statuses) == {"better"} else "warning"


def _word(report: Report) -> str:
    statuses = _statuses(report)
    return f"better on {statuses.count('better')} of {len(statuses)}"


def _together(report: Report) -> str:
    """The mean of all targets, and its lead over the baselines where that is known."""
    scores, compared = report[report["part"]], report["comparison"]
    low, high = scores["ci95"]["f1_macro"]
    mean = f"Mean macro F1 {decimal(scores['f1_macro'])} (95 % interval {decimal(low)} to {decimal(high)})"
    if compared["baseline"] is None:
        return f"{mean}."
    beside = f"{mean}, the strongest baseline of each target {decimal(compared['baseline'])}"
    if compared["difference"] is None:
        return f"{beside}."
    interval = f"({compared['low']:+.3f} to {compared['high']:+.3f})"
    return f"{beside}; difference {compared['difference']:+.3f} {interval} on the same texts."


def _mean_words(report: Report) -> str:
    known, of_all = report[report["part"]]["targets"], len(report["targets"])
    which = "all targets" if known == of_all else f"the {known} of {of_all} targets that have such texts"
    return f"the mean is that of {which}, its interval from resamples of whole texts."


def _target_table(report: Report) -> str:
    heads = [
        ("target", "name"),
        ('macro F1 <span class="fixed">(95 %)</span>', ""),
        ("from 0 to 1", "range"),
        ("baseline", ""),
        ("", ""),
        ("texts", "side"),
        ("weight", "side"),
    ]
    scores = report[report["part"]]
    mean = _row("mean", scores, decimal(report["comparison"]["baseline"]), "", [whole(scores["texts"]), ""])
    rows = [
        _target_row(report, found, f'<a href="#{_anchor(number)}">{isolated(name)}</a>')
        for number, (name, found) in enumerate(report["targets"].items(), start=1)
    ]
    return sections.table(heads, [mean, *rows], best=0)


def _target_row(report: Report, found: Mapping[str, Any], link: str) -> sections.Row:
    part, name = report["part"], found["comparison"].get("baseline")
    scores, weight = found[part] or {}, found["weight"]
    beside = UNKNOWN
    if name is not None:
        beside = f'{decimal(found["baselines"][name][part]["f1_macro"])} <span class="soft of">{_baseline(name)}</span>'
    cells = [whole(scores.get("texts")), UNKNOWN if weight is None else f"{weight:.2f}"]
    return _row(link, scores, beside, _badge(found), cells)


def _row(name: str, scores: Mapping[str, Any], baseline: str, badge: str, cells: Iterable[str]) -> sections.Row:
    return [
        f'<td class="name">{name}</td>',
        f"<td>{sections.with_interval(scores, 'f1_macro')}</td>",
        f'<td class="range">{sections.interval_bar(scores, "f1_macro")}</td>',
        f"<td>{baseline}</td>",
        f"<td>{badge}</td>",
        *(f'<td class="side">{cell}</td>' for cell in cells),
    ]


def _baseline(name: str) -> str:
    return escaped(BASELINE_WORDS.get(name, name))


_BADGES = {
    "better": "better",
    "worse": "worse",
    "unclear": "unclear",
    "too_few": "too few",
    "no_baseline": "no baseline",
}


def _badge(found: Mapping[str, Any]) -> str:
    status = found["comparison"].get("status")
    if status is None:
        return '<span class="badge warning">no text</span>'
    return f'<span class="badge {sections.VERDICTS[status][0]}">{_BADGES[status]}</span>'


# --- one target --------------------------------------------------------------------------------------------------


def _target(report: Report, name: str, matrix: Matrix | None) -> str:
    """Scores, labels and mistakes of one target."""
    found, part = report["targets"][name], report["part"]
    kind = f"{counted(len(found['labels']), 'label')}, {KIND_WORDS[found['kind']]}"
    if found[part] is None:
        return f"<p>{kind}. No {PART_WORDS[part]} text knows it.</p>{_scores(report, found)}"
    parts = [
        sections.verdict_card(found["comparison"]["status"], found["verdict"], NOUN),
        _scores(report, found),
        f'<p class="soft">{kind}; {counted(found[part]["texts"], f"{PART_WORDS[part]} text")}.</p>',
        f"<h3>Labels</h3>{_labels(found, part)}",
        _cardinality(found),
        _confusions(found, matrix),
        f"<h3>Worst mistakes</h3>{_mistakes(found)}",
    ]
    return "".join(parts)


def _scores(report: Report, found: Mapping[str, Any]) -> str:
    compared = compared_scores({"part": report["part"], **found})
    return sections.score_table(compared, COLUMNS[found["kind"]]) if compared else ""


def _labels(found: Mapping[str, Any], part: str) -> str:
    """Every label, the lowest F1 first; at the end those that the part has no text of."""
    has_thresholds = any(row["threshold"] is not None for row in found["per_label"])
    heads = [
        ("label", "name"),
        ("", "wide"),
        *((word, "") for word in ("F1", "precision", "recall")),
        *((word, kind) for word, kind in (("texts", ""), ("said", "side"), ("in training", "side"))),
        *([("threshold", "side")] if has_thresholds else []),
    ]
    ordered = sorted(found["per_label"], key=lambda row: (row["support"] == 0, row["f1"], row["label"]))
    told = "; threshold: the probability from which on it is said, chosen on validation texts" if has_thresholds else ""
    return (
        f"{sections.table(heads, [_label_row(row, has_thresholds) for row in ordered], is_sortable=True)}"
        f'<p class="soft">The lowest F1 first. texts: {PART_WORDS[part]} texts with the label; said: how many were '
        f"given it; in training: what the model could learn from{told}.</p>"
    )


def _label_row(row: Mapping[str, Any], has_thresholds: bool) -> sections.Row:
    scores = [row[name] if row["support"] else None for name in ("f1", "precision", "recall")]
    return [
        f'<td class="name">{isolated(row["label"])}</td>',
        f'<td class="wide">{bar(row["f1"])}</td>',
        *(sections.sortable_cell(value, decimal(value)) for value in scores),
        sections.sortable_cell(row["support"], whole(row["support"])),
        *(sections.sortable_cell(row[name], whole(row[name]), "side") for name in ("predicted", "train")),
        *([sections.sortable_cell(row["threshold"], decimal(row["threshold"]), "side")] if has_thresholds else []),
    ]


def _cardinality(found: Mapping[str, Any]) -> str:
    """How many labels the texts have and are given."""
    counts = found.get("cardinality")
    if counts is None:
        return ""
    total = sum(count["true"] for count in counts["texts"].values())
    most = max(counts["texts"], key=int)
    rows = [
        [
            f"<td>{number}{' or more' if number == most else ''}</td>",
            f"<td>{whole(count['true'])}</td>",
            f'<td class="wide">{bar(count["true"] / total)}</td>',
            f"<td>{whole(count['said'])}</td>",
            f'<td class="wide">{bar(count["said"] / total)}</td>',
        ]
        for number, count in counts["texts"].items()
    ]
    heads = [("labels", ""), ("texts that have so many", ""), ("", "wide"), ("are given so many", ""), ("", "wide")]
    trained = "" if counts["train"] is None else f" (in training {counts['train']:.2f})"
    means = f"On average a text has {counts['true']:.2f} labels{trained} and is given {counts['said']:.2f}."
    return f'<h3>Labels per text</h3>{sections.table(heads, rows)}<p class="soft">{means}</p>'


def _confusions(found: Mapping[str, Any], matrix: Matrix | None) -> str:
    pairs = found["confused_pairs"]
    if found["kind"] == "multi":
        table = sections.pair_table(pairs, "missed", "said instead") if pairs else "<p>None.</p>"
        return (
            f"<h3>Missed, and said instead</h3>{table}"
            '<p class="soft">Texts in which the first label applies and was missed, and the second was said and does '
            "not apply; of: the texts to which the first one applies.</p>"
        )
    no_pair = "<p>No text was given a wrong label.</p>"
    table = sections.pair_table(pairs, "true label", "taken for") if pairs else no_pair
    return f"<h3>Confusions</h3>{table}{_matrix(found, matrix)}"


def _matrix(found: Mapping[str, Any], matrix: Matrix | None) -> str:
    if matrix is None:
        return ""
    return (
        f'<figure class="confusion"><img src="{matrix.picture}" '
        f'alt="Confusion matrix of {counted(len(found["labels"]), "label")}"></figure>'
        f'<p class="soft"><a href="{escaped(matrix.file)}">The picture alone</a>, to zoom into.</p>'
    )


def _mistakes(found: Mapping[str, Any]) -> str:
    worst = found["worst_mistakes"]
    if not worst:
        return "<p>No text was given a label that does not apply.</p>"
    return (
        '<p class="soft">The texts with the labels that do not apply (in red) of which the model was surest, and with '
        "its probability of those that do; a broken line is around labels that were missed.</p>"
        f'<ol class="mistakes">{"".join(f"<li>{_mistake(mistake)}</li>" for mistake in worst)}</ol>'
    )


def _mistake(mistake: Mapping[str, Any]) -> str:
    said, truth = ({each["label"] for each in mistake[side]} for side in ("said", "truth"))
    rows = [
        ("said", _chips(mistake["said"], said - truth, "wrong")),
        ("true", _chips(mistake["truth"], truth - said, "missed")),
    ]
    pairs = "".join(f'<dt>{name}</dt><dd class="labels">{value}</dd>' for name, value in rows)
    return f"<blockquote>{isolated(mistake['text'])}</blockquote><dl>{pairs}</dl>{path_code(mistake['path'])}"


def _chips(labels: Sequence[Mapping[str, Any]], marked: set[str], kind: str) -> str:
    if not labels:
        return '<i class="soft">no label</i>'
    return "".join(
        f'<span class="{kind if each["label"] in marked else "right"}">{isolated(each["label"])} '
        f'<b class="soft fixed">{percent(each["probability"])}</b></span>'
        for each in labels[:MAX_LABELS]
    ) + (f'<i class="soft">and {len(labels) - MAX_LABELS} more</i>' if len(labels) > MAX_LABELS else "")


# --- which texts -------------------------------------------------------------------------------------------------


def _data(report: Report) -> str:
    account = report["account"]
    parts, reasons = account.get("parts") or {}, account.get("left_out_reasons") or {}
    if not parts:
        return "<p>Not recorded.</p>"
    rows = max(account.get("rows") or sum(parts.values()), 1)
    facts = [("rows of the source", whole(account.get("rows")))]
    if account.get("duplicate_groups") is not None:
        copies = account.get("duplicate_texts")
        of = "" if copies is None else f" with {counted(copies, 'text')}, each kept in one part"
        facts.append(("groups of near-copies", f"{whole(account['duplicate_groups'])}{of}"))
    if account.get("conflicting_texts") is not None:
        facts.append(("texts with different labels in different rows", whole(account["conflicting_texts"])))
    why = sections.count_table("left out because", reasons, rows, NOUN) if reasons else "<p>No row was left out.</p>"
    return (
        f"{sections.fact_list(facts)}{sections.count_table('part', parts, rows, NOUN)}<h3>Left out</h3>{why}"
        f"{_known_table(report, parts)}"
    )


def _known_table(report: Report, parts: Mapping[str, int]) -> str:
    """How many texts of each part know each target; nothing where that was not recorded."""
    of_targets = report["account"].get("targets") or {}
    missing = {name: of_targets.get(name, {}).get("missing") for name in report["targets"]}
    shown = [part for part in ("train", "val", "test") if part in parts]
    rows = [
        [
            f'<td class="name">{isolated(name)}</td>',
            *(f"<td>{whole(parts[part] - lacking[part])}</td>" for part in shown),
        ]
        for name, lacking in missing.items()
        if lacking is not None
    ]
    if not rows:
        return ""
    heads = [("target", "name"), *((part, "") for part in shown)]
    return f"<h3>Texts that know each target</h3>{sections.table(heads, rows)}"
