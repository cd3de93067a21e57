"""What `decode.spans` does on a device, for inference without torch: start and end logits -> the best spans.

Shapes: B windows, T tokens, K starts and ends that are looked at, S spans that are kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from doctune.decode.answers import SpanSettings, WindowSpans

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.integer[Any]]


def best_spans(
    start_logits: Floats, end_logits: Floats, places: Integers, cls: Integers, settings: SpanSettings
) -> list[WindowSpans]:
    """The best spans within the context of each window, in characters of the context.

    Args:
        start_logits, end_logits: (B, T).
        places: (B, T, 2), the characters of each token; (-1, -1) for tokens that are not of the context.
        cls: (B,), the token that stands for no answer.
        settings: limits.
    """
    rows = np.arange(len(start_logits))[:, None]
    context = places[:, :, 0] >= 0
    starts = _largest(np.where(context, start_logits, -np.inf), settings.top_k)  # (B, K)
    ends = _largest(np.where(context, end_logits, -np.inf), settings.top_k)
    length = ends[:, None, :] - starts[:, :, None] + 1  # (B, K, K)
    allowed = (length > 0) & (length <= settings.max_answer_length)
    allowed &= context[rows, starts][:, :, None] & context[rows, ends][:, None, :]
    pairs = start_logits[rows, starts][:, :, None] + end_logits[rows, ends][:, None, :]
    flat = np.where(allowed, pairs, -np.inf).reshape(len(rows), -1)
    best = _largest(flat, settings.n_best)  # (B, S)
    firsts = places[rows, starts[rows, best // ends.shape[1]], 0]
    lasts = places[rows, ends[rows, best % ends.shape[1]], 1]
    nulls = start_logits[rows[:, 0], cls] + end_logits[rows[:, 0], cls]
    return [WindowSpans(*each) for each in zip(flat[rows, best], firsts, lasts, nulls.tolist(), strict=True)]


def _largest(values: Floats, count: int) -> Integers:
    """Where the `count` largest of each row (B, n) are, the largest first; of equal ones the first."""
    return np.argsort(-values, axis=1, kind="stable")[:, :count]
