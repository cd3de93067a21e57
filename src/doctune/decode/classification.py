"""Logits -> probabilities and labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from doctune.documents import Prediction
from doctune.labels import Labels


def probabilities(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Softmax over the last axis: (N, L) logits -> (N, L) probabilities."""
    shifted = np.asarray(logits, dtype=np.float64)
    exponentials = np.exp(shifted - shifted.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def predictions(logits: NDArray[np.floating], labels: Labels) -> list[Prediction]:
    """The most probable label of each row of logits (N, L); the first one where several are equal."""
    return [
        Prediction(labels.names[row.argmax()], float(row.max()), tuple(row.tolist())) for row in probabilities(logits)
    ]
