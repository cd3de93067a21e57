"""Spans that were found in the windows of a text -> the answers to one question, and when to give none.

The recipe is that of J. Devlin et al., "BERT", NAACL 2019, section 4.3: no answer is the span of the first token; its
score over several windows is the lowest, since a window without the answer is always sure that there is none.

Shapes: W windows, S spans of each, Q questions, N spans of all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Places = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class SpanSettings:
    """What is an answer: at most so many tokens; `n_best` spans of a window are kept."""

    max_answer_length: int = 30
    n_best: int = 5


class WindowSpans(NamedTuple):
    """The best spans of windows, (W, S) each, and the scores (logits) of having no answer in them, (W,).

    `starts` and `ends` are characters of the whole context, `ends` exclusive. Where a window has fewer spans the scores
    of the rest are not finite; only finite scores are candidates.
    """

    scores: Floats
    starts: Places
    ends: Places
    null_scores: Floats


@dataclass(frozen=True)
class ScoredSpan:
    """`context[start:end]` as an answer, its score (logit) and its probability among all that could be answered."""

    start: int
    end: int
    score: float
    probability: float


@dataclass(frozen=True)
class MergedSpans:
    """The distinct spans of Q questions: those of a question together, by falling score, then by start and end.

    Attributes:
        firsts: where the spans of each question begin, and N, (Q + 1,).
        starts, ends, scores, probabilities: (N,).
        null_scores: the lowest of each question's windows, (Q,).
        null_probabilities: what the spans of each question leave over, (Q,).
    """

    firsts: Places
    starts: Places
    ends: Places
    scores: Floats
    probabilities: Floats
    null_scores: Floats
    null_probabilities: Floats

    def best(self, question: int, n_best: int) -> list[ScoredSpan]:
        """The best spans of one question, at most `n_best` of them."""
        first, stop = self.firsts[question : question + 2].tolist()
        chosen = slice(first, min(first + n_best, stop))
        columns = (self.starts, self.ends, self.scores, self.probabilities)
        return [ScoredSpan(*each) for each in zip(*(column[chosen].tolist() for column in columns), strict=True)]


def joined(batches: Sequence[WindowSpans]) -> WindowSpans:
    """The windows of several batches, one after another; all have the same S."""
    return WindowSpans(*(np.concatenate(column) for column in zip(*batches, strict=True)))


def merge_spans(windows: WindowSpans, n_best: int = 5, *, allows_no_answer: bool = False) -> list[ScoredSpan]:
    """The `n_best` answers to one question from all its windows, see `merge_questions`.

    Raises:
        ValueError: `n_best` is below 1, or there is no window.
    """
    if n_best < 1:
        raise ValueError(f"n_best is {n_best}; at least 1 answer must be asked for.")
    owners = np.zeros(len(windows.scores), np.int64)
    return merge_questions(windows, owners, 1, allows_no_answer=allows_no_answer).best(0, n_best)


def merge_questions(
    windows: WindowSpans, owners: Places, num_questions: int, *, allows_no_answer: bool = False
) -> MergedSpans:
    """The answers to each question from all its windows.

    A span that several windows found counts once, with its highest score. Probabilities are a softmax over all distinct
    candidates of a question; with `allows_no_answer` the null score takes part, and what is missing to 1 is the
    probability of no answer.

    Args:
        windows: of all questions, in any order.
        owners: the question of each window, 0 … Q - 1, (W,).
        num_questions: Q.
        allows_no_answer: whether no answer is an answer.

    Raises:
        ValueError: a question has no window.
    """
    num_windows = np.bincount(owners, minlength=num_questions)
    if not num_windows.all():
        raise ValueError(f"windows: question {int(num_windows.argmin())} has none.")
    null_scores = np.full(num_questions, np.inf)
    np.minimum.at(null_scores, owners, windows.null_scores)
    owners, starts, ends, scores = _candidates(windows, owners)
    highest = null_scores.copy() if allows_no_answer else np.full(num_questions, -np.inf)
    np.maximum.at(highest, owners, scores)
    exponentials = np.exp(scores - highest[owners])
    totals = np.exp(null_scores - highest) if allows_no_answer else np.zeros(num_questions)
    np.add.at(totals, owners, exponentials)
    probabilities = exponentials / totals[owners]
    left_over = np.ones(num_questions)
    np.subtract.at(left_over, owners, probabilities)
    return MergedSpans(
        np.searchsorted(owners, np.arange(num_questions + 1)),
        starts,
        ends,
        scores,
        probabilities,
        null_scores,
        np.maximum(0.0, left_over),
    )


def best_of_each(windows: WindowSpans, owners: Places) -> tuple[Places, Floats, Places, Places]:
    """The best span of each question that has one; of equally good ones the first in the context.

    Args:
        windows: of some questions, in any order.
        owners: the question of each window, (W,).

    Returns:
        Questions, scores, starts and ends, equally long.
    """
    owners, starts, ends, scores = _spans(windows, owners)
    order = np.lexsort((ends, starts, -scores, owners))
    questions, firsts = np.unique(owners[order], return_index=True)
    chosen = order[firsts]
    return questions, scores[chosen], starts[chosen], ends[chosen]


def choose_no_answer_threshold(null_minus_best: Floats, has_answer: NDArray[np.bool_], f1_of_best: Floats) -> float:
    """The threshold on (null score - best span score) above which to give no answer, for the highest mean F1.

    A question is answered while its difference is at most the threshold; it then scores its F1, or 0 if it has no
    answer. Unanswered, it scores 1 if it has none, else 0. Tried are 0, every finite difference, and one just below
    them all, which answers nothing. Of equally good ones the nearest to 0 is chosen, and of two as near the lower.
    Choose it on validation data and judge it on test data.

    Args:
        null_minus_best: (Q,), +inf where a question has no candidate span.
        has_answer: (Q,).
        f1_of_best: (Q,), 0 to 1; not read where a question has no answer.

    Raises:
        ValueError: lengths differ, there is no question, or a difference is NaN.
    """
    differences, has_answer, f1 = np.asarray(null_minus_best), np.asarray(has_answer, bool), np.asarray(f1_of_best)
    _check_questions(differences, has_answer, f1)
    order = np.argsort(differences, kind="stable")
    gains = np.where(has_answer, f1, -1.0)[order]  # by answering instead of not
    totals = np.append(0.0, np.cumsum(gains, dtype=np.float64))
    tried = _thresholds(differences)
    reached = totals[np.searchsorted(differences[order], tried, side="right")]
    best = tried[reached >= reached.max() - 1e-9]  # sums of the same F1 in another order differ by rounding
    return float(best[np.lexsort((best, np.abs(best)))[0]])


def _candidates(windows: WindowSpans, owners: Places) -> tuple[Places, Places, Places, NDArray[np.float64]]:
    """All distinct spans of each question, the best first: questions, starts, ends and scores, (N,) each."""
    owners, starts, ends, scores = _spans(windows, owners)
    # Of spans that are alike the one with the highest score comes first.
    order = np.lexsort((-scores, ends, starts, owners))
    owners, starts, ends, scores = _chosen((owners, starts, ends, scores), order)
    is_first = np.ones(len(scores), dtype=np.bool_)
    is_first[1:] = (np.diff(owners) != 0) | (np.diff(starts) != 0) | (np.diff(ends) != 0)
    owners, starts, ends, scores = _chosen((owners, starts, ends, scores), is_first)
    owners, starts, ends, scores = _chosen((owners, starts, ends, scores), np.lexsort((ends, starts, -scores, owners)))
    return owners, starts, ends, scores


def _spans(windows: WindowSpans, owners: Places) -> tuple[Places, Places, Places, NDArray[np.float64]]:
    """All candidates: questions, starts, ends and scores, (N,) each."""
    is_candidate = np.isfinite(windows.scores)
    owners = np.repeat(owners, is_candidate.sum(axis=1))
    starts, ends, scores = _chosen((windows.starts, windows.ends, windows.scores), is_candidate)
    return owners, starts, ends, scores.astype(np.float64)


def _chosen(columns: Sequence[NDArray[Any]], rows: NDArray[Any]) -> list[NDArray[Any]]:
    return [column[rows] for column in columns]


def _check_questions(differences: Floats, has_answer: NDArray[np.bool_], f1: Floats) -> None:
    shapes = [array.shape for array in (differences, has_answer, f1)]
    if len(set(shapes)) != 1 or len(shapes[0]) != 1:
        raise ValueError(f"all arrays must be (Q,) and equally long, not {shapes}.")
    if not len(differences):
        raise ValueError("null_minus_best: there is no question.")
    if np.isnan(differences).any():
        raise ValueError(f"null_minus_best: question {int(np.isnan(differences).argmax())} has no number (NaN).")


def _thresholds(differences: Floats) -> NDArray[np.float64]:
    finite = np.unique(differences[np.isfinite(differences)]).astype(np.float64)
    below = [np.nextafter(finite[0], -np.inf)] if len(finite) else []
    return np.concatenate([below, finite, [0.0]])
