"""Spans that were found in the windows of a text -> the answers to one question, and when to give none.

The recipe is that of J. Devlin et al., "BERT", NAACL 2019, section 4.3: no answer is the span of the first token; its
score over several windows is the lowest, since a window without the answer is always sure that there is none.

Shapes: Q questions, N spans of all of them.
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
    """What is an answer: at most so many tokens; `n_best` spans of a window are kept, from the `top_k` best ends."""

    max_answer_length: int = 30
    n_best: int = 5
    top_k: int = 20


class WindowSpans(NamedTuple):
    """The best spans of one window, arrays `(n,)`, and the score (logit) of having no answer in it.

    `starts` and `ends` are characters of the whole context, `ends` exclusive.
    """

    scores: Floats
    starts: Places
    ends: Places
    null_score: float


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


def merge_spans(windows: Sequence[WindowSpans], n_best: int = 5, *, allows_no_answer: bool = False) -> list[ScoredSpan]:
    """The `n_best` answers to one question from all its windows, see `merge_questions`.

    Raises:
        ValueError: `n_best` is below 1, arrays are not equally long, or with `allows_no_answer` there is no window.
    """
    if n_best < 1:
        raise ValueError(f"n_best is {n_best}; at least 1 answer must be asked for.")
    if not windows and not allows_no_answer:
        return []
    return merge_questions([windows], allows_no_answer=allows_no_answer).best(0, n_best)


def merge_questions(questions: Sequence[Sequence[WindowSpans]], *, allows_no_answer: bool = False) -> MergedSpans:
    """The answers to each question from all its windows.

    A span that several windows found counts once, with its highest score. Only finite scores are candidates.
    Probabilities are a softmax over all distinct candidates of a question; with `allows_no_answer` the null score takes
    part, and what is missing to 1 is the probability of no answer.

    Raises:
        ValueError: a question has no window, or arrays are not equally long.
    """
    null_scores = np.array([no_answer_score(windows) for windows in questions])
    owners, starts, ends, scores = _candidates(questions)
    highest = null_scores.copy() if allows_no_answer else np.full(len(questions), -np.inf)
    np.maximum.at(highest, owners, scores)
    exponentials = np.exp(scores - highest[owners])
    totals = np.exp(null_scores - highest) if allows_no_answer else np.zeros(len(questions))
    np.add.at(totals, owners, exponentials)
    probabilities = exponentials / totals[owners]
    left_over = np.ones(len(questions))
    np.subtract.at(left_over, owners, probabilities)
    return MergedSpans(
        np.searchsorted(owners, np.arange(len(questions) + 1)),
        starts,
        ends,
        scores,
        probabilities,
        null_scores,
        np.maximum(0.0, left_over),
    )


def no_answer_score(windows: Sequence[WindowSpans]) -> float:
    """The lowest null score of the windows.

    Raises:
        ValueError: there is no window.
    """
    if not windows:
        raise ValueError("windows: there is none.")
    return float(min(window.null_score for window in windows))


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


def _candidates(questions: Sequence[Sequence[WindowSpans]]) -> tuple[Places, Places, Places, NDArray[np.float64]]:
    """All distinct spans of each question, the best first: questions, starts, ends and scores, (N,) each."""
    windows = [(number, window) for number, each in enumerate(questions) for window in each]
    owners = np.repeat([number for number, _ in windows], [len(window.scores) for _, window in windows])
    scores = np.concatenate([window.scores for _, window in windows]).astype(np.float64)
    starts = np.concatenate([window.starts for _, window in windows])
    ends = np.concatenate([window.ends for _, window in windows])
    if not len(scores) == len(starts) == len(ends):
        raise ValueError(f"there are {len(scores)} scores, {len(starts)} starts and {len(ends)} ends of spans.")
    columns = _chosen((owners, starts, ends, scores), np.isfinite(scores))
    # Of spans that are alike the one with the highest score comes first.
    owners, starts, ends, scores = _chosen(columns, np.lexsort((-columns[3], *columns[2::-1])))
    is_first = np.ones(len(scores), dtype=np.bool_)
    is_first[1:] = (np.diff(owners) != 0) | (np.diff(starts) != 0) | (np.diff(ends) != 0)
    owners, starts, ends, scores = _chosen((owners, starts, ends, scores), is_first)
    owners, starts, ends, scores = _chosen((owners, starts, ends, scores), np.lexsort((ends, starts, -scores, owners)))
    return owners, starts, ends, scores


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
