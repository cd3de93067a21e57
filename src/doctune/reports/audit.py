"""The findings of an audit for people: a page of plain text, and an HTML page that needs nothing but itself."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from doctune.reports.numbers import counted, whole
from doctune.reports.page import bar, document, escaped, isolated

WIDTH = 100
INDENT = 9
MAX_CLASS_LINES = 16
EXAMPLES_IN_TEXT = 3
SEVERITY_WORDS = {"error": "error", "warning": "warning", "info": "note"}
Report = Mapping[str, Any]


# --- plain text --------------------------------------------------------------------------------------------------


def summarize(report: Report) -> str:
    """The text made from the JSON of an audit (`Audit.to_dict`), at most 100 columns wide but for long paths."""
    blocks = [
        [f"doctune audit: {report['source']}", *_wrapped(_size_sentence(report), "  ")],
        [f"  {_verdict(report)}"],
        *(_finding_lines(report, finding) for finding in report["findings"]),
        _class_lines(report["classes"]),
        _length_lines(report["lengths"]),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def _size_sentence(report: Report) -> str:
    classes = sum(facts["documents"] > 0 for facts in report["classes"].values())
    bound = report["lengths"]["read_up_to_chars"]
    compared = f" (compared in their first {bound:,} characters)" if bound else ""
    return (
        f"{counted(report['rows'], 'row')}, {counted(report['documents'], 'usable document')} in "
        f"{counted(classes, 'class', 'classes')}; without copies and near-copies {report['different']:,}"
        f"{compared}"
    )


def _verdict(report: Report) -> str:
    totals = [(word, report["totals"][name]) for name, word in SEVERITY_WORDS.items() if report["totals"][name]]
    return ", ".join(counted(count, word) for word, count in totals) or "nothing found"


def _finding_lines(report: Report, finding: Mapping[str, Any]) -> list[str]:
    word = SEVERITY_WORDS[finding["severity"]].upper()
    lines = textwrap.wrap(finding["message"], WIDTH - INDENT)
    lines = [f"{word if place == 0 else '':<{INDENT}}{line}" for place, line in enumerate(lines)]
    examples = [_shortened(report, example) for example in finding["examples"]]
    lines += [f"{'':<{INDENT}}  {example}" for example in examples[:EXAMPLES_IN_TEXT]]
    return lines


def _class_lines(classes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The largest classes, and of many the smallest too."""
    ordered = _by_size(classes)
    width = max((len(label) for label, _ in ordered), default=0)
    width = max(min(width, 40), len("class"))
    lines = [
        f"  {label[:width]:<{width}}  {facts['documents']:>9,}  {facts['different']:>9,}  "
        f"{whole(facts['median_tokens']):>13}  {_share(facts['cut_share']):>5}"
        for label, facts in ordered
    ]
    if len(lines) > MAX_CLASS_LINES:
        half = MAX_CLASS_LINES // 2
        lines = [*lines[:half], f"  … {len(lines) - 2 * half:,} more classes", *lines[-half:]]
    head = f"  {'class':<{width}}  {'documents':>9}  {'different':>9}  {'median tokens':>13}  {'cut':>5}"
    return [head, *lines] if lines else []


def _length_lines(lengths: Mapping[str, Any]) -> list[str]:
    if not lengths["characters"]:
        return []
    names = list(lengths["characters"])
    lines = ["  length      " + "".join(f"{name:>10}" for name in names)]
    for kind in ("characters", "tokens"):
        lines.append(f"  {kind:<12}" + "".join(f"{lengths[kind][name]:>10,}" for name in names))
    return [*lines, *_wrapped(_length_note(lengths), "  ")]


