"""Classes that are empty, tiny or far larger than others, and what gave no document."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doctune.corpus.account import AccountRow
from doctune.corpus.duplicates import DuplicateGroups
from doctune.corpus.findings.lengths import Lengths
from doctune.corpus.findings.record import Finding, LabelledText, Severity, counted, examples, places_by_name
from doctune.corpus.splits import MIN_GROUPS

# From the first ratio on an imbalance is worth knowing, from the second on worth acting on.
_SOME_IMBALANCE, _STRONG_IMBALANCE = 10, 50


def class_table(
    documents: Sequence[LabelledText],
    groups: DuplicateGroups,
    left_out: Sequence[AccountRow],
    labels: Collection[str],
    num_tokens: Lengths,
    is_cut: NDArray[np.bool_],
) -> dict[str, dict[str, Any]]:
    """Per label: its rows, usable documents, different ones (near groups), median tokens and the share cut."""
    places = places_by_name(document.label for document in documents)
    lost = Counter(row.label for row in left_out)
    names = {*labels, *places, *lost} - {""}
    return {
        label: {
            "rows": len(places.get(label, ())) + lost[label],
            "documents": len(places.get(label, ())),
            "different": len({groups.near[place] for place in places.get(label, ())}),
            "median_tokens": int(np.median(num_tokens[places[label]])) if label in places else None,
            "cut_share": round(float(is_cut[places[label]].mean()), 4) if label in places else None,
        }
        for label in sorted(names)
    }


def class_findings(classes: Mapping[str, Mapping[str, Any]], left_out: Sequence[AccountRow] = ()) -> list[Finding]:
    """Classes without documents, with too few to be split, and classes far larger than others."""
    return [*_empty_classes(classes, left_out), *_tiny_classes(classes), *_imbalance(classes)]


def _empty_classes(classes: Mapping[str, Mapping[str, Any]], left_out: Sequence[AccountRow]) -> Iterator[Finding]:
    empty = [label for label, facts in classes.items() if not facts["documents"]]
    if empty:
        reasons: dict[str, Counter[str]] = defaultdict(Counter)
        for row in left_out:
            reasons[row.label][row.status] += 1
        yield Finding(
            "empty_classes",
            "warning",
            f"{counted(len(empty), 'class', 'classes')} without a usable document. A model cannot learn them and "
            "will put their documents elsewhere. Add documents, mend the rows, or do without the class.",
            len(empty),
            examples(f"{label}: {_totals(reasons[label]) or 'no files'}" for label in empty),
        )


def _tiny_classes(classes: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    tiny = {label: facts["different"] for label, facts in classes.items() if 0 < facts["different"] < MIN_GROUPS}
    if tiny:
        yield Finding(
            "tiny_classes",
            "warning",
            f"{counted(len(tiny), 'class', 'classes')} with fewer than {MIN_GROUPS} different documents. Training, "
            "validation and test each need one. Add documents, merge such classes into others, or leave them out "
            "with split.small_classes=drop.",
            len(tiny),
            examples(f"{label}: {counted(count, 'different document')}" for label, count in tiny.items()),
        )


def _imbalance(classes: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    sizes = {label: facts["different"] for label, facts in classes.items() if facts["different"] >= MIN_GROUPS}
    if not sizes:
        return
    largest, smallest = max(sizes, key=lambda label: sizes[label]), min(sizes, key=lambda label: sizes[label])
    ratio = sizes[largest] / sizes[smallest]
    if ratio >= _SOME_IMBALANCE:
        yield Finding(
            "imbalance",
            "warning" if ratio >= _STRONG_IMBALANCE else "info",
            f"{ratio:,.0f} times as many documents in the largest class as in the smallest. Accuracy then says little "
            "of the small classes. Judge by macro F1, add documents of the small ones, or weigh them with "
            "loss.class_weights=balanced.",
            math.floor(ratio),
            examples(f"{label}: {counted(sizes[label], 'different document')}" for label in (largest, smallest)),
        )


def _totals(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.most_common())


# --- what gave no document ---------------------------------------------------------------------------------------

_UNUSABLE_WORDS = {
    "empty": "without text",
    "damaged": "damaged",
    "encrypted": "encrypted",
    "unreadable": "that cannot be read",
    "unsupported": "of a format that is not supported",
    "too_large": "too large",
    "timeout": "that took too long to read",
    "out_of_memory": "that took too much memory to read",
    "crashed": "that crashed the reader",
}


def left_out_findings(left_out: Sequence[AccountRow]) -> list[Finding]:
    """Rows that cannot be used, and files without a text, by status."""
    by_status: dict[str, list[AccountRow]] = defaultdict(list)
    for row in left_out:
        by_status[row.status].append(row)
    found = []
    if rejected := by_status.pop("rejected", []):
        message = "of the source rejected. They are in no part and in no score. Mend the rows or take them out."
        found.append(_left_out_finding("rejected_rows", "warning", rejected, "row", message))
    for status, rows in sorted(by_status.items()):
        if words := _UNUSABLE_WORDS.get(status):
            message = f"{words}. Nothing is learnt there, and such a file will get no label later. Mend or remove."
            found.append(_left_out_finding(f"{status}_files", "warning", rows, "file", message))
        else:  # a choice of the split, such as small_class
            message = f"left out on purpose: {status.replace('_', ' ')}."
            found.append(_left_out_finding(status, "info", rows, "document", message))
    return found


def _left_out_finding(kind: str, severity: Severity, rows: Sequence[AccountRow], noun: str, message: str) -> Finding:
    lines = (f"{row.path}: {row.reason}" if row.reason else row.path for row in rows)
    return Finding(kind, severity, f"{counted(len(rows), noun)} {message}", len(rows), examples(lines))
