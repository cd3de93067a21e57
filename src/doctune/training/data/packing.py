"""Several sequences in one row, so that little of it is padding.

Shapes: S sequences, R rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Row = tuple[int, ...]


def pack(lengths: Sequence[int] | NDArray[np.int64], row_length: int, seed: int) -> list[Row]:
    """Which sequences go into one row, each exactly once, in rows of at most `row_length` tokens.

    Best fit in random order: each sequence goes into the fullest row that has room for it. Longest first would fill
    rows better, and put long sequences with long ones; the rest of a row is small enough like this.

    Args:
        lengths: of the sequences, (S,), none above `row_length`.
        row_length: tokens of a row.
        seed: of the order.

    Returns:
        the places of the sequences of each row.
    """
    sizes = np.asarray(lengths)
    rows_with_room: dict[int, list[int]] = {}  # room -> rows, so that a search looks at rooms and not at rows
    rows: list[list[int]] = []
    for place in np.random.default_rng(seed).permutation(len(sizes)).tolist():
        size = int(sizes[place])
        room = min((room for room, found in rows_with_room.items() if room >= size and found), default=None)
        if room is None:
            rows.append([])
            number, room = len(rows) - 1, row_length
        else:
            number = rows_with_room[room].pop()
        rows[number].append(place)
        rows_with_room.setdefault(room - size, []).append(number)
    return [tuple(row) for row in rows]
