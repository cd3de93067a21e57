"""Logits of several targets -> probabilities and labels.

Shapes: N texts, L labels of a target.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from doctune.corpus.targets import TargetSpec
from doctune.decode.classification import probabilities as softmax

DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True)
class TargetPrediction:
    """What a model says of one target of one text.

    Attributes:
        target: its name.
        labels: the label of a single-label target; of a multi-label one those that apply, the most probable first, ()
            where none does.
        probabilities: of all labels, in label order; those of a multi-label target do not add up to 1.
    """

    target: str
    labels: tuple[str, ...]
    probabilities: tuple[float, ...]


def target_probabilities(target: TargetSpec, logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Softmax of a single-label target's logits (N, L), a sigmoid of each label of a multi-label one, (N, L)."""
    return sigmoid(logits) if target.is_multi else softmax(logits)


def sigmoid(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """1 / (1 + exp(-x)) of each element, in double precision and without overflow."""
    values = np.asarray(logits, dtype=np.float64)
    small = np.exp(-np.abs(values))
    return np.where(values >= 0, 1.0, small) / (1.0 + small)


def target_predictions(
    target: TargetSpec, logits: NDArray[np.floating], thresholds: Sequence[float] | None = None
) -> list[TargetPrediction]:
    """What the logits (N, L) of a target say of each text.

    Args:
        thresholds: (L,), the probability from which on a label of a multi-label target applies; None: 0.5 for all. A
            single-label target takes none: its most probable label is predicted, the first one where several are equal.
    """
    chances = target_probabilities(target, logits)
    if target.is_multi:
        limits = np.full(len(target.labels), DEFAULT_THRESHOLD) if thresholds is None else np.asarray(thresholds)
        chosen = [_applying(row, limits) for row in chances]
    else:
        chosen = [[int(row.argmax())] for row in chances]
    return [
        TargetPrediction(target.name, tuple(target.labels.names[label] for label in labels), tuple(row.tolist()))
        for labels, row in zip(chosen, chances, strict=True)
    ]


def multi_task_predictions(
    targets: Sequence[TargetSpec],
    logits: Sequence[NDArray[np.floating]],
    thresholds: Mapping[str, Sequence[float]],
) -> list[tuple[TargetPrediction, ...]]:
    """What several heads say of each text, in the order of the targets.

    Args:
        targets: in the order of the heads.
        logits: (N, L) for each target.
        thresholds: of multi-label targets, by name; those that are not there have 0.5.
    """
    by_target = [
        target_predictions(target, scores, thresholds.get(target.name))
        for target, scores in zip(targets, logits, strict=True)
    ]
    return list(zip(*by_target, strict=True))


def _applying(chances: NDArray[np.float64], limits: NDArray[np.float64]) -> list[int]:
    falling = np.argsort(-chances, kind="stable")
    return [int(label) for label in falling if chances[label] >= limits[label]]
