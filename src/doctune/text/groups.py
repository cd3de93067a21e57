"""Items that are worked on together, a bounded number at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def bounded_groups(
    items: Iterable[Item], num_chars: Callable[[Item], int], *, max_items: int, max_chars: int
) -> Iterator[list[Item]]:
    """Neighbouring items in their order: at most `max_items`, and no more once they have `max_chars` characters."""
    group: list[Item] = []
    chars = 0
    for item in items:
        group.append(item)
        chars += num_chars(item)
        if len(group) == max_items or chars >= max_chars:
            yield group
            group, chars = [], 0
    if group:
        yield group
