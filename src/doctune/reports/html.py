"""The report of a run as one HTML page that needs nothing but itself: no network, no JavaScript, no file beside it.

The one script sorts the table of classes; without it the table stands in the order that matters, the lowest F1 first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import yaml

from doctune.reports.numbers import UNKNOWN, counted, decimal, duration, percent, whole
from doctune.reports.page import bar, document, escaped, isolated, path_code
from doctune.reports.records import RunRecords
from doctune.reports.summary import compared_metrics, compared_scores, soft_scores
from doctune.reports.verdict import METRIC_WORDS, PART_WORDS
from doctune.scoring.classification import STATISTICS

Report = Mapping[str, Any]
Row = Sequence[str]  # the cells of a table, HTML with their <td>

VERDICTS = {
    "better": ("success", "better than the baseline"),
    "worse": ("error", "worse than the baseline"),
    "unclear": ("warning", "cannot be told apart from the baseline"),
    "too_few": ("warning", "too few documents to judge"),
    "no_baseline": ("warning", "no baseline"),
}
GAP_TONES = {"excellent": "success", "good": "success", "moderate": "warning", "critical": "error"}
RUN_FILES = {
    "data/account.csv": "every row of the source, used or left out for a reason",
    "data/audit.json": "findings about the documents",
    "data/splits.parquet": "which document is in which part",
    "data/baselines.json": "the scores of the baselines",
    "predictions/val.parquet": "predictions for the validation documents",
    "predictions/test.parquet": "predictions for the test documents",
    "predictions/baselines_test.parquet": "the baselines' predictions for them",
    "training_history.json": "losses and scores of every epoch",
    "metrics.csv": "what was logged at every step",
    "environment.json": "versions, hardware, command",
    ".hydra/config.yaml": "the configuration",
    "train.log": "the log",
    "model/config.json": "the model's folder, for predictions",
}
REPORT_FILES = {
    "summary.txt": "this report as plain text, for pasting",
    "methods.txt": "the paragraph for a publication",
    "report.json": "this report for programs",
    "per_class.csv": "the table of classes",
    "loss_curves.png": "the picture of the losses",
    "metric_curve.png": "the picture of the validation scores",
    "confusion_matrix.png": "the picture of the confusion matrix",
}

MANY_ROWS = 30  # a longer table scrolls in its box

STYLE = """
nav { display: flex; flex-wrap: wrap; gap: .1rem .9rem; margin: .8rem 0; font-size: .9rem; }
a { color: var(--info); }
nav a { text-decoration: none; padding: .2rem 0; }
h3 { font-size: .95rem; margin: 1.2rem 0 .4rem; }
.verdict { border-left-width: 8px; padding: 1rem; }
.verdict p { font-size: 1.1rem; overflow-wrap: anywhere; }
#notes details li { font: inherit; }
.notes ul { margin: .2rem 0 0; padding-left: 1.2rem; overflow-wrap: anywhere; }
.badge { color: var(--tone); border: 1px solid currentColor; border-radius: 999px; padding: .05rem .6rem;
  font-size: .8rem; white-space: nowrap; }
th.name, td.name { text-align: left; } td.name { min-width: 11rem; }
td.wide { min-width: 6rem; width: 25%; } th.range { text-align: left; } td.range { width: 40%; }
tr.best td { font-weight: 600; }
.tall { max-height: 34rem; overflow: auto; } .tall th { position: sticky; top: 0; background: var(--card); }
th button { font: inherit; color: inherit; background: none; border: 0; padding: 0; cursor: pointer;
  text-decoration: underline dotted; text-underline-offset: .25em; }
th[aria-sort] button { color: var(--ink); }
th[aria-sort=ascending] button::after { content: " ▲"; } th[aria-sort=descending] button::after { content: " ▼"; }
.interval { display: block; position: relative; height: .9rem; min-width: 8rem; background: var(--page);
  border-radius: 2px; }
.interval i { position: absolute; top: .25rem; height: .4rem; min-width: 2px; background: var(--bar);
  border-radius: 2px; }
