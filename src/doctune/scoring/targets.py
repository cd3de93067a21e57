"""Scores of several targets of the same texts: the mean of their macro F1, how sure it is, and who has more of it.

A resample draws texts, each with all of its targets, since a text that is hard for one head tends to be hard for the
others. A target that a text does not know takes nothing from it; one that no drawn text knows is left out of the mean
of that resample.

Macro F1 is that of `doctune.scoring.multilabel` for targets with any number of labels per text, and that of
`doctune.scoring.classification` for those with one: the mean over all labels, and over those that occur.

Shapes: N texts, L labels of a target, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from doctune.scoring.classification import Counts, Floats
from doctune.scoring.intervals import (
    LEVEL,
    RESAMPLES,
    Difference,
    Interval,
    percentile_interval,
    resampled_values,
)
from doctune.scoring.multilabel import LabelCounts, LabelSets, f1_macro, label_scores


@dataclass(frozen=True)
class JudgedTarget:
    """What is true of one target in all N texts, and what was said of it.

    Attributes:
        truth: (N, L); nothing is read where the target is not known.
        said: (N, L), likewise.
        known: (N,), whether the text knows the target.
        is_multi: whether a text has any number of its labels; else it has one, and one is said.

    Raises:
        ValueError: the arrays do not fit together, or no text knows the target.
    """

    truth: LabelSets
    said: LabelSets
    known: NDArray[np.bool_]
    is_multi: bool

    def __post_init__(self) -> None:
        shapes = [self.truth.shape, self.said.shape, self.known.shape]
        if self.truth.ndim != 2 or shapes != [self.truth.shape, self.truth.shape, self.truth.shape[:1]]:
            raise ValueError(f"truth and said must be (N, L) alike and known (N,), not {shapes}.")
        if not self.known.any():
            raise ValueError("known: no text knows the target.")

    def f1_macro(self) -> float:
        """Macro F1 over the texts that know it."""
        return float(_macro_f1(self)(np.ones((1, len(self.known))))[0])


def mean_f1_macro(targets: Sequence[JudgedTarget]) -> float:
    """The plain mean of the targets' macro F1.

    Raises:
        ValueError: there is no target.
    """
    return float(_mean(targets)(np.ones((1, _num_texts(targets))))[0])


def mean_f1_interval(
    targets: Sequence[JudgedTarget], *, seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL
) -> Interval:
    """The percentile interval of `mean_f1_macro` over texts; see `doctune.scoring.intervals`.

    Raises:
        ValueError: there is no target, or they are not of the same texts.
    """
    statistic = {"mean": _mean(targets)}
    values = resampled_values(_num_texts(targets), statistic, seed=seed, resamples=resamples)["mean"]
    return percentile_interval(values, level)


def paired_difference(
    first: Sequence[JudgedTarget],
    second: Sequence[JudgedTarget],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Difference:
    """By how much the first has a higher mean macro F1 than the second, both judged on the same resampled texts.

    Of a single target, in sequences of one, it is the difference of that target's macro F1.

    Args:
        first: what one model said of each target.
        second: what the other one said of the same targets in the same order.
        seed: of the draws.
        resamples: how many.
        level: of the interval.

    Raises:
        ValueError: there is no target, or the two were not judged by the same truth.
    """
    _require_same_truth(first, second)
    one, other = _mean(first), _mean(second)

    def difference(drawn: Counts) -> Floats:
        lead: Floats = one(drawn) - other(drawn)
        return lead

    num_texts = _num_texts([*first, *second])
    values = resampled_values(num_texts, {"lead": difference}, seed=seed, resamples=resamples)["lead"]
    low, high = percentile_interval(values, level)
    return Difference(float(difference(np.ones((1, num_texts)))[0]), low, high)


def _mean(targets: Sequence[JudgedTarget]) -> Callable[[Counts], Floats]:
    """How often each text was drawn (R, N) -> the mean over the targets that a drawn text knows (R,); NaN without."""
    each = [_macro_f1(target) for target in targets]

    def mean(drawn: Counts) -> Floats:
        scores = np.stack([statistic(drawn) for statistic in each])
        is_known = ~np.isnan(scores)
        counts = is_known.sum(axis=0)
        means = np.full(counts.shape, np.nan)
        return np.divide(np.where(is_known, scores, 0.0).sum(axis=0), counts, out=means, where=counts > 0)

    return mean


def _macro_f1(target: JudgedTarget) -> Callable[[Counts], Floats]:
    """How often each text was drawn (R, N) -> macro F1 (R,); NaN where no drawn text knows the target."""
    truth, said = target.truth[target.known], target.said[target.known]
    stacked = np.concatenate([truth & said, said, truth], axis=1).astype(np.float64)

    def macro_f1(drawn: Counts) -> Floats:
        weights = np.asarray(drawn, dtype=np.float64)[:, target.known]
        counts = LabelCounts(*np.split(weights @ stacked, 3, axis=1))
        scores = f1_macro(counts) if target.is_multi else _f1_of_occurring(counts)
        return np.where(weights.any(axis=1), scores, np.nan)

    return macro_f1


def _f1_of_occurring(counts: LabelCounts) -> Floats:
    occurs = (counts.support + counts.predicted) > 0
    mean: Floats = label_scores(counts).f1.sum(axis=-1) / np.maximum(occurs.sum(axis=-1), 1)
    return mean


def _num_texts(targets: Sequence[JudgedTarget]) -> int:
    sizes = {len(target.known) for target in targets}
    if len(sizes) != 1:
        raise ValueError(f"targets must be one at least and of the same texts, not of {sorted(sizes)} texts.")
    return sizes.pop()


def _require_same_truth(first: Sequence[JudgedTarget], second: Sequence[JudgedTarget]) -> None:
    alike = len(first) == len(second) and all(
        one.is_multi == other.is_multi
        and np.array_equal(one.known, other.known)
        and np.array_equal(one.truth[one.known], other.truth[other.known])
        for one, other in zip(first, second, strict=True)
    )
    if not alike:
        raise ValueError("first and second must hold the same targets with the same truth.")
