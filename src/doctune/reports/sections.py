"""The sections of a report's page that every task has, and the pieces that all sections are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import yaml

from doctune.reports.numbers import UNKNOWN, counted, decimal, duration, percent, whole
from doctune.reports.page import bar, document, escaped, isolated
from doctune.reports.plots import Curves
from doctune.reports.records import RunFiles
from doctune.reports.summary import compared_scores
from doctune.reports.verdict import ALL_METRIC_WORDS, ANSWER_METRIC_WORDS
from doctune.scoring.classification import STATISTICS

Report = Mapping[str, Any]
Row = Sequence[str]  # the cells of a table, HTML with their <td>
Section = tuple[str, str, str]  # its id, its heading, its HTML

VERDICTS = {
    "better": ("success", "better than the baseline"),
    "worse": ("error", "worse than the baseline"),
    "unclear": ("warning", "cannot be told apart from the baseline"),
    "too_few": ("warning", "too few {noun}s to judge"),
    "no_baseline": ("warning", "no baseline"),
}
GAP_TONES = {"excellent": "success", "good": "success", "moderate": "warning", "critical": "error"}
SHARES = frozenset([*STATISTICS, *ANSWER_METRIC_WORDS])  # metrics from 0 to 1
RUN_FILES = {
    "data/account.csv": "every row of the source, used or left out for a reason",
    "data/audit.json": "findings about the {noun}s",
    "data/splits.parquet": "which {noun} is in which part",
    "data/baselines.json": "the scores of the baselines",
    "predictions/val.parquet": "predictions for the validation {noun}s",
    "predictions/test.parquet": "predictions for the test {noun}s",
    "predictions/baselines_test.parquet": "the baselines' predictions for them",
    "training_history.json": "losses and scores of every epoch",
    "metrics.csv": "what was logged at every step",
    "environment.json": "versions, hardware, command",
    ".hydra/config.yaml": "the configuration",
    "train.log": "the log",
    "model/config.json": "the model's folder, for predictions",
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
.chunks { margin: .3rem 0 0; padding: 0; list-style: none; }
.mistakes .chunks li { background: none; border: 0; padding: .15rem 0; margin: 0; font-size: .85rem; }
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


def whole_page(
    report: Report, opening: Iterable[str], sections: Sequence[Section], style: str, script: str = ""
) -> str:
    """The page: a head with the run and `opening`, facts as HTML; links to the sections; the sections."""
    links = "".join(f'<a href="#{name}">{heading}</a>' for name, heading, _ in sections)
    facts = f'<p class="soft">{" · ".join(part for part in opening if part)}</p>'
    blocks = [
        f"<header><h1>Report of {isolated(report['run'])}</h1>{facts}</header><nav>{links}</nav>",
        *(f'<section id="{name}"><h2>{heading}</h2>\n{body}</section>' for name, heading, body in sections),
    ]
    return document(f"Report of {report['run']}", "\n".join(blocks), style=style, script=script)


def finished_words(report: Report) -> str:
    """When the run ended, as HTML; nothing where that is not known."""
    return f"finished {moment(report['finished_at'])}" if report["finished_at"] else ""


# --- what came of it ---------------------------------------------------------------------------------------------


def verdict(report: Report, metrics: Sequence[str], noun: str) -> str:
    """The verdict, and a table of what stands beside each other; the first of the metrics is drawn as well."""
    card = verdict_card(report["comparison"]["status"], report["verdict"], noun)
    return f"{card}{score_table(compared_scores(report), metrics)}"


def verdict_card(status: str, sentence: str, noun: str) -> str:
    """The sentence of a verdict in the colour of its status."""
    tone, word = VERDICTS[status]
    return (
        f'<article class="verdict {tone}"><span class="tag">{word.format(noun=noun)}</span>'
        f"<p>{escaped(sentence)}</p></article>"
    )


def score_table(compared: Iterable[tuple[str, Mapping[str, Any]]], metrics: Sequence[str]) -> str:
    """Scores with their intervals, a row for each name; the first metric is drawn as well."""
    heads = [
        ("", "name"),
        *((f'{ALL_METRIC_WORDS[metric]} <span class="fixed">(95 %)</span>', "") for metric in metrics),
        (f"{ALL_METRIC_WORDS[metrics[0]]} from 0 to 1", "range"),
    ]
    rows = [
        [
            f'<td class="name">{escaped(name)}</td>',
            *(f"<td>{with_interval(scores, metric)}</td>" for metric in metrics),
            f'<td class="range">{interval_bar(scores, metrics[0])}</td>',
        ]
        for name, scores in compared
    ]
    return table(heads, rows)


def with_interval(scores: Mapping[str, Any], metric: str) -> str:
    """A score and its 95 % interval, which goes into a second line where a phone has no room beside it."""
    bounds = (scores.get("ci95") or {}).get(metric)
    beside = f' <span class="fixed">({decimal(bounds[0])}–{decimal(bounds[1])})</span>' if bounds else ""
    return decimal(scores.get(metric)) + beside


def interval_bar(scores: Mapping[str, Any], metric: str) -> str:
    """A score as a mark on the range from 0 to 1, its 95 % interval as a band."""
    value, bounds = scores.get(metric), (scores.get("ci95") or {}).get(metric)
    if value is None or metric not in SHARES:
        return ""
    low, high = bounds if bounds and None not in bounds else (value, value)
    band = f'<i style="left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%"></i>'
    return f'<span class="interval" aria-hidden="true">{band}<b style="left:{100 * value:.1f}%"></b></span>'


def notes(report: Report) -> str:
    """What holds at the end as a card; below it, openable, what the guards said and took back."""
    held = (
        f'<article class="warning notes">{listed(escaped(note) for note in report["notes"])}</article>'
        if report["notes"]
        else "<p>Nothing to warn of at the end.</p>"
    )
    cleared = [alarm for alarm in report["alarms"] if alarm["cleared"] is not None]
    if not cleared:
        return held
    items = listed(f"{escaped(alarm['message'])} (no longer so in epoch {alarm['cleared']})" for alarm in cleared)
    return f"{held}<details><summary>{counted(len(cleared), 'warning')} during training</summary>{items}</details>"


# --- how it went -------------------------------------------------------------------------------------------------


def curves(pictures: Curves) -> str:
    """Losses and scores per epoch."""
    return (
        f'<div class="curves"><figure>{pictures.losses}</figure><figure>{pictures.scores}</figure></div>'
        '<p class="soft">The loss that is minimised is weighted, smoothed and measured while weights move; the gap is '
        "that between validation and the training sample in evaluation mode.</p>"
    )


def gap(report: Report, history: Sequence[Mapping[str, Any]], noun: str) -> str:
    """The gap of every epoch, and what it was at the best one."""
    if all(row.get("gap") is None for row in history):
        return f"<p>Not measured: this run kept no loss of training {noun}s in evaluation mode.</p>"
    measured = report["gap"]
    if measured["value"] is None:
        at_best = "<p>Not measured at the best epoch."
    else:
        badge = _gap_badge(measured["status"])
        at_best = f"<p>At the best epoch: <strong>{decimal(measured['value'])}</strong> {badge}"
    onset = f" First critical in epoch {whole(measured['onset_epoch'])}." if measured["onset_epoch"] is not None else ""
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
        f"{table(heads, rows, best=_best_row(report, history))}"
        f'<p class="soft">Validation loss minus the loss of a fixed sample of training {noun}s, both plain cross '
        "entropy in evaluation mode, in nats. The epoch that was kept is in bold.</p>"
    )


def _gap_badge(status: str | None) -> str:
    return f'<span class="badge {GAP_TONES.get(status, "info")}">{escaped(status)}</span>' if status else UNKNOWN


def _best_row(report: Report, history: Sequence[Mapping[str, Any]]) -> int | None:
    return next((place for place, row in enumerate(history) if row["epoch"] == report["best_epoch"]), None)


def throughput(report: Report, history: Sequence[Mapping[str, Any]]) -> str:
    """How fast it trained."""
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
    return fact_list(facts) + table(heads, rows, best=_best_row(report, history))


# --- what it was made with ---------------------------------------------------------------------------------------


def configuration(records: RunFiles) -> str:
    """What Hydra composed, and what was typed for it."""
    if not records.config:
        return "<p>Not recorded: this run was not started through Hydra.</p>"
    text = yaml.safe_dump(records.config, sort_keys=False, allow_unicode=True, width=1000)
    typed = "\n".join(map(str, records.overrides))
    overrides = f"<pre>{escaped(typed)}</pre>" if typed else "<p>None.</p>"
    return f"<h3>Overrides</h3>{overrides}<h3>All keys</h3><pre>{escaped(text)}</pre>"


def environment(report: Report) -> str:
    """Machine, versions and what else made the run what it is."""
    hardware, git = report["hardware"], report["git"]
    changes = {True: ", with changes that were not committed", False: "", None: ""}[git.get("dirty")]
    commit = f"<code>{escaped(git['commit'])}</code>{changes}" if git.get("commit") else UNKNOWN
    cores = f", {counted(hardware['cores'], 'core')}" if hardware.get("cores") else ""
    facts = [
        ("command", f"<code>{escaped(report['command'])}</code>" if report["command"] else UNKNOWN),
        ("seed", known(report["seed"])),
        ("commit", commit),
        ("precision", known(report["precision"])),
        ("accelerators", escaped(", ".join(hardware.get("gpus") or [])) or "none"),
        ("processor", known(hardware.get("processor")) + cores),
        ("system", known(hardware.get("platform"))),
        ("started", moment(report["started_at"])),
        ("finished", moment(report["finished_at"])),
        ("parameters", f"{whole(report['parameters']['total'])}, {whole(report['parameters']['trainable'])} trained"),
        ("best checkpoint", known(report["best_checkpoint"])),
        *((escaped(name), known(version)) for name, version in report["versions"].items()),
    ]
    return fact_list(facts)


def files(report: Report, records: RunFiles, report_files: Mapping[str, str], noun: str) -> str:
    """Links that lead from `report/` to what there is when the page is made; file -> words for those beside it."""
    checkpoint = report["best_checkpoint"]
    of_run = {name: words.format(noun=noun) for name, words in RUN_FILES.items()}
    candidates = ({checkpoint: "the best checkpoint"} if checkpoint else {}) | of_run
    found = [(f"../{name}", words) for name, words in candidates.items() if (records.folder / name).is_file()]
    links = [*report_files.items(), *found]
    return listed(
        (f'<a href="{quote(path)}">{escaped(path.removeprefix("../"))}</a>: {words}' for path, words in links), "files"
    )


# --- pieces ------------------------------------------------------------------------------------------------------


def count_table(head: str, counts: Mapping[str, int], total: int, noun: str) -> str:
    """Counts by name, with their share of a total."""
    rows = [
        [
            f'<td class="name">{escaped(name.replace("_", " "))}</td>',
            f"<td>{whole(count)}</td>",
            f"<td>{percent(count / total)}</td>",
            f'<td class="wide">{bar(count / total)}</td>',
        ]
        for name, count in counts.items()
    ]
    return table([(head, "name"), (f"{noun}s", ""), ("share", ""), ("", "wide")], rows)


def table(
    heads: Sequence[tuple[str, str]], rows: Sequence[Row], *, best: int | None = None, is_sortable: bool = False
) -> str:
    """A table in a box that scrolls; `heads` are words and the class of their column, `best` the row in bold."""
    head = "".join(f'<th class="{kind}">{word}</th>' if kind else f"<th>{word}</th>" for word, kind in heads)
    marks = [' class="best"' if place == best else "" for place in range(len(rows))]
    body = "\n".join(f"<tr{mark}>{''.join(row)}</tr>" for mark, row in zip(marks, rows, strict=True))
    box = "scroll tall" if len(rows) > MANY_ROWS else "scroll"
    kind = ' class="sortable"' if is_sortable else ""
    content = f"<table{kind}><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>"
    return f'<div class="{box}" tabindex="0">{content}</div>'


def sortable_cell(value: float | None, shown: str, kind: str = "") -> str:
    """A number by which a table may be sorted, and how it is shown; what is not known comes last. `kind`: its class."""
    of_kind = f' class="{kind}"' if kind else ""
    return f'<td{of_kind} data-value="{"" if value is None else value}">{shown}</td>'


def pair_table(pairs: Sequence[Mapping[str, Any]], truth: str, predicted: str) -> str:
    """Pairs of labels that were confused, with how often; the last two are the heads of their columns."""
    heads = [(truth, "name"), (predicted, "name"), ("times", ""), ("of", ""), ("", "wide")]
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
    return table(heads, rows)


def group_row(name: str, share: float, cells: Sequence[str], *, is_small: bool) -> Row:
    """A row of scores of some documents: their name in HTML, a bar of a share, the other cells; grey where few."""
    few = ' class="few"' if is_small else ""
    return [
        f'<td class="name{" few" if is_small else ""}">{name}</td>',
        f'<td class="wide">{bar(share)}</td>',
        *(f"<td{few}>{cell}</td>" for cell in cells),
    ]


def fact_list(facts: Iterable[tuple[str, str]]) -> str:
    """Names and values, both HTML."""
    return f"<dl>{''.join(f'<dt>{name}</dt><dd>{value}</dd>' for name, value in facts)}</dl>"


def listed(items: Iterable[str], kind: str = "") -> str:
    """A list of HTML items; `kind` is its class."""
    opening = f'<ul class="{kind}">' if kind else "<ul>"
    return f"{opening}{''.join(f'<li>{item}</li>' for item in items)}</ul>"


def known(value: object) -> str:
    """A value as HTML, or the dash of what is not known."""
    return UNKNOWN if value is None else escaped(value)


def moment(stamp: str | None) -> str:
    """A time stamp such as 2026-11-21T06:05:50+00:00 in words that break where they should."""
    return UNKNOWN if stamp is None else escaped(stamp.replace("T", " ").replace("+00:00", " UTC"))
