"""Scores of a single-label classifier, in numpy alone.

Shapes: N documents, L labels, `...` any leading dimensions (the resamples of a bootstrap, for example).

All hard scores are functions of confusion matrices `(..., L, L)` with the truth in rows and the prediction in columns,
so that 1,000 resamples are scored in one call. Soft scores (log loss, top-k) are functions of probabilities `(N, L)`.

Two conventions, both scikit-learn's defaults with `zero_division=0`: a ratio with nothing below the line is 0, and
macro averages run over the labels that occur in the truth or in the predictions, not over labels that nobody met.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.integer[Any]]
Floats = NDArray[np.floating[Any]]
Counts = NDArray[Any]  # whole numbers; a bootstrap may hold them as floats
Statistic = Callable[[Counts], Floats]  # confusion (..., L, L) -> score (...)


@dataclass(frozen=True)
class ClassScores:
    """The scores of each label, arrays `(..., L)`; `support` counts true documents, `predicted` the predicted ones."""

    precision: Floats
    recall: Floats
    f1: Floats
    support: Counts
    predicted: Counts


@dataclass(frozen=True)
class ClassificationScores:
    """The headline numbers of one set of documents; every score lies in 0..1 except `log_loss` (nats).

    `log_loss` and `top_k_accuracy` (k -> share) are None without probabilities.
    """

    documents: int
    accuracy: float
    f1_macro: float
    precision_macro: float
    recall_macro: float
    f1_weighted: float
    precision_weighted: float
    recall_weighted: float
    log_loss: float | None = None
    top_k_accuracy: dict[int, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; the keys of `top_k_accuracy` become text."""
        values = asdict(self)
        if self.top_k_accuracy is not None:
            values["top_k_accuracy"] = {str(k): share for k, share in self.top_k_accuracy.items()}
        return values


def confusion_matrix(truth: Ids, predicted: Ids, num_labels: int) -> NDArray[np.int64]:
    """Count the pairs of truth `(N,)` and prediction `(N,)` in a matrix `(L, L)`, truth in rows.

    Raises:
        ValueError: lengths differ, there is no document, or an id lies outside 0..L-1.
    """
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    if truth.shape != predicted.shape or truth.ndim != 1:
        raise ValueError(f"truth and predictions must be (N,) and equally long, not {truth.shape}, {predicted.shape}.")
    check_ids("truth", truth, num_labels)
    check_ids("predictions", predicted, num_labels)
    cells = truth.astype(np.int64) * num_labels + predicted
    return np.bincount(cells, minlength=num_labels**2).reshape(num_labels, num_labels)


def check_ids(name: str, ids: Ids, num_labels: int) -> None:
    """Refuse an empty array, and ids outside 0..L-1.

    Raises:
        ValueError: says which array, and which values it holds.
    """
    if ids.size == 0:
        raise ValueError(f"{name}: there is no document to score.")
    if ids.min() < 0 or ids.max() >= num_labels:
        raise ValueError(f"{name}: ids run from {ids.min()} to {ids.max()}, but there are {num_labels} labels.")