def _length_note(lengths: Mapping[str, Any]) -> str:
    share = _share(lengths["cut_share"])
    note = f"Tokens by {lengths['counted_by']}; a window of {lengths['max_length']:,} cuts {share} of the documents."
    if lengths["at_that_bound"]:
        note += (
            f" Files were read up to {lengths['read_up_to_chars']:,} characters, which "
            f"{counted(lengths['at_that_bound'], 'document')} reached: those are longer than the table says."
        )
    return note


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent)


def _by_size(classes: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    return sorted(classes.items(), key=lambda item: (-item[1]["documents"], item[0]))


def _shortened(report: Report, example: str) -> str:
    """An example without the folder that all documents share."""
    root = report["root"]
    return example.replace(root.rstrip(os.sep) + os.sep, "") if len(root) > 1 else example


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


# --- HTML --------------------------------------------------------------------------------------------------------


def page(report: Report) -> str:
    """The HTML made from the JSON of an audit; no script, no file beside it, every text escaped."""
    title = f"Audit of {report['source']}"
    body = "\n".join(
        [
            f"<h1>{escaped(title)}</h1>",
            f'<p class="soft">{escaped(_size_sentence(report))}</p>',
            *_totals(report),
            *(_card(report, finding) for finding in report["findings"]),
            *_class_table(report["classes"]),
            *_length_table(report["lengths"]),
        ]
    )
    return document(title, body)


def _totals(report: Report) -> Iterator[str]:
    if not report["findings"]:
        yield "<p>Nothing found.</p>"
        return
    items = (
        f'<li class="{severity}"><span class="tag">{counted(report["totals"][severity], word)}</span></li>'
        for severity, word in SEVERITY_WORDS.items()
        if report["totals"][severity]
    )
    yield f'<ul class="totals">{"".join(items)}</ul>'


def _card(report: Report, finding: Mapping[str, Any]) -> str:
    severity = finding["severity"]
    heading = f"{SEVERITY_WORDS[severity]} · {finding['kind'].replace('_', ' ')}"
    return (
        f'<article class="{severity}"><span class="tag">{escaped(heading)}</span>'
        f"<p>{escaped(finding['message'])}</p>{_example_list(report, finding)}</article>"
    )


def _example_list(report: Report, finding: Mapping[str, Any]) -> str:
    examples = [f"<li>{escaped(_shortened(report, example))}</li>" for example in finding["examples"]]
    if not examples:
        return ""
    # What spoils the scores is shown at once; the rest opens on demand.
    is_open = " open" if finding["severity"] != "info" else ""
    return f"<details{is_open}><summary>Examples</summary><ul>{''.join(examples)}</ul></details>"


def _class_table(classes: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    ordered = _by_size(classes)
    largest = max((facts["documents"] for _, facts in ordered), default=0)
    if not largest:
        return
    yield "<h2>Classes</h2>"
    yield '<div class="scroll"><table><thead><tr><th>class</th><th class="wide"></th><th>documents</th>'
    yield "<th>different</th><th>median tokens</th><th>cut</th></tr></thead><tbody>"
    for label, facts in ordered:
        yield (
            f'<tr><td class="name">{isolated(label)}</td><td class="wide">{bar(facts["documents"] / largest)}</td>'
            f"<td>{facts['different']:,}</td><td>{whole(facts['median_tokens'])}</td>"
            f"<td>{_share(facts['cut_share'])}</td></tr>"
        )
    yield "</tbody></table></div>"


def _length_table(lengths: Mapping[str, Any]) -> Iterator[str]:
    if not lengths["characters"]:
        return
    yield "<h2>Lengths</h2>"
    names = "".join(f"<th>{name}</th>" for name in lengths["characters"])
    yield f'<div class="scroll"><table><thead><tr><th></th>{names}</tr></thead><tbody>'
    for kind in ("characters", "tokens"):
        cells = "".join(f"<td>{value:,}</td>" for value in lengths[kind].values())
        yield f"<tr><td>{kind}</td>{cells}</tr>"
    yield f'</tbody></table></div><p class="soft">{escaped(_length_note(lengths))}</p>'
