"""What the folds of a multirun say together, as one HTML page: no network, no JavaScript, no file beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from doctune.reports.folds_page import (
    TARGET_HEADS,
    Results,
    articles_sentence,
    fold_heads,
    fold_rows,
    judged_words,
    missing_sentence,
    pooled_sentence,
    result_sentence,
    suspects_sentence,
    target_rows,
    ways_on,
    why_no_suspects,
    with_interval,
    wording,
)
from doctune.reports.html import STYLE as REPORT_STYLE
from doctune.reports.numbers import decimal, percent, whole
from doctune.reports.page import bar, document, escaped, isolated, path_code
from doctune.reports.reader_summary import HALVES
from doctune.reports.suspects import Suspect

MAX_SUSPECTS = 100
MANY_ROWS = 30  # a longer table scrolls in its box
STYLE = (
    REPORT_STYLE
    + """
td.name code { color: var(--ink); }
@media (max-width: 40rem) { figure svg { max-width: none; width: 32rem; } td.name { min-width: 4.5rem; }
  th + th { overflow-wrap: anywhere; } }
"""
)


def page(
    results: Results,
    suspects: Sequence[Suspect] | None,
    directory: Path,
    pictures: Mapping[str, str],
    files: Mapping[str, str],
) -> str:
    """The whole page.

    Args:
        results: the content of `kfold_results.json`.
        suspects: None where they were not looked for.
        directory: the multirun's folder, above `kfold/`.
        pictures: SVG elements.
        files: those in `kfold/`, with what each is.
    """
    classes = [("classes", "Out-of-fold scores per class", _classes(results))] if wording(results).has_labels else []
    sections = [
        ("result", "Result", _result(results, directory)),
        ("folds", "Folds", _folds(results, directory)),
        ("pooled", "Out-of-fold scores", _pooled(results)),
        *classes,
        *([("targets", "Targets", _targets(results))] if "targets" in results else []),
        ("curves", "Curves", _curves(pictures)),
        ("labels", "Suspect labels", _suspects(results, suspects)),
        ("files", "Files", _files(files)),
    ]
    links = "".join(f'<a href="#{name}">{heading}</a>' for name, heading, _ in sections)
    title = f"Folds of {'/'.join(directory.resolve().parts[-3:])}"
    blocks = [
        f"<header><h1>{isolated(title)}</h1></header><nav>{links}</nav>",
        *(f'<section id="{name}"><h2>{heading}</h2>\n{body}</section>' for name, heading, body in sections),
    ]
    return document(title, "\n".join(blocks), style=STYLE)


def _result(results: Results, directory: Path) -> str:
    """Mean and spread as a card, and below it which folds are missing."""
    missing, of_all = results["missing"], results["num_folds"]
    tone = "success" if not missing else "error" if len(missing) == of_all else "warning"
    word = "incomplete" if missing else "complete"
    card = (
        f'<article class="verdict {tone}"><span class="tag">{word}</span>'
        f"<p>{escaped(result_sentence(results))}</p></article>"
    )
    if not missing:
        return card
    start, resume = ways_on(directory)
    return (
        f'{card}<article class="warning"><p>{escaped(missing_sentence(results))}</p>'
        f"<p>Start the same multirun again with <code>{escaped(start)}</code> or, where multirun.yaml is in it: "
        f"<code>{escaped(resume)}</code></p></article>"
    )


def _folds(results: Results, directory: Path) -> str:
    folders = {row["fold"]: row["path"] for row in results["folds"]}
    rows = [
        [
            f"<td>{_fold_link(number, folders.get(number), directory)}</td>",
            f'<td class="name">{escaped(status)}</td>',
            *(f"<td>{decimal(value)}</td>" for value in values),
        ]
        for number, status, values in fold_rows(results)
    ]
    return _table([("fold", ""), ("status", "name"), *((head, "") for head in fold_heads(results))], rows)


def _fold_link(number: int, folder: str | None, directory: Path) -> str:
    """The number of a fold, as a link to the report of its run where there is one."""
    if folder is None or not (directory / folder / "report/index.html").is_file():
        return str(number)
    return f'<a href="../{quote(folder)}/report/index.html">{number}</a>'


def _pooled(results: Results) -> str:
    scores, words = results["oof"], wording(results)
    if scores is None:
        return f"<p>{pooled_sentence(results)}</p>"
    rows = [_pooled_row(name, scores, metric) for metric, name in words.metrics.items() if metric in scores]
    rows += [
        [f'<td class="name">top-{k} accuracy</td>', f'<td class="wide">{bar(share)}</td>', f"<td>{decimal(share)}</td>"]
        for k, share in scores.get("top_k_accuracy", {}).items()
    ]
    rows += [
        _pooled_row(f"{name}, {scores[half]['questions']:,} {of_half}", scores[half], metric)
        for half, of_half in HALVES.items()
        if half in scores
        for metric, name in words.metrics.items()
    ]
    caveat = articles_sentence(results) or words.unit
    about = f"On {judged_words(results)}; intervals over {words.noun}s. {caveat}".rstrip()
    return f'{_table([("", "name"), ("", "wide"), ("score (95 % interval)", "")], rows)}<p class="soft">{about}</p>'


def _pooled_row(words: str, scores: Mapping[str, Any], metric: str) -> list[str]:
    """A score with its bar; a loss, which can be above 1, has none."""
    return [
        f'<td class="name">{words}</td>',
        f'<td class="wide">{"" if metric in ("log_loss", "loss", "perplexity") else bar(scores[metric])}</td>',
        f"<td>{with_interval(scores, metric)}</td>",
    ]


def _classes(results: Results) -> str:
    """Every class, the lowest F1 first; at the end those without a document."""
    if not results["per_class"]:
        return f"<p>{pooled_sentence(results)}</p>"
    return f'{_label_table(results["per_class"], "class", "documents")}<p class="soft">The lowest F1 first.</p>'


def _targets(results: Results) -> str:
    """Mean, spread and out-of-fold score of every target, then its labels."""
    scores = [results["oof"], *(found["oof"] for found in results["targets"].values())]
    rows = [
        [
            f'<td class="name">{isolated(name)}</td>',
            *(f"<td>{cell}</td>" for cell in cells),
            f'<td class="wide">{bar(judged["f1_macro"]) if judged else ""}</td>',
        ]
        for (name, cells), judged in zip(target_rows(results), scores, strict=True)
    ]
    heads = [("macro F1", "name"), *((head, "") for head in TARGET_HEADS), ("", "wide")]
    tables = [
        f"<h3>{isolated(name)}</h3>{_label_table(found['per_label'], 'label', 'texts')}"
        for name, found in results["targets"].items()
        if found["per_label"]
    ]
    return (
        f'{_table(heads, rows)}<p class="soft">Mean ± standard deviation over the folds: val in the epoch that a fold '
        "kept, test of its own test part. Out-of-fold: of all texts together, with 95 % intervals; the bar is from 0 "
        "to 1. So are the labels below, the lowest F1 first.</p>"
        f"{''.join(tables)}"
    )


def _label_table(labels: Sequence[Mapping[str, Any]], label: str, judged: str) -> str:
    """Labels with their scores, the lowest F1 first; at the end those that none of what was judged has."""
    heads = [(label, "name"), ("", "wide"), *((word, "") for word in ("F1", "precision", "recall", judged))]
    ordered = sorted(labels, key=lambda row: (row["support"] == 0, row["f1"], row["label"]))
    rows = [
        [
            f'<td class="name">{isolated(row["label"])}</td>',
            f'<td class="wide">{bar(row["f1"])}</td>',
            *(f"<td>{decimal(row[name] if row['support'] else None)}</td>" for name in ("f1", "precision", "recall")),
            f"<td>{whole(row['support'])}</td>",
        ]
        for row in ordered
    ]
    return _table(heads, rows)


def _curves(pictures: Mapping[str, str]) -> str:
    if not pictures:
        return "<p>No fold has been validated yet.</p>"
    return f'<div class="curves">{"".join(f"<figure>{picture}</figure>" for picture in pictures.values())}</div>'


def _suspects(results: Results, suspects: Sequence[Suspect] | None) -> str:
    """The labels that are most probably wrong, or why there are none."""
    reason, command = why_no_suspects(results, suspects)
    if not suspects:
        return f"<p>{escaped(reason)}{f' <code>{escaped(command)}</code>' if command else ''}</p>"
    rows = [
        [
            f'<td class="name">{path_code(suspect.path)}</td>',
            _suspect_cell(suspect.label, suspect.label_probability),
            _suspect_cell(suspect.suggested_label, suspect.suggested_probability),
        ]
        for suspect in suspects[:MAX_SUSPECTS]
    ]
    shown = f" These are the first {MAX_SUSPECTS}; suspect_labels.csv has all." if len(suspects) > MAX_SUSPECTS else ""
    return (
        f"{_table([('document', 'name'), ('given', 'name'), ('suggested', 'name')], rows)}"
        f'<p class="soft">{suspects_sentence(suspects)}. Beside each label is the probability that a model gives it '
        f"that has not seen the document; the least probable given label first.{shown}</p>"
    )


def _suspect_cell(label: str, probability: float) -> str:
    return f'<td class="name">{isolated(label)} <span class="soft fixed">({percent(probability)})</span></td>'


def _files(files: Mapping[str, str]) -> str:
    items = "".join(f'<li><a href="{quote(name)}">{escaped(name)}</a>: {words}</li>' for name, words in files.items())
    return f'<ul class="files">{items}</ul>'


def _table(heads: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]]) -> str:
    """A table in a box that scrolls; `heads` are words and the class of their column, `rows` cells with their <td>."""
    head = "".join(f'<th class="{kind}">{escaped(word)}</th>' for word, kind in heads)
    body = "\n".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    box = "scroll tall" if len(rows) > MANY_ROWS else "scroll"
    return (
        f'<div class="{box}" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'
    )
