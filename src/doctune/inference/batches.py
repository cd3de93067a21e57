"""Rows of token ids -> batches of similar length, padded.

Shapes: B rows of a batch, T tokens of the longest one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def by_length(rows: Sequence[Sequence[int]], batch_size: int, max_tokens: int | None = None) -> Iterator[list[int]]:
    """Which rows are computed together: those of neighbouring lengths, the shortest first.

    Args:
        rows: the token ids of each.
        batch_size: rows of a batch at most.
        max_tokens: of a batch with its padding; a longer row is computed by itself. None: no limit.
    """
    batch: list[int] = []
    for place in sorted(range(len(rows)), key=lambda place: len(rows[place])):
        num_tokens = (len(batch) + 1) * len(rows[place])
        if batch and (len(batch) == batch_size or (max_tokens is not None and num_tokens > max_tokens)):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def padded(rows: Sequence[Sequence[Any] | NDArray[Any]], fill: int, *, left: bool = False) -> NDArray[np.int64]:
    """The rows as one array (B, T, …), filled up at the end, or on the left."""
    longest = max(len(row) for row in rows)
    array = np.full((len(rows), longest, *np.shape(rows[0])[1:]), fill, dtype=np.int64)
    for number, row in enumerate(rows):
        if left:
            array[number, longest - len(row) :] = row
        else:
            array[number, : len(row)] = row
    return array


def token_batch(rows: Sequence[Sequence[int]], pad_id: int) -> dict[str, NDArray[np.int64]]:
    """What an encoder takes: `input_ids` and `attention_mask`, (B, T) each."""
    return {"input_ids": padded(rows, pad_id), "attention_mask": padded([[1] * len(row) for row in rows], 0)}
