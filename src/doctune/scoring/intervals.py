"""How sure a score is: percentile bootstrap intervals over documents.

Shapes: N documents, L labels, R resamples, K distinct cells.

The percentile method is Efron's (B. Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics
7, 1979; Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, ch. 13). Drawing N documents with replacement
from a set in which only the pair (truth, prediction) matters is a multinomial draw over the distinct pairs, so a
resample costs K numbers instead of N, and no Python loop runs over resamples.

What the interval does not cover: another training run, another split, documents of a kind that the set lacks. With a
handful of documents per class it is too narrow, and where no document was wrong it has no width at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from doctune.scoring.classification import Counts, Floats, Ids, Statistic, check_ids

RESAMPLES = 1000
LEVEL = 0.95
CHUNK_NUMBERS = 4_000_000  # numbers held at once by one chunk of resamples: 32 MB

Interval = tuple[float, float]
WeightedStatistic = Callable[[Counts], Floats]  # how often each document was drawn (R, N) -> score (R,)


@dataclass(frozen=True)
class Difference:
    """How much higher model A scores than B on the same documents; `low` and `high` bound it at the level asked."""

    value: float
    low: float
    high: float


def bootstrap_interval(
    confusion: Counts, statistic: Statistic, *, seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL
) -> Interval:
    """The percentile interval of a statistic of the confusion matrix `(L, L)`.

    `statistic` maps matrices `(R, L, L)` to `(R,)`: those of `doctune.scoring.classification`, or any other.
    The result depends on nothing but the arguments.

    Raises:
        ValueError: the matrix is empty.
    """
    only = {"statistic": statistic}
    return bootstrap_intervals(confusion, only, seed=seed, resamples=resamples, level=level)["statistic"]


def bootstrap_intervals(
    confusion: Counts,
    statistics: Mapping[str, Statistic],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> dict[str, Interval]:
    """`bootstrap_interval` of several statistics by name, all on the same resamples, which are drawn once.

    Raises:
        ValueError: the matrix is empty.
    """
    confusion = np.asarray(confusion)
    cells, num_labels = np.flatnonzero(confusion), len(confusion)
    counts = confusion.reshape(-1)[cells]
    values: dict[str, list[Floats]] = {name: [] for name in statistics}
    for drawn in _drawn_counts(counts, num_labels**2, resamples=resamples, seed=seed):
        matrices = _tally(drawn, cells, num_labels)
        for name, statistic in statistics.items():
            values[name].append(statistic(matrices))
    return {name: _percentiles(np.concatenate(chunks), level) for name, chunks in values.items()}


def bootstrap_mean_interval(
    values: Floats, *, seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL
) -> Interval:
    """The percentile interval of the mean of one value per document `(N,)`: log loss, exact match, answer F1.

    Raises:
        ValueError: there is no document.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.size == 0:
        raise ValueError("values: there is no document to score.")
    rng = np.random.default_rng(seed)
    means = [
        values[rng.integers(0, len(values), (rows, len(values)))].mean(axis=1) for rows in _rows(len(values), resamples)
    ]
    return _percentiles(np.concatenate(means), level)


def resampled_values(
    num_documents: int, statistics: Mapping[str, WeightedStatistic], *, seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, Floats]:
    """What statistics that need every document are in resamples: areas below curves, calibration errors.

    All are computed on the same resamples. Each takes how often every document was drawn `(R, N)` and gives `(R,)`; a
    resample for which it is NaN, since no document of some label was drawn, is left out of what it returns.

    Raises:
        ValueError: there is no document.
    """
    if num_documents < 1:
        raise ValueError(f"num_documents is {num_documents}: there is no document to score.")
    values: dict[str, list[Floats]] = {name: [] for name in statistics}
    for drawn in _drawn_counts(np.ones(num_documents), num_documents, resamples=resamples, seed=seed):
        for name, statistic in statistics.items():
            values[name].append(statistic(drawn))
    joined = {name: np.concatenate(chunks) for name, chunks in values.items()}
    return {name: array[~np.isnan(array)] for name, array in joined.items()}


