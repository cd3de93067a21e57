"""Whether probabilities can be trusted: calibration, temperature, and what a threshold on the score buys.

The score of a document is the probability of its predicted label. Calibrated scores are shares: of the documents with
a score of 0.8, eight in ten are right.

Shapes: N documents, L labels, B bins, K distinct scores.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doctune.scoring.classification import Floats, Ids

BINS = 15  # as in Guo et al. 2017
# Temperatures outside these bounds answer for no model: the search has run away.
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.05, 20.0
_HALVINGS = 60  # of the bounds' ratio of 400: far below 1e-6
# A probability that float32 holds as 0 was no larger than this.
_SMALLEST = float(np.finfo(np.float32).tiny)

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class ReliabilityBin:
    """The documents whose score lies in (`low`, `high`]; `score` and `accuracy` are their means, None without any."""

    low: float
    high: float
    count: int
    score: float | None
    accuracy: float | None


@dataclass(frozen=True)
class TemperatureFit:
    """The temperature with the lowest log loss on so many documents, and that loss before and after, in nats.

    `problem` says why there is none, and the temperature is then 1, which changes nothing; "" where there is one. The
    losses are None without documents.
    """

    temperature: float
    documents: int
    log_loss_before: float | None
    log_loss_after: float | None
    problem: str = ""


@dataclass(frozen=True)
class CoverageCurve:
    """What is kept, and how much of it is right, where only scores of at least a threshold are accepted.

    Arrays `(K,)`, the highest threshold first: `coverage` is the share kept, `accuracy` that of the kept ones.
    """

    thresholds: NDArray[np.float64]
    coverage: NDArray[np.float64]
    accuracy: NDArray[np.float64]


@dataclass(frozen=True)
class Kept:
    """The documents with a score of at least a threshold: how many, their share, and the accuracy among them."""

    documents: int
    coverage: float
    accuracy: float | None


def scores_of(truth: Ids, probabilities: Floats) -> tuple[NDArray[np.float64], Bools]:
    """The score `(N,)` of each document's predicted label, and whether that label is the true one.

    Raises:
        ValueError: the arrays do not fit together, or there is no document.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    if probabilities.ndim != 2 or len(probabilities) != len(truth):
        raise ValueError(f"probabilities must be (N, L) with N = {len(truth)}, not {probabilities.shape}.")
    if not len(truth):
        raise ValueError("probabilities: there is no document.")
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == np.asarray(truth)


# --- calibration -------------------------------------------------------------------------------------------------


def bin_numbers(scores: Floats, bins: int = BINS) -> NDArray[np.int64]:
    """The bin `(N,)` of each score among equally wide ones (0, 1/B], (1/B, 2/B], …; a score of 0 is in the first."""
    return np.clip(np.ceil(np.asarray(scores, np.float64) * bins).astype(np.int64) - 1, 0, bins - 1)


def reliability_bins(scores: Floats, is_right: Bools, bins: int = BINS) -> tuple[ReliabilityBin, ...]:
    """Score and accuracy of equally wide bins: the diagram of DeGroot & Fienberg 1983, as Guo et al. 2017 draw it."""
    scores, is_right = np.asarray(scores, np.float64), np.asarray(is_right)
    places = bin_numbers(scores, bins)
    return tuple(
        ReliabilityBin(number / bins, (number + 1) / bins, *_means(scores[inside], is_right[inside]))
        for number, inside in ((number, places == number) for number in range(bins))
    )


def expected_calibration_error(scores: Floats, is_right: Bools, bins: int = BINS) -> float:
    """The mean distance of score and accuracy over equally wide bins, weighted by their documents.

    The measure is that of M. P. Naeini, G. F. Cooper and M. Hauskrecht, "Obtaining Well Calibrated Probabilities Using
    Bayesian Binning", AAAI 2015. With few documents it is above 0 even for a perfectly calibrated model.
    """
    surplus = np.asarray(is_right, np.float64) - np.asarray(scores, np.float64)
    sums = np.bincount(bin_numbers(scores, bins), weights=surplus, minlength=bins)
    return float(np.abs(sums).sum() / len(surplus))


def adaptive_calibration_error(scores: Floats, is_right: Bools, bins: int = BINS) -> float:
    """The same over bins of equally many documents, so that no bin is nearly empty (Nguyen & O'Connor, EMNLP 2015).

    Documents with equal scores may stand in neighbouring bins, in their order.
    """
    order = np.argsort(scores, kind="stable")
    surplus = (np.asarray(is_right, np.float64) - np.asarray(scores, np.float64))[order]
    return float(sum(abs(part.sum()) for part in np.array_split(surplus, min(bins, len(surplus)))) / len(surplus))


def resampled_calibration_errors(scores: Floats, is_right: Bools, weights: Floats, bins: int = BINS) -> Floats:
    """`expected_calibration_error` of R resamples `(R,)`, given how often each document was drawn, `(R, N)`."""
    surplus = np.asarray(is_right, np.float64) - np.asarray(scores, np.float64)
    in_bins = np.zeros((len(surplus), bins))
    in_bins[np.arange(len(surplus)), bin_numbers(scores, bins)] = surplus
    errors: Floats = np.abs(weights @ in_bins).sum(axis=1) / weights.sum(axis=1)
    return errors


