"""Losses as sums over documents, so that any number of micro-batches can share one normaliser."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def class_weights(kind: str, counts: Sequence[int]) -> Tensor:
    """The weight of each class in the loss, shape (L,).

    balanced: total / (classes × count) (King & Zeng 2001), whose mean over the training documents is 1; none: ones.
    """
    if kind == "none":
        return torch.ones(len(counts))
    occurrences = torch.tensor(counts, dtype=torch.float32)
    return occurrences.sum() / (len(counts) * occurrences)


def cross_entropy_sum(logits: Tensor, targets: Tensor, weights: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Weighted cross entropy summed over the documents, a scalar.

    Args:
        logits: (B, L).
        targets: (B,) label ids.
        weights: (L,) from `class_weights`.
        label_smoothing: share of the target's probability that is spread over all labels (Szegedy et al. 2016).
    """
    return F.cross_entropy(logits, targets, weight=weights, label_smoothing=label_smoothing, reduction="sum")
