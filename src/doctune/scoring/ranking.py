"""How well probabilities rank documents, one label against the rest: ROC and precision-recall curves, their areas.

A label that no document has, or that all have, has no curve: its values are None, and macro means leave it out.

Shapes: N documents, L labels, K points of a curve, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doctune.scoring.classification import Floats, Ids

Bools = NDArray[np.bool_]
RankScore = Callable[[Bools, Floats], "float | None"]


@dataclass(frozen=True)
class RocCurve:
    """False and true positive rates `(K,)` by falling threshold, from (0, 0) to (1, 1)."""

    false_positive_rate: NDArray[np.float64]
    true_positive_rate: NDArray[np.float64]


@dataclass(frozen=True)
class PrecisionRecallCurve:
    """Precision and recall `(K,)` by falling threshold; recall ends at 1. It begins at the first threshold."""

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]


@dataclass(frozen=True)
class _Ranked:
    """Documents from the highest score on; `last` is the place of the last of each run of equal scores, `(K,)`."""

    order: NDArray[np.intp]
    last: NDArray[np.intp]


def roc_curve(is_positive: Bools, scores: Floats) -> RocCurve | None:
    """The ROC curve of positives against the rest, arrays `(N,)`; None where there are not both.

    Raises:
        ValueError: lengths differ, or a score is not finite.
    """
    hits, totals = _cumulated(is_positive, scores)
    positives, negatives = _both(is_positive)
    if not positives or not negatives:
        return None
    return RocCurve(np.append(0.0, (totals - hits) / negatives), np.append(0.0, hits / positives))


def precision_recall_curve(is_positive: Bools, scores: Floats) -> PrecisionRecallCurve | None:
    """The precision-recall curve of positives, arrays `(N,)`; None without a positive.

    Raises:
        ValueError: lengths differ, or a score is not finite.
    """
    hits, totals = _cumulated(is_positive, scores)
    positives, _ = _both(is_positive)
    return PrecisionRecallCurve(hits / totals, hits / positives) if positives else None


def roc_auc(is_positive: Bools, scores: Floats) -> float | None:
    """The area below the ROC curve: how often a positive has a higher score than a negative, ties counting half.

    Raises:
        ValueError: lengths differ, or a score is not finite.
    """
    curve = roc_curve(is_positive, scores)
    return None if curve is None else float(np.trapezoid(curve.true_positive_rate, curve.false_positive_rate))


def average_precision(is_positive: Bools, scores: Floats) -> float | None:
    """The mean of precision over the steps of recall; no point is interpolated.

    Raises:
        ValueError: lengths differ, or a score is not finite.
    """
    curve = precision_recall_curve(is_positive, scores)
    return None if curve is None else float(np.diff(curve.recall, prepend=0.0) @ curve.precision)


def per_label(truth: Ids, probabilities: Floats, score: RankScore) -> tuple[float | None, ...]:
    """`roc_auc` or `average_precision` of each label against the rest, from truth `(N,)` and scores `(N, L)`."""
    truth, probabilities = np.asarray(truth), np.asarray(probabilities)
    return tuple(score(truth == label, probabilities[:, label]) for label in range(probabilities.shape[1]))


def macro(values: tuple[float | None, ...]) -> float | None:
    """The plain mean of the labels that have a value; None where none has."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


# --- resamples ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RankedLabels:
    """The documents sorted for each label that occurs, once, so that resamples need no sorting; see `rank_labels`."""

    ranked: tuple[_RankedHits, ...]

    def macro_roc_auc(self, weights: Floats) -> Floats:
        """The macro mean of R resamples `(R,)`, given how often each document was drawn, `(R, N)`."""
        return self._macro(weights, _resampled_auc)

    def macro_average_precision(self, weights: Floats) -> Floats:
        """The macro mean of R resamples `(R,)`, given how often each document was drawn, `(R, N)`."""
        return self._macro(weights, _resampled_precision)

    def _macro(self, weights: Floats, score: Callable[[_Drawn], Floats]) -> Floats:
        """Over the labels that have a value in a resample; NaN for a resample in which none has."""
        of_documents = np.ascontiguousarray(np.asarray(weights, dtype=np.int32).T)  # (N, R): rows are gathered whole
        values = np.array([score(_drawn(of_documents, ranked)) for ranked in self.ranked])  # (L, R)
        is_known = ~np.isnan(values)
        counts = is_known.sum(axis=0)
        sums = np.where(is_known, values, 0.0).sum(axis=0)
        return np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)


