"""Scores of a multi-label classifier, in numpy alone, and the thresholds at which its labels apply.

Shapes: N texts, L labels, `...` any leading dimensions (the resamples of a bootstrap, for example).

Hard scores are functions of the counts of each label `(..., L)`, so that 1,000 resamples are scored in one call. Two
conventions, both scikit-learn's with `zero_division=0`: a ratio with nothing below the line is 0, and macro averages
run over all labels, also over those that no text has. So a text without labels for which none is predicted has a sample
F1 of 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doctune.scoring.classification import Counts, Floats
from doctune.scoring.intervals import CHUNK_NUMBERS, LEVEL, RESAMPLES, Interval

LabelSets = NDArray[np.bool_]  # (N, L), whether each label applies
# Macro F1 over the 28 labels of GoEmotions with a floor of 0, 10 and 20, thresholds chosen on one half of a tenth of
# train.tsv and judged on the other: balanced logistic regressions 0.426, 0.434, 0.438; without balancing 0.420, 0.408,
# 0.404, since the probabilities of their rare labels never come near the shared threshold.
MIN_POSITIVES = 10


@dataclass(frozen=True)
class LabelCounts:
    """Of each label `(..., L)`: texts in which it is rightly predicted, predicted at all, and true."""

    hits: Counts
    predicted: Counts
    support: Counts


@dataclass(frozen=True)
class LabelScores:
    """Precision, recall and F1 of each label `(..., L)`."""

    precision: Floats
    recall: Floats
    f1: Floats


@dataclass(frozen=True)
class MultilabelScores:
    """The headline numbers of one set of texts, all in 0..1.

    `*_samples` are means over texts, `exact_match` is the share of texts with exactly the right labels.
    """

    texts: int
    f1_macro: float
    precision_macro: float
    recall_macro: float
    f1_micro: float
    precision_micro: float
    recall_micro: float
    f1_samples: float
    precision_samples: float
    recall_samples: float
    exact_match: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def label_counts(truth: LabelSets, predicted: LabelSets) -> LabelCounts:
    """The counts of each label, (L,), from truth and prediction (N, L).

    Raises:
        ValueError: the arrays do not fit together, or there is no text.
    """
    truth, predicted = _checked(truth, predicted)
    return LabelCounts((truth & predicted).sum(axis=0), predicted.sum(axis=0), truth.sum(axis=0))


def label_scores(counts: LabelCounts) -> LabelScores:
    """Precision, recall and F1 of each label, (..., L)."""
    return LabelScores(
        precision=_ratio(counts.hits, counts.predicted),
        recall=_ratio(counts.hits, counts.support),
        f1=_ratio(2 * counts.hits, counts.predicted + counts.support),
    )


def f1_macro(counts: LabelCounts) -> Floats:
    """The plain mean of F1 over all labels, (...)."""
    mean: Floats = label_scores(counts).f1.mean(axis=-1)
    return mean


def f1_micro(counts: LabelCounts) -> Floats:
    """The F1 of all labels counted together, (...)."""
    return label_scores(_together(counts)).f1


# The scores that counts give, by the name that follows `val/` or `test/`.
STATISTICS: dict[str, Callable[[LabelCounts], Floats]] = {"f1_macro": f1_macro, "f1_micro": f1_micro}


def score(truth: LabelSets, predicted: LabelSets) -> MultilabelScores:
    """All headline scores of truth and prediction (N, L).

    Raises:
        ValueError: the arrays do not fit together, or there is no text.
    """
    counts = label_counts(truth, predicted)
    # For the scores of texts, texts and labels change places.
    by_text = {"macro": counts, "samples": label_counts(truth.T, predicted.T)}
    means = {
        f"{name}_{average}": float(getattr(label_scores(each), name).mean())
        for average, each in by_text.items()
        for name in ("f1", "precision", "recall")
    }
    micro = {f"{name}_micro": float(value) for name, value in asdict(label_scores(_together(counts))).items()}
    exact = float((np.asarray(truth) == np.asarray(predicted)).all(axis=1).mean())
    return MultilabelScores(texts=len(truth), **means, **micro, exact_match=exact)


def bootstrap_intervals(
    truth: LabelSets, predicted: LabelSets, *, seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL
) -> dict[str, Interval]:
    """The percentile intervals of STATISTICS over texts; see `doctune.scoring.intervals`.

    A resample is a multinomial draw over the K distinct pairs of true and predicted labels; its counts are a product
    with those of the pairs.

    Raises:
        ValueError: the arrays do not fit together, or there is no text.
    """
    truth, predicted = _checked(truth, predicted)
    pairs, times = np.unique(np.concatenate([predicted, truth], axis=1), axis=0, return_counts=True)
    each = np.split(pairs, 2, axis=1)
    stacked = np.concatenate([each[0] & each[1], *each], axis=1).astype(np.float64)  # (K, 3 L)
    rng = np.random.default_rng(seed)
    values: dict[str, list[Floats]] = {name: [] for name in STATISTICS}
    rows = max(1, CHUNK_NUMBERS // len(pairs))
    for start in range(0, resamples, rows):
        drawn = rng.multinomial(len(truth), times / len(truth), size=min(rows, resamples - start))
        counts = LabelCounts(*np.split(drawn @ stacked, 3, axis=1))
        for name, statistic in STATISTICS.items():
            values[name].append(statistic(counts))
    tail = (1 - level) / 2
    quantiles = {name: np.quantile(np.concatenate(chunks), [tail, 1 - tail]) for name, chunks in values.items()}
    return {name: (float(low), float(high)) for name, (low, high) in quantiles.items()}


def chance_levels(train_counts: Counts, num_train: int, counts: Counts, num_texts: int) -> dict[str, float]:
    """F1 of predicting every label for all texts, which needs no reading, and the loss of the training shares.

    The loss is the mean over texts and labels of the binary cross entropy, in nats, of answering with each label's
    share of the training texts (one text with and one without it are added, so that it stays finite).

    Args:
        train_counts: training texts with each label, (L,).
        num_train: training texts that know the target.
        counts: judged texts with each label, (L,).
        num_texts: judged texts that know the target.
    """
    support = np.asarray(counts)
    everything = LabelCounts(support, np.full(len(support), num_texts), support)
    shares = (np.asarray(train_counts) + 1) / (num_train + 2)
    losses = support * np.log(shares) + (num_texts - support) * np.log1p(-shares)
    return {
        "f1_macro": float(f1_macro(everything)),
        "f1_micro": float(f1_micro(everything)),
        "loss": float(-losses.mean() / num_texts),
    }


# --- thresholds --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Thresholds:
    """From which probability on each label applies.

    Attributes:
        values: (L,).
        shared: the one threshold that is best for all labels together; what labels that are too rare have.
        is_own: (L,), whether a label had enough texts for a threshold of its own.
    """

    values: NDArray[np.float64]
    shared: float
    is_own: NDArray[np.bool_]

    def apply(self, probabilities: Floats) -> LabelSets:
        """Which labels apply, (N, L), by their probabilities (N, L)."""
        return np.asarray(probabilities) >= self.values


def tune_thresholds(truth: LabelSets, probabilities: Floats, *, min_positives: int = MIN_POSITIVES) -> Thresholds:
    """The thresholds with the best F1 on these texts, which must not be those that judge.

    Every cut between two different probabilities is tried, so that none is better. A threshold lies half-way between
    them, and of equally good cuts the one that predicts a label least often is taken.

    The best of N cuts flatters itself the more, the fewer texts a label has: with a handful, the best threshold is
    where these few happened to lie. A label with fewer than `min_positives` texts therefore has the threshold that is
    best for macro F1 when all labels share it, which all of them have chosen.

    Args:
        truth: (N, L).
        probabilities: (N, L).
        min_positives: the fewest texts with a label for a threshold of its own.

    Raises:
        ValueError: the arrays do not fit together, or there is no text.
    """
    truth = np.asarray(truth, dtype=bool)
    probabilities = np.asarray(probabilities, dtype=np.float64)
    if truth.shape != probabilities.shape or truth.ndim != 2 or not len(truth):
        raise ValueError(f"truth and probabilities must be (N, L) alike, not {truth.shape}, {probabilities.shape}.")
    order = np.argsort(-probabilities, axis=0, kind="stable")
    ranked = np.take_along_axis(probabilities, order, axis=0)  # (N, L), falling
    scores = _f1_of_cuts(np.take_along_axis(truth, order, axis=0))  # (N + 1, L)
    shared = _shared_threshold(ranked, scores)
    is_own = truth.sum(axis=0) >= min_positives
    return Thresholds(np.where(is_own, _own_thresholds(ranked, scores), shared), shared, is_own)


def _f1_of_cuts(ranked_truth: LabelSets) -> Floats:
    """The F1 of each label when it is predicted for its 0, 1, … N most probable texts, (N + 1, L)."""
    num_texts, num_labels = ranked_truth.shape
    hits = np.concatenate([np.zeros((1, num_labels)), np.cumsum(ranked_truth, axis=0)])
    return _ratio(2 * hits, np.arange(num_texts + 1)[:, None] + hits[-1])


def _own_thresholds(ranked: Floats, scores: Floats) -> NDArray[np.float64]:
    # A cut between two equal probabilities cannot be made; one before the first text never predicts the label.
    is_cut = np.concatenate(
        [np.ones((1, ranked.shape[1]), bool), ranked[:-1] > ranked[1:], np.ones_like(ranked[:1], bool)]
    )
    best = np.where(is_cut, scores, -1.0).argmax(axis=0)
    return _between(_bounded(ranked, best), _bounded(ranked, best + 1))


def _shared_threshold(ranked: Floats, scores: Floats) -> float:
    """The threshold with the best macro F1: each text that it lets in changes the F1 of one label."""
    flat = ranked.ravel()
    order = np.argsort(-flat, kind="stable")
    falling = flat[order]
    macro = np.cumsum(np.diff(scores, axis=0).ravel()[order])
    is_cut = np.append(falling[:-1] > falling[1:], True)
    best = int(np.where(is_cut, macro, -1.0).argmax())
    following = falling[best + 1] if best + 1 < len(falling) else 0.0
    return float(_between(falling[best], following))


def _bounded(ranked: Floats, places: NDArray[np.int64]) -> Floats:
    """The probability at place 1 … N of each label; just above 1 before them, 0 behind them."""
    num_labels = ranked.shape[1]
    above = np.full((1, num_labels), np.nextafter(1.0, 2.0))
    fenced = np.concatenate([above, ranked, np.zeros((1, num_labels))])
    found: Floats = fenced[places, np.arange(num_labels)]
    return found


def _between(upper: Any, lower: Any) -> Any:
    """Half-way, or the upper one where there is no number between them."""
    middle = lower + (upper - lower) / 2
    return np.where(middle > lower, middle, upper)


def _together(counts: LabelCounts) -> LabelCounts:
    return LabelCounts(*(each.sum(axis=-1) for each in (counts.hits, counts.predicted, counts.support)))


def _checked(truth: LabelSets, predicted: LabelSets) -> tuple[LabelSets, LabelSets]:
    truth, predicted = np.asarray(truth, dtype=bool), np.asarray(predicted, dtype=bool)
    if truth.shape != predicted.shape or truth.ndim != 2:
        raise ValueError(f"truth and predictions must be (N, L) alike, not {truth.shape}, {predicted.shape}.")
    if not len(truth):
        raise ValueError("truth: there is no text to score.")
    return truth, predicted


def _ratio(above: Counts, below: Counts) -> Floats:
    """Divide, with 0 where there is nothing to divide by."""
    shape = np.broadcast(above, below).shape
    return np.divide(above, below, out=np.zeros(shape), where=np.asarray(below) > 0)
