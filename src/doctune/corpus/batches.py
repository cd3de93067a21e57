"""`itertools.batched`, which Python has from 3.12 on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

Value = TypeVar("Value")


def batched(values: Iterable[Value], size: int) -> Iterator[list[Value]]:
    """Values in order, `size` at a time; the last ones may be fewer."""
    iterator = iter(values)
    while some := [*islice(iterator, size)]:
        yield some