def percentile_interval(values: Floats, level: float = LEVEL) -> Interval:
    """The interval that holds the middle share `level` of resampled values.

    Raises:
        ValueError: there is no value.
    """
    if not len(values):
        raise ValueError("values: there is no resample to take percentiles of.")
    return _percentiles(values, level)


def unbiased_interval(value: float, values: Floats, level: float = LEVEL) -> Interval:
    """The percentile interval of resampled values, moved so that their mean is the measured `value`; never below 0.

    A measure of how far something is off, such as a calibration error, is higher in every resample: the noise of the
    draw adds to that of the documents. Its plain percentiles would not even hold the value (Efron & Tibshirani 1993,
    ch. 10, on the bias of a bootstrap).

    Raises:
        ValueError: there is no value.
    """
    low, high = percentile_interval(values, level)
    bias = float(np.mean(values)) - value
    return max(0.0, low - bias), max(0.0, high - bias)


def paired_difference(
    truth: Ids,
    predicted_a: Ids,
    predicted_b: Ids,
    num_labels: int,
    statistic: Statistic,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Difference:
    """By how much A scores higher than B, both judged on the same resampled documents; all arrays are `(N,)`.

    Pairing removes the luck that both share (easy or hard documents), so a difference can be certain although the two
    separate intervals overlap.

    Raises:
        ValueError: lengths differ, there is no document, or an id lies outside 0..L-1.
    """
    triples, counts = _distinct_triples(truth, predicted_a, predicted_b, num_labels)
    cells_a, cells_b = triples[0] * num_labels + triples[1], triples[0] * num_labels + triples[2]

    def difference(drawn: Counts) -> Floats:
        return statistic(_tally(drawn, cells_a, num_labels)) - statistic(_tally(drawn, cells_b, num_labels))

    draws = _drawn_counts(counts, num_labels**2, resamples=resamples, seed=seed)
    low, high = _percentiles(np.concatenate([difference(drawn) for drawn in draws]), level)
    return Difference(value=float(difference(counts[None, :])[0]), low=low, high=high)


def _distinct_triples(truth: Ids, first: Ids, second: Ids, num_labels: int) -> tuple[NDArray[np.int64], Counts]:
    """The distinct (truth, first, second) as `(3, K)`, and how often each occurs `(K,)`."""
    arrays = {"truth": np.asarray(truth), "predictions of A": np.asarray(first), "predictions of B": np.asarray(second)}
    if len({array.shape for array in arrays.values()}) != 1:
        raise ValueError(f"all arrays must be equally long, not {[array.shape for array in arrays.values()]}.")
    for name, array in arrays.items():
        check_ids(name, array, num_labels)
    return np.unique(np.stack(list(arrays.values())).astype(np.int64), axis=1, return_counts=True)


def _drawn_counts(counts: Counts, numbers_per_row: int, *, resamples: int, seed: int) -> Iterator[Counts]:
    """Multinomial resamples `(rows, K)` of the counts `(K,)`, in chunks whose size does not change the draws."""
    num_documents = int(counts.sum())
    if num_documents == 0:
        raise ValueError("the confusion matrix is empty: there is no document to score.")
    rng = np.random.default_rng(seed)
    shares = counts / num_documents
    for rows in _rows(max(numbers_per_row, len(counts)), resamples):
        yield rng.multinomial(num_documents, shares, size=rows)


def _rows(numbers_per_row: int, resamples: int) -> Iterator[int]:
    """Chunk sizes that add up to `resamples` and keep one chunk within CHUNK_NUMBERS."""
    step = max(1, CHUNK_NUMBERS // numbers_per_row)
    for start in range(0, resamples, step):
        yield min(step, resamples - start)


def _tally(drawn: Counts, cells: NDArray[np.int64], num_labels: int) -> Floats:
    """Add the drawn counts `(R, K)` into confusion matrices `(R, L, L)`; several columns may share a cell."""
    size = num_labels**2
    places = np.arange(len(drawn))[:, None] * size + cells[None, :]
    weights = drawn.reshape(-1).astype(np.float64)
    flat = np.bincount(places.reshape(-1), weights=weights, minlength=len(drawn) * size)
    return flat.astype(np.float64, copy=False).reshape(len(drawn), num_labels, num_labels)


def _percentiles(values: Floats, level: float) -> Interval:
    tail = (1 - level) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
