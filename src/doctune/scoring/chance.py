"""What can be reached without reading a document: the level that training must leave behind."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from doctune.scoring.classification import accuracy, f1_macro, f1_mix


def chance_levels(
    train_counts: Sequence[int], counts: Sequence[int], f1_weights: Sequence[float] | None = None
) -> dict[str, float]:
    """Accuracy and macro F1 of always answering with the most frequent training label, and the loss of its shares.

    The loss is the mean cross entropy, in nats, of answering with the shares of the training labels (one document is
    added to each, so that it stays finite). Of equally frequent labels the lowest id is the answer, as in the majority
    baseline.

    Args:
        train_counts: training documents per label, (L,).
        counts: judged documents per label, (L,).
        f1_weights: of the labels, (L,): adds what `f1_mix` is; None: it is not asked for.
    """
    judged = np.asarray(counts)
    confusion = np.zeros((len(judged), len(judged)), dtype=np.int64)
    confusion[:, int(np.argmax(train_counts))] = judged
    shares = (np.asarray(train_counts) + 1) / (sum(train_counts) + len(train_counts))
    mixed = {} if f1_weights is None else {"f1_mix": float(f1_mix(confusion, np.asarray(f1_weights)))}
    return mixed | {
        "accuracy": float(accuracy(confusion)),
        "f1_macro": float(f1_macro(confusion)),
        "loss": float(-(judged * np.log(shares)).sum() / judged.sum()),
    }


def uniform_loss(num_labels: int) -> float:
    """The cross entropy, in nats, of a head that knows nothing yet: ln L."""
    return math.log(num_labels)