.interval b { position: absolute; top: 0; height: .9rem; width: 3px; margin-left: -1.5px; background: var(--ink); }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: .8rem; }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: .6rem;
  overflow-x: auto; }
figure svg, figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
figure svg text { font-family: inherit !important; fill: currentColor; }
@media (prefers-color-scheme: dark) { figure svg { filter: brightness(1.3); }
  figure img { filter: invert(1) hue-rotate(180deg); } }
.mistakes { margin: 0; padding: 0; list-style: none; }
.mistakes li { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: .45rem .8rem;
  margin: .4rem 0; overflow-wrap: anywhere; }
.mistakes strong { font-variant-numeric: tabular-nums; margin-right: .5rem; }
.fixed, .mistakes strong { white-space: nowrap; }
code, pre { font: .82rem/1.5 ui-monospace, SFMono-Regular, Consolas, monospace; }
code { overflow-wrap: anywhere; } .mistakes code { display: block; color: var(--soft); }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: .7rem 1rem; margin: .4rem 0;
  max-height: 26rem; overflow: auto; white-space: pre-wrap; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: minmax(7rem, max-content) 1fr; gap: .25rem 1rem; margin: .4rem 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.files { padding-left: 1.1rem; margin: .4rem 0; }
blockquote { margin: .4rem 0; padding: .7rem 1rem; background: var(--card); border: 1px solid var(--line);
  border-radius: 6px; overflow-wrap: anywhere; }
@media (max-width: 40rem) { td.name { min-width: 7rem; } .range { display: none; }
  th, td { white-space: normal; padding: .35rem .3rem; } figure img { max-width: none; width: 34rem; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .5rem; } }
