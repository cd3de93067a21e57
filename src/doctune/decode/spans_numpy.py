"""What `decode.spans` does on a device, for inference without torch: start and end logits -> the best spans.

Shapes: B windows, T tokens, L tokens of the longest answer, S spans that are kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from doctune.decode.answers import SpanSettings, WindowSpans

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.integer[Any]]


def best_spans(
    start_logits: Floats, end_logits: Floats, places: Integers, cls: Integers, settings: SpanSettings
) -> WindowSpans:
    """The best spans within the context of each window, of all there are, in characters of the context.

    Args:
        start_logits, end_logits: (B, T).
        places: (B, T, 2), the characters of each token; (-1, -1) for tokens that are not of the context.
        cls: (B,), the token that stands for no answer.
        settings: limits.
    """
    num_tokens, length, count = start_logits.shape[1], settings.max_answer_length, settings.n_best
    rows = np.arange(len(start_logits))[:, None]
    logits = np.stack([start_logits, end_logits])
    inside = np.where((places[:, :, 0] >= 0) & ~np.isnan(logits), logits, -np.inf)
    starts, ends = np.pad(inside, ((0, 0), (0, 0), (0, count + length - 1)), constant_values=-np.inf)
    reached = sliding_window_view(ends, length, axis=1)  # (B, T + S, L)
    firsts = _largest(starts[:, : num_tokens + count] + reached.max(axis=2), count)  # (B, S)
    pairs = (starts[rows, firsts][:, :, None] + reached[rows, firsts]).reshape(len(rows), -1)
    best = _largest(pairs, count)
    chosen = firsts[rows, best // length]
    return WindowSpans(
        pairs[rows, best],
        places[rows, np.minimum(chosen, num_tokens - 1), 0],
        places[rows, np.minimum(chosen + best % length, num_tokens - 1), 1],
        start_logits[rows[:, 0], cls] + end_logits[rows[:, 0], cls],
    )


def _largest(values: Floats, count: int) -> Integers:
    """Where the `count` largest of each row (B, n) are, the largest first; of equal ones the first."""
    return np.argsort(-values, axis=1, kind="stable")[:, :count]