def _means(scores: Floats, is_right: Bools) -> tuple[int, float | None, float | None]:
    if not len(scores):
        return 0, None, None
    return len(scores), float(scores.mean()), float(is_right.mean())


# --- temperature -------------------------------------------------------------------------------------------------


def apply_temperature(probabilities: Floats, temperature: float) -> NDArray[np.float64]:
    """softmax(log p / T) of `(N, L)`: above 1 all scores come nearer to each other; the order of labels stays.

    It equals softmax(logits / T), since the logarithm gives the logits back up to a constant per document.
    """
    return _softmax(_log(probabilities) / temperature)


def fit_temperature(truth: Ids, probabilities: Floats) -> TemperatureFit:
    """The T that minimises the log loss of softmax(log p / T), exact to 1e-6.

    The method is that of C. Guo, G. Pleiss, Y. Sun and K. Q. Weinberger, "On Calibration of Modern Neural Networks",
    ICML 2017. The loss is convex in 1/T, so its slope is bisected. Give it validation data, and judge on other data.

    Args:
        truth: label ids, (N,).
        probabilities: before any scaling, (N, L); rows that are not finite are passed over.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    is_known = np.isfinite(probabilities).all(axis=1)
    truth, logits = np.asarray(truth)[is_known], _log(probabilities[is_known])
    if not len(truth):
        return TemperatureFit(1.0, 0, None, None, "there is no validation document to fit it on")
    before = _loss(logits, truth, 1.0)
    problem = _runs_away(logits, truth)
    if problem:
        return TemperatureFit(1.0, len(truth), before, before, problem)
    temperature = 1 / _root(logits, truth)
    return TemperatureFit(temperature, len(truth), before, _loss(logits, truth, temperature))


def _runs_away(logits: Floats, truth: Ids) -> str:
    """Why no temperature within the bounds is the best; "" where one is."""
    if logits.shape[1] < 2:
        return "there is one label only"
    if _slope(logits, truth, 1 / LOWEST_TEMPERATURE) <= 0:
        if (logits.argmax(axis=1) == truth).all():
            return "no validation document was wrong, so nothing says how unsure the model should be"
        return "the validation documents would have the model surer than any temperature makes it"
    if _slope(logits, truth, 1 / HIGHEST_TEMPERATURE) >= 0:
        return "on the validation documents the probabilities say nothing of the labels"
    return ""


def _root(logits: Floats, truth: Ids) -> float:
    """The inverse temperature at which the slope is 0; both bounds have been checked."""
    low, high = math.log(1 / HIGHEST_TEMPERATURE), math.log(1 / LOWEST_TEMPERATURE)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _slope(logits, truth, math.exp(middle)) < 0 else (low, middle)
    return math.exp((low + high) / 2)


def _slope(logits: Floats, truth: Ids, inverse: float) -> float:
    """The derivative of the mean log loss by the inverse temperature: expected minus true logit."""
    expected = (_softmax(logits * inverse) * logits).sum(axis=1)
    return float((expected - logits[np.arange(len(truth)), truth]).mean())


def _loss(logits: Floats, truth: Ids, temperature: float) -> float:
    scaled = logits / temperature
    highest = scaled.max(axis=1)
    totals = highest + np.log(np.exp(scaled - highest[:, None]).sum(axis=1))
    return float((totals - scaled[np.arange(len(truth)), truth]).mean())


def _log(probabilities: Floats) -> NDArray[np.float64]:
    logs: NDArray[np.float64] = np.log(np.maximum(np.asarray(probabilities, dtype=np.float64), _SMALLEST))
    return logs


def _softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return shares


# --- thresholds --------------------------------------------------------------------------------------------------


def coverage_curve(scores: Floats, is_right: Bools) -> CoverageCurve:
    """Accuracy against coverage for every threshold that makes a difference (El-Yaniv & Wiener, JMLR 2010).

    Documents with equal scores are kept or left out together.

    Raises:
        ValueError: there is no document.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if not len(scores):
        raise ValueError("scores: there is no document.")
    order = np.argsort(-scores, kind="stable")
    ordered, right = scores[order], np.cumsum(np.asarray(is_right)[order])
    last = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)  # of each run of equal scores
    counts = last + 1
    return CoverageCurve(ordered[last], counts / len(ordered), right[last] / counts)


def threshold_for(precision: float, scores: Floats, is_right: Bools) -> float | None:
    """The threshold that keeps the most documents while at least that share of them is right; None: none does.

    Choose it on validation data and judge it on test data.
    """
    curve = coverage_curve(scores, is_right)
    reached = np.flatnonzero(curve.accuracy >= precision)
    return float(curve.thresholds[reached[-1]]) if len(reached) else None


def kept_by(threshold: float, scores: Floats, is_right: Bools) -> Kept:
    """What a threshold keeps of other documents; its accuracy is None where it keeps none."""
    is_kept = np.asarray(scores) >= threshold
    count = int(is_kept.sum())
    accuracy = float(np.asarray(is_right)[is_kept].mean()) if count else None
    return Kept(count, count / len(is_kept) if len(is_kept) else 0.0, accuracy)