@media print { body { max-width: none; font-size: 10pt; background: none; } nav { display: none; }
  h2, h3 { break-after: avoid; } .curves { grid-template-columns: 1fr 1fr; }
  .tall, pre { max-height: none; overflow: visible; } figure, article, tr, .mistakes li { break-inside: avoid; }
  .bar, .interval, .interval i, .interval b { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""

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
    sections = [
        ("verdict", "Verdict", _verdict(report)),
        ("notes", "Notes", _notes(report)),
        ("curves", "Curves", _curves(pictures)),
        ("gap", "Gap", _gap(report, records.history)),
        ("classes", f"{word} scores per class", _classes(report)),
        ("confusions", "Confusions", _confusions(report, pictures)),
        ("mistakes", "Worst mistakes", _mistakes(report)),
        ("data", "Data account", _data(report)),
        ("throughput", "Throughput", _throughput(report, records.history)),
        ("configuration", "Configuration", _configuration(records)),
        ("environment", "Environment", _environment(report)),
        ("files", "Files of the run", _files(report, records)),
        ("methods", "For a publication", f"<blockquote>{escaped(methods)}</blockquote>"),
    ]
    links = "".join(f'<a href="#{name}">{heading}</a>' for name, heading, _ in sections)
    blocks = [
        f"<header><h1>Report of {isolated(report['run'])}</h1>{_opening(report)}</header><nav>{links}</nav>",
        *(f'<section id="{name}"><h2>{heading}</h2>\n{body}</section>' for name, heading, body in sections),
    ]
    return document(f"Report of {report['run']}", "\n".join(blocks), style=STYLE, script=SORTING)


def _opening(report: Report) -> str:
    model, finished = report["model"], report["finished_at"]
    parts = [
        isolated(model["name"]) if model.get("name") else "",
        counted(len(report["labels"]), "class", "classes"),
        counted(report[report["part"]]["documents"], f"{PART_WORDS[report['part']]} document"),
        f"finished {_moment(finished)}" if finished else "",
    ]
    return f'<p class="soft">{" · ".join(part for part in parts if part)}</p>'


# --- what came of it ---------------------------------------------------------------------------------------------


def _verdict(report: Report) -> str:
    tone, word = VERDICTS[report["comparison"]["status"]]
    metrics = compared_metrics(report)
    heads = [
        ("", "name"),
        *((f'{METRIC_WORDS[metric]} <span class="fixed">(95 %)</span>', "") for metric in metrics),
        (f"{METRIC_WORDS[metrics[0]]} from 0 to 1", "range"),
    ]
    rows = [
        [
            f'<td class="name">{escaped(name)}</td>',
            *(f"<td>{_with_interval(scores, metric)}</td>" for metric in metrics),
            f'<td class="range">{_interval(scores, metrics[0])}</td>',
        ]
        for name, scores in compared_scores(report)
    ]
    part = report["part"]
    return (
        f'<article class="verdict {tone}"><span class="tag">{word}</span><p>{escaped(report["verdict"])}</p></article>'
        f"{_table(heads, rows)}"
        f'<p class="soft">{PART_WORDS[part].capitalize()}: {soft_scores(report[part])}.</p>'
    )


def _with_interval(scores: Mapping[str, Any], metric: str) -> str:
    """A score and its 95 % interval, which goes into a second line where a phone has no room beside it."""
    bounds = (scores.get("ci95") or {}).get(metric)
    beside = f' <span class="fixed">({decimal(bounds[0])}–{decimal(bounds[1])})</span>' if bounds else ""
    return decimal(scores.get(metric)) + beside


def _interval(scores: Mapping[str, Any], metric: str) -> str:
    """A score as a mark on the range from 0 to 1, its 95 % interval as a band."""
    value, bounds = scores.get(metric), (scores.get("ci95") or {}).get(metric)
    if value is None or metric not in STATISTICS:
        return ""
    low, high = bounds if bounds and None not in bounds else (value, value)
    band = f'<i style="left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%"></i>'
    return f'<span class="interval" aria-hidden="true">{band}<b style="left:{100 * value:.1f}%"></b></span>'


def _notes(report: Report) -> str:
    """What holds at the end as a card; below it, openable, what the guards said and took back."""
    held = (
        f'<article class="warning notes">{_list(escaped(note) for note in report["notes"])}</article>'
        if report["notes"]
        else "<p>Nothing to warn of at the end.</p>"
    )
    cleared = [alarm for alarm in report["alarms"] if alarm["cleared"] is not None]
    if not cleared:
        return held
    items = _list(f"{escaped(alarm['message'])} (no longer so in epoch {alarm['cleared']})" for alarm in cleared)
    return f"{held}<details><summary>{counted(len(cleared), 'warning')} during training</summary>{items}</details>"


# --- how it went -------------------------------------------------------------------------------------------------


def _curves(pictures: Pictures) -> str:
    return (
        f'<div class="curves"><figure>{pictures.loss_curves}</figure><figure>{pictures.metric_curve}</figure></div>'
        '<p class="soft">The loss that is minimised is weighted, smoothed and measured while weights move; the gap is '
        "that between validation and the training sample in evaluation mode.</p>"
    )


def _gap(report: Report, history: Sequence[Mapping[str, Any]]) -> str:
    if all(row.get("gap") is None for row in history):
        return "<p>Not measured: this run kept no loss of training documents in evaluation mode.</p>"
    gap = report["gap"]
    if gap["value"] is None:
        at_best = "<p>Not measured at the best epoch."
    else:
        at_best = f"<p>At the best epoch: <strong>{decimal(gap['value'])}</strong> {_gap_badge(gap['status'])}"
    onset = f" First critical in epoch {whole(gap['onset_epoch'])}." if gap["onset_epoch"] is not None else ""
    heads = [("epoch", ""), ("training sample", ""), ("validation", ""), ("gap", ""), ("status", "")]
    rows = [
        [
            f"<td>{whole(row['epoch'])}</td>",
            f"<td>{decimal(row.get('train_eval_loss'))}</td>",
            f"<td>{decimal(row.get('val_loss'))}</td>",
            f"<td>{decimal(row.get('gap'))}</td>",
            f"<td>{_gap_badge(row.get('gap_status'))}</td>",
        ]
        for row in history
    ]
    return (
        f"{at_best}{onset}</p>"
        f"{_table(heads, rows, best=_best_row(report, history))}"
        '<p class="soft">Validation loss minus the loss of a fixed sample of training documents, both plain cross '
        "entropy in evaluation mode, in nats. The epoch that was kept is in bold.</p>"
    )


def _gap_badge(status: str | None) -> str:
    return f'<span class="badge {GAP_TONES.get(status, "info")}">{escaped(status)}</span>' if status else UNKNOWN


def _best_row(report: Report, history: Sequence[Mapping[str, Any]]) -> int | None:
    return next((place for place, row in enumerate(history) if row["epoch"] == report["best_epoch"]), None)


def _throughput(report: Report, history: Sequence[Mapping[str, Any]]) -> str:
    facts = [
        ("training time", duration(report["training_seconds"])),
        ("tokens per second", f"{whole(report['tokens_per_s'])} on average"),
        ("padding", f"{percent(report['padding_share'])} of the cells of all batches"),
    ]
    heads = [("epoch", ""), ("time", ""), ("tokens/s", ""), ("padding", ""), ("learning rate", "")]
    rows = [
        [
            f"<td>{whole(row['epoch'])}</td>",
            f"<td>{duration(row.get('seconds'))}</td>",
            f"<td>{whole(row.get('tokens_per_s'))}</td>",
            f"<td>{percent(row.get('padding_share'))}</td>",
            f"<td>{UNKNOWN if row.get('lr') is None else format(row['lr'], '.3g')}</td>",
        ]
        for row in history
    ]
    return _facts(facts) + _table(heads, rows, best=_best_row(report, history))


# --- which documents, which mistakes -----------------------------------------------------------------------------


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
        f"{_table(heads, rows, is_sortable=True)}"
        f'<p class="soft">The lowest F1 first. documents: of the class in the {PART_WORDS[report["part"]]} part; '
        "predicted: how many were given the label; in training: what the model could learn from.</p>"
    )


def _class_cell(row: Mapping[str, Any], name: str) -> str:
    """A number of a class; what cannot be known without a document of the class is a dash and sorts last."""
    is_score = name in ("f1", "precision", "recall")
    value = None if row["support"] == 0 and is_score else row[name]
    shown = decimal(value) if is_score else whole(value)
    return f'<td data-value="{"" if value is None else value}">{shown}</td>'


def _confusions(report: Report, pictures: Pictures) -> str:
    pairs = report["confused_pairs"]
    heads = [("true class", "name"), ("taken for", "name"), ("times", ""), ("of", ""), ("", "wide")]
    rows = [
        [
            f'<td class="name">{isolated(pair["truth"])}</td>',
            f'<td class="name">{isolated(pair["predicted"])}</td>',
            f"<td>{whole(pair['count'])}</td>",
            f"<td>{whole(pair['support'])}</td>",
            f'<td class="wide">{bar(pair["count"] / pair["support"])}</td>',
        ]
        for pair in pairs
    ]
    table = _table(heads, rows) if rows else "<p>No document was given a wrong label.</p>"
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
        f"{path_code(mistake['path'])}</li>"
        for mistake in worst
    ]
    return (
        '<p class="soft">The wrong labels that the model was surest of, each with its probability and that of the '
        f'true one.</p><ol class="mistakes">{"".join(items)}</ol>'
    )


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
    why = _count_table("left out because", reasons, rows) if reasons else "<p>No row was left out.</p>"
    return f"{_facts(facts)}{_count_table('part', parts, rows)}<h3>Left out</h3>{why}"


