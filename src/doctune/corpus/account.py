"""The account: every row of the source ends in exactly one row here, used or left out for a named reason."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import Any

from doctune.corpus.splits import PARTS
from doctune.files import written_whole

LEFT_OUT = "left_out"


@dataclass(frozen=True, slots=True)
class AccountRow:
    """What became of one row: `part` is train, val, test or left_out; `status` names the reason's kind."""

    path: str
    label: str
    part: str
    status: str
    reason: str
    group: str


def write_account(rows: Iterable[AccountRow], path: Path) -> None:
    """Write `account.csv`."""
    with (
        written_whole(path) as temporary,
        # Names of files need not be valid UTF-8; they are written as the bytes they are.
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream,
    ):
        writer = csv.writer(stream)
        names = [field.name for field in fields(AccountRow)]
        writer.writerow(names)
        writer.writerows(map(attrgetter(*names), rows))


def totals(rows: Iterable[AccountRow], conflicts: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Totals of an account: parts, reasons, classes per part, duplicates, documents under two labels."""
    parts: Counter[str] = Counter(dict.fromkeys((*PARTS, LEFT_OUT), 0))
    reasons: Counter[str] = Counter()
    members: Counter[str] = Counter()
    class_counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        parts[row.part] += 1
        if row.part == LEFT_OUT:
            reasons[row.status] += 1
        else:
            members[row.group] += 1
            class_counts[row.part][row.label] += 1
    return {
        "rows": parts.total(),
        "parts": dict(parts),
        "left_out_reasons": dict(reasons.most_common()),
        "class_counts": {part: dict(sorted(class_counts[part].items())) for part in PARTS},
        "duplicate_groups": sum(count > 1 for count in members.values()),
        "duplicate_documents": sum(count for count in members.values() if count > 1),
        "conflicting_groups": {group: list(labels) for group, labels in conflicts.items()},
    }
