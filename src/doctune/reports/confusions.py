"""Which labels a model takes for which.

Shapes: N texts or documents, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

PAIRS = 20

Pair = dict[str, Any]  # truth, predicted, count, and support: how many have the true label


def confused_pairs(confusion: NDArray[np.int64], labels: Sequence[str]) -> list[Pair]:
    """The most frequent mistakes of a confusion matrix (L, L), most frequent first; equal ones in label order."""
    mistakes = confusion - np.diag(np.diag(confusion))
    return _most_frequent(mistakes, confusion.sum(axis=1), labels)


def confused_in_sets(truth: NDArray[np.bool_], said: NDArray[np.bool_], labels: Sequence[str]) -> list[Pair]:
    """The most frequent pairs of a label that was missed and one that was said of the same text and does not apply.

    Args:
        truth: (N, L), whether each label applies.
        said: (N, L), whether the model says so.
        labels: the names.
    """
    missed, wrong = (truth & ~said).astype(np.int64), (said & ~truth).astype(np.int64)
    return _most_frequent(missed.T @ wrong, truth.sum(axis=0), labels)


def _most_frequent(mistakes: NDArray[np.int64], support: NDArray[np.int64], labels: Sequence[str]) -> list[Pair]:
    order = np.argsort(-mistakes, axis=None, kind="stable")[:PAIRS]
    pairs = [divmod(int(cell), len(labels)) for cell in order if mistakes.flat[cell] > 0]
    return [
        {
            "truth": labels[truth],
            "predicted": labels[predicted],
            "count": int(mistakes[truth, predicted]),
            "support": int(support[truth]),
        }
        for truth, predicted in pairs
    ]