def _count_table(head: str, counts: Mapping[str, int], total: int) -> str:
    rows = [
        [
            f'<td class="name">{escaped(name.replace("_", " "))}</td>',
            f"<td>{whole(count)}</td>",
            f"<td>{percent(count / total)}</td>",
            f'<td class="wide">{bar(count / total)}</td>',
        ]
        for name, count in counts.items()
    ]
    return _table([(head, "name"), ("documents", ""), ("share", ""), ("", "wide")], rows)


# --- what it was made with ---------------------------------------------------------------------------------------


def _configuration(records: RunRecords) -> str:
    if not records.config:
        return "<p>Not recorded: this run was not started through Hydra.</p>"
    text = yaml.safe_dump(records.config, sort_keys=False, allow_unicode=True, width=1000)
    typed = "\n".join(map(str, records.overrides))
    overrides = f"<pre>{escaped(typed)}</pre>" if typed else "<p>None.</p>"
    return f"<h3>Overrides</h3>{overrides}<h3>All keys</h3><pre>{escaped(text)}</pre>"


def _environment(report: Report) -> str:
    hardware, git = report["hardware"], report["git"]
    changes = {True: ", with changes that were not committed", False: "", None: ""}[git.get("dirty")]
    commit = f"<code>{escaped(git['commit'])}</code>{changes}" if git.get("commit") else UNKNOWN
    cores = f", {counted(hardware['cores'], 'core')}" if hardware.get("cores") else ""
    facts = [
        ("command", f"<code>{escaped(report['command'])}</code>" if report["command"] else UNKNOWN),
        ("seed", _known(report["seed"])),
        ("commit", commit),
        ("precision", _known(report["precision"])),
        ("accelerators", escaped(", ".join(hardware.get("gpus") or [])) or "none"),
        ("processor", _known(hardware.get("processor")) + cores),
        ("system", _known(hardware.get("platform"))),
        ("started", _moment(report["started_at"])),
        ("finished", _moment(report["finished_at"])),
        ("parameters", f"{whole(report['parameters']['total'])}, {whole(report['parameters']['trainable'])} trained"),
        ("best checkpoint", _known(report["best_checkpoint"])),
        *((escaped(name), _known(version)) for name, version in report["versions"].items()),
    ]
    return _facts(facts)


