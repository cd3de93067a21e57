"""The report of a tuned language model as one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from doctune.reports import sections
from doctune.reports.instruction_records import InstructionRecords
from doctune.reports.numbers import counted, decimal, whole
from doctune.reports.page import escaped, isolated
from doctune.reports.plots import Curves
from doctune.reports.sections import Report
from doctune.reports.summary import compared_scores
from doctune.reports.verdict import PART_WORDS

NOUN = "conversation"
REPORT_FILES = {
    "summary.txt": "this report as plain text, for pasting",
    "report.json": "this report for programs",
    "loss_curves.png": "the picture of the losses",
    "metric_curve.png": "the picture of the perplexity",
}
_SCORES = {
    "loss": "loss per token",
    "perplexity": "perplexity",
    "exact_match": "exact match",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
}


def page(report: Report, records: InstructionRecords, curves: Curves) -> str:
    """The whole page.

    Args:
        report: what `build_report` gives.
        records: the run that it was made from.
        curves: drawn already.
    """
    blocks = [
        ("verdict", "Verdict", _verdict(report)),
        ("notes", "Notes", sections.notes(report)),
        ("curves", "Curves", sections.curves(curves)),
        ("gap", "Gap", _gap(report, records)),
        ("samples", "Sample generations", _samples(report)),
        ("data", "Data account", _data(report)),
        ("throughput", "Throughput", sections.throughput(report, records.history)),
        ("configuration", "Configuration", sections.configuration(records)),
        ("environment", "Environment", sections.environment(report)),
        ("files", "Files of the run", sections.files(report, records, REPORT_FILES, NOUN)),
    ]
    return sections.whole_page(report, _opening(report), blocks, sections.STYLE)


def _opening(report: Report) -> list[str]:
    name = report["model"].get("name")
    return [
        isolated(name) if name else "",
        counted(report[report["part"]]["conversations"], f"{PART_WORDS[report['part']]} conversation"),
        sections.finished_words(report),
    ]


def _verdict(report: Report) -> str:
    tone, word = sections.VERDICTS[report["comparison"]["status"]]
    shown = [name for name in _SCORES if name in report[report["part"]]]
    heads = [("", "name"), *((_SCORES[name], "") for name in shown)]
    rows = [
        [f'<td class="name">{escaped(words)}</td>', *(f"<td>{_cell(scores, name)}</td>" for name in shown)]
        for words, scores in compared_scores(report)
    ]
    return (
        f'<article class="verdict {tone}"><span class="tag">{word.format(noun=NOUN)}</span>'
        f"<p>{escaped(report['verdict'])}</p></article>{sections.table(heads, rows)}"
        '<p class="soft">Scores with 95 % intervals over conversations; losses in nats. Completions are compared with '
        "their references after SQuAD's normalisation, on the prompts that were answered.</p>"
    )


def _cell(scores: Mapping[str, Any], name: str) -> str:
    if scores.get(name) is None:
        return "–"
    low, high = scores["ci95"][name]
    return f'{decimal(scores[name])} <span class="fixed">({decimal(low)}–{decimal(high)})</span>'


def _gap(report: Report, records: InstructionRecords) -> str:
    """Every check with both of its losses, the one that was kept in bold."""
    gap = report["gap"]
    heads = [(word, "") for word in ("step", "epoch", "training sample", "validation", "gap", "status")]
    rows = [
        [
            f"<td>{whole(row['step'])}</td>",
            f"<td>{whole(row['epoch'])}</td>",
            *(f"<td>{decimal(row[name])}</td>" for name in ("train_loss", "val_loss", "gap")),
            f"<td>{escaped(row['gap_status'])}</td>",
        ]
        for row in records.checks
    ]
    best = next((place for place, row in enumerate(records.checks) if row["step"] == report["best_step"]), None)
    kept = (
        "" if gap["value"] is None else f"<p>Of the weights that were kept: <strong>{decimal(gap['value'])}</strong> "
    )
    status = "" if gap["value"] is None else f"({escaped(gap['status'])}).</p>"
    return (
        f"{kept}{status}{sections.table(heads, rows, best=best)}"
        '<p class="soft">Validation loss minus the loss of a fixed sample of training conversations, both plain cross '
        "entropy per token in evaluation mode, in nats.</p>"
    )


def _samples(report: Report) -> str:
    if not report["samples"]:
        return "<p>None: data.generate was 0.</p>"
    return "".join(_sample(sample) for sample in report["samples"])


def _sample(sample: Mapping[str, Any]) -> str:
    rows = {"prompt": "Prompt", "reference": "Reference", "before": "Before training", "after": "After training"}
    texts = "".join(f"<dt>{words}</dt><dd><pre>{escaped(sample[key])}</pre></dd>" for key, words in rows.items())
    losses = f"loss per token {decimal(sample['loss_before'])} before, {decimal(sample['loss'])} after"
    return (
        f"<article><h3>{escaped(sample['place'])}</h3><dl>{texts}</dl>"
        f'<p class="soft">F1 {decimal(sample["f1"])}, {losses}.</p></article>'
    )


def _data(report: Report) -> str:
    account = report["account"]
    parts, reasons = account.get("parts") or {}, account.get("left_out_reasons") or {}
    rows = max(account.get("rows") or sum(parts.values()), 1)
    tokens = account.get("tokens") or {}
    facts = [
        ("rows of the files", whole(account.get("rows"))),
        *((f"tokens to write, {name}", whole(counts["learnt"])) for name, counts in tokens.items()),
        ("groups of copies and near-copies", whole(account.get("duplicate_groups"))),
        ("cut at the longest length", whole(account.get("truncated"))),
    ]
    why = sections.count_table("left out because", reasons, rows, NOUN) if reasons else "<p>No row was left out.</p>"
    return f"{sections.fact_list(facts)}{sections.count_table('part', parts, rows, NOUN)}<h3>Left out</h3>{why}"
