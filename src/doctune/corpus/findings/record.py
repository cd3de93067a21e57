"""What a finding is, what it is about, and how it is put into words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Literal, Protocol

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")
MAX_EXAMPLES = 5


@dataclass(frozen=True)
class Finding:
    """One kind of thing that was found.

    Attributes:
        kind: a stable name for scripts, such as "exact_duplicates".
        severity: "error" spoils the scores, "warning" wants a decision, "info" is worth knowing.
        message: what was found, why it matters, what to do.
        count: how many of what the message begins with.
        examples: a few, the clearest first; mostly paths.
    """

    kind: str
    severity: Severity
    message: str
    count: int
    examples: tuple[str, ...] = ()


class LabelledText(Protocol):
    """What the audit needs to know of a usable document; `part` is train, val, test, or anything else for none."""

    @property
    def id(self) -> str: ...  # noqa: D102
    @property
    def path(self) -> str: ...  # noqa: D102
    @property
    def label(self) -> str: ...  # noqa: D102
    @property
    def part(self) -> str: ...  # noqa: D102


@dataclass(frozen=True)
class SplitRow:
    """One row of a `splits.parquet`; `fold` is None outside k-fold."""

    id: str
    path: str
    label: str
    part: str
    fold: int | None = None


def printable(text: str) -> str:
    """A path or label that can be shown and written anywhere: what does not print is escaped."""
    shown = text if text.isprintable() else ascii(text)[1:-1]
    return shown.encode("utf-8", "backslashreplace").decode("utf-8")


def examples(lines: Iterable[str]) -> tuple[str, ...]:
    """The first few lines, made printable."""
    return tuple(printable(line) for line in islice(lines, MAX_EXAMPLES))


def counted(number: int, singular: str, plural: str = "") -> str:
    """A number with its noun, in the plural where it is not one."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def places_by_name(names: Iterable[str]) -> dict[str, list[int]]:
    """Where each name stands, in order."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, name in enumerate(names):
        places[name].append(place)
    return places