def _files(report: Report, records: RunRecords) -> str:
    """Links that lead from `report/` to what there is when the page is made."""
    checkpoint = report["best_checkpoint"]
    known = ({checkpoint: "the best checkpoint"} if checkpoint else {}) | RUN_FILES
    of_run = [(f"../{name}", words) for name, words in known.items() if (records.folder / name).is_file()]
    links = [*REPORT_FILES.items(), *of_run]
    return _list(
        (f'<a href="{quote(path)}">{escaped(path.removeprefix("../"))}</a>: {words}' for path, words in links), "files"
    )


# --- pieces ------------------------------------------------------------------------------------------------------


def _table(
    heads: Sequence[tuple[str, str]], rows: Sequence[Row], *, best: int | None = None, is_sortable: bool = False
) -> str:
    """A table in a box that scrolls; `heads` are words and the class of their column, `best` the row in bold."""
    head = "".join(f'<th class="{kind}">{word}</th>' if kind else f"<th>{word}</th>" for word, kind in heads)
    marks = [' class="best"' if place == best else "" for place in range(len(rows))]
    body = "\n".join(f"<tr{mark}>{''.join(row)}</tr>" for mark, row in zip(marks, rows, strict=True))
    box = "scroll tall" if len(rows) > MANY_ROWS else "scroll"
    table = '<table class="sortable">' if is_sortable else "<table>"
    return (
        f'<div class="{box}" tabindex="0">{table}<thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'
    )


def _facts(facts: Iterable[tuple[str, str]]) -> str:
    """Names and values, both HTML."""
    return f"<dl>{''.join(f'<dt>{name}</dt><dd>{value}</dd>' for name, value in facts)}</dl>"


def _list(items: Iterable[str], kind: str = "") -> str:
    opening = f'<ul class="{kind}">' if kind else "<ul>"
    return f"{opening}{''.join(f'<li>{item}</li>' for item in items)}</ul>"


def _known(value: object) -> str:
    return UNKNOWN if value is None else escaped(value)


def _moment(stamp: str | None) -> str:
    """A time stamp such as 2026-11-21T06:05:50+00:00 in words that break where they should."""
    return UNKNOWN if stamp is None else escaped(stamp.replace("T", " ").replace("+00:00", " UTC"))