def class_scores(confusion: Counts) -> ClassScores:
    """Precision, recall and F1 of every label, for confusion matrices `(..., L, L)`."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    support, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    return ClassScores(
        precision=_ratio(hits, predicted),
        recall=_ratio(hits, support),
        f1=_ratio(2 * hits, support + predicted),
        support=support,
        predicted=predicted,
    )


def accuracy(confusion: Counts) -> Floats:
    """The share of documents with the right label."""
    return _ratio(np.trace(confusion, axis1=-2, axis2=-1), confusion.sum(axis=(-2, -1)))


def f1_macro(confusion: Counts) -> Floats:
    """The plain mean of F1 over the labels that occur."""
    return _macro(class_scores(confusion), "f1")


def precision_macro(confusion: Counts) -> Floats:
    """The plain mean of precision over the labels that occur."""
    return _macro(class_scores(confusion), "precision")


def recall_macro(confusion: Counts) -> Floats:
    """The plain mean of recall over the labels that occur."""
    return _macro(class_scores(confusion), "recall")


def f1_weighted(confusion: Counts) -> Floats:
    """The mean of F1, each label weighted by its true documents."""
    return _weighted(class_scores(confusion), "f1")


def precision_weighted(confusion: Counts) -> Floats:
    """The mean of precision, each label weighted by its true documents."""
    return _weighted(class_scores(confusion), "precision")


def recall_weighted(confusion: Counts) -> Floats:
    """The mean of recall weighted by true documents, which is the accuracy."""
    return _weighted(class_scores(confusion), "recall")


def f1_mix(confusion: Counts, weights: Floats) -> Floats:
    """The F1 of each label, mixed in the shares that their weights `(L,)` have; a label that nobody met has F1 0."""
    mixed: Floats = class_scores(confusion).f1 @ (weights / weights.sum())
    return mixed


# The scores that a confusion matrix gives, by the name that follows `val/` or `test/`.
STATISTICS: dict[str, Statistic] = {
    "accuracy": accuracy,
    "f1_macro": f1_macro,
    "precision_macro": precision_macro,
    "recall_macro": recall_macro,
    "f1_weighted": f1_weighted,
    "precision_weighted": precision_weighted,
    "recall_weighted": recall_weighted,
}


def log_loss(truth: Ids, probabilities: Floats) -> float:
    """Mean negative log probability of the true label, in nats; `probabilities` are `(N, L)`.

    Probabilities are clipped to [eps, 1 - eps] of their own type, as scikit-learn does, so that one certain mistake
    does not make the mean infinite. NaN stays NaN: a model that diverged has no loss.
    """
    return float(document_log_losses(truth, probabilities).mean())


def document_log_losses(truth: Ids, probabilities: Floats) -> Floats:
    """The terms of `log_loss`, one per document `(N,)`, for intervals and lists of the worst mistakes."""
    probabilities = _checked(truth, probabilities)
    eps = np.finfo(probabilities.dtype).eps
    of_truth = probabilities[np.arange(len(truth)), truth].astype(np.float64)
    return -np.log(np.clip(of_truth, eps, 1 - eps))


def top_k_accuracy(truth: Ids, probabilities: Floats, k: int) -> float:
    """The share of documents whose true label is among the k most probable of `(N, L)`.

    Of equal probabilities the lower id ranks first, as with argmax, so that k = 1 equals the accuracy of argmax.
    NaN outranks everything: a broken row counts as a miss.
    """
    probabilities = _checked(truth, probabilities)
    of_truth = probabilities[np.arange(len(truth)), truth][:, None]
    is_before = np.arange(probabilities.shape[1])[None, :] < np.asarray(truth)[:, None]
    outranks = np.where(is_before, ~(probabilities < of_truth), ~(probabilities <= of_truth))
    outranks[np.arange(len(truth)), truth] = np.isnan(of_truth[:, 0])
    return float((outranks.sum(axis=1) < k).mean())


def score(
    truth: Ids,
    predicted: Ids,
    num_labels: int,
    probabilities: Floats | None = None,
    top_k: tuple[int, ...] = (3, 5),
) -> ClassificationScores:
    """All headline scores of truth `(N,)`, predictions `(N,)` and, where given, probabilities `(N, L)`.

    A `k` that is not below L is left out, since it would always score 1.

    Raises:
        ValueError: the arrays do not fit together (see `confusion_matrix`).
    """
    confusion = confusion_matrix(truth, predicted, num_labels)
    hard: dict[str, Any] = {name: float(statistic(confusion)) for name, statistic in STATISTICS.items()}
    if probabilities is None:
        return ClassificationScores(documents=len(truth), **hard)
    return ClassificationScores(
        documents=len(truth),
        **hard,
        log_loss=log_loss(truth, probabilities),
        top_k_accuracy={k: top_k_accuracy(truth, probabilities, k) for k in top_k if k < num_labels},
    )


def _ratio(above: Counts, below: Counts) -> Floats:
    """Divide, with 0 where there is nothing to divide by."""
    shape = np.broadcast(above, below).shape
    return np.divide(above, below, out=np.zeros(shape), where=np.asarray(below) > 0)


def _macro(scores: ClassScores, name: str) -> Floats:
    occurs = (scores.support + scores.predicted) > 0
    return _ratio((getattr(scores, name) * occurs).sum(axis=-1), occurs.sum(axis=-1))


def _weighted(scores: ClassScores, name: str) -> Floats:
    return _ratio((getattr(scores, name) * scores.support).sum(axis=-1), scores.support.sum(axis=-1))


def _checked(truth: Ids, probabilities: Floats) -> Floats:
    probabilities = np.asarray(probabilities)
    if probabilities.ndim != 2 or len(probabilities) != len(truth):
        raise ValueError(f"probabilities must be (N, L) with N = {len(truth)}, not {probabilities.shape}.")
    check_ids("truth", np.asarray(truth), probabilities.shape[1])
    return probabilities