@dataclass(frozen=True)
class _RankedHits:
    """One label's documents from the highest score on, cut into stretches that have none or only equal scores of hits.

    `order` `(N,)`; `starts` are the places where stretches begin; of the G stretches with hits, `stretches` `(G,)` are
    the numbers, `hits` the documents that are hits, and `first_hits` `(G,)` the places in them of the first of each.
    """

    order: NDArray[np.intp]
    starts: NDArray[np.intp]
    stretches: NDArray[np.intp]
    hits: NDArray[np.intp]
    first_hits: NDArray[np.intp]


@dataclass(frozen=True)
class _Drawn:
    """Of each stretch with hits, in each resample, `(G, R)`: its hits, and documents in it and up to its end.

    `documents` `(R,)` are all that were drawn.
    """

    hits: NDArray[np.int64]
    inside: NDArray[np.int64]
    up_to: NDArray[np.int64]
    documents: NDArray[np.int64]


def rank_labels(truth: Ids, probabilities: Floats) -> RankedLabels:
    """Sort the documents by the probability of each label that occurs; truth is `(N,)`, probabilities are `(N, L)`.

    Raises:
        ValueError: a probability is not finite.
    """
    truth, probabilities = np.asarray(truth), np.asarray(probabilities)
    return RankedLabels(tuple(_ranked_hits(truth == label, probabilities[:, label]) for label in np.unique(truth)))


def _ranked_hits(is_hit: Bools, scores: Floats) -> _RankedHits:
    ranked = _ranked(scores)
    run_of = np.searchsorted(ranked.last, np.arange(len(scores)))  # of each place, its run of equal scores
    places = np.flatnonzero(is_hit[ranked.order])
    runs, first_hits = np.unique(run_of[places], return_index=True)
    begins, ends = np.append(0, ranked.last + 1)[runs], ranked.last[runs] + 1
    starts = np.unique(np.concatenate([[0], begins, ends]))
    starts = starts[starts < len(scores)]
    return _RankedHits(ranked.order, starts, np.searchsorted(starts, begins), ranked.order[places], first_hits)


def _drawn(of_documents: NDArray[np.int32], ranked: _RankedHits) -> _Drawn:
    sums = np.add.reduceat(of_documents[ranked.order], ranked.starts, axis=0).astype(np.int64)
    up_to = np.cumsum(sums, axis=0)
    hits = np.add.reduceat(of_documents[ranked.hits], ranked.first_hits, axis=0).astype(np.int64)
    return _Drawn(hits, sums[ranked.stretches], up_to[ranked.stretches], up_to[-1])


def _resampled_auc(drawn: _Drawn) -> Floats:
    """Of each resample; NaN without positives or without negatives."""
    hits = drawn.hits.sum(axis=0)
    misses = drawn.documents - hits
    misses_up_to = drawn.up_to - np.cumsum(drawn.hits, axis=0)
    beaten = (misses - misses_up_to) + (drawn.inside - drawn.hits) / 2
    return _shares((drawn.hits * beaten).sum(axis=0), hits * misses)


def _resampled_precision(drawn: _Drawn) -> Floats:
    """Of each resample; NaN without positives."""
    precision = np.cumsum(drawn.hits, axis=0) / np.maximum(drawn.up_to, 1)
    return _shares((drawn.hits * precision).sum(axis=0), drawn.hits.sum(axis=0))


def _shares(above: Floats, below: NDArray[np.int64]) -> Floats:
    return np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)


# --- ranks -------------------------------------------------------------------------------------------------------


def _cumulated(is_positive: Bools, scores: Floats) -> tuple[NDArray[Any], NDArray[Any]]:
    """Positives, and documents, that have at least each distinct score, the highest first, `(K,)`."""
    is_positive = np.asarray(is_positive, dtype=bool)
    if is_positive.shape != np.shape(scores) or is_positive.ndim != 1:
        shapes = f"{is_positive.shape}, {np.shape(scores)}"
        raise ValueError(f"positives and scores must be (N,) and equally long, not {shapes}.")
    ranked = _ranked(scores)
    return np.cumsum(is_positive[ranked.order])[ranked.last], ranked.last + 1


def _ranked(scores: Floats) -> _Ranked:
    scores = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(scores).all():
        raise ValueError(f"scores: that of document {int((~np.isfinite(scores)).argmax())} is not finite.")
    order = np.argsort(-scores, kind="stable")
    is_new = np.diff(scores[order]) != 0
    return _Ranked(order, np.append(np.flatnonzero(is_new), len(scores) - 1) if len(scores) else order)


def _both(is_positive: Bools) -> tuple[int, int]:
    positives = int(np.asarray(is_positive, dtype=bool).sum())
    return positives, len(is_positive) - positives
