"""Spans that were found in the windows of a text -> the answers to one question, and when to give none.

The recipe is that of J. Devlin et al., "BERT", NAACL 2019, section 4.3: no answer is the span of the first token; its
score over several windows is the lowest, since a window without the answer is always sure that there is none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True)
class WindowSpans:
    """The best spans of one window, arrays `(n,)`, and the score (logit) of having no answer in it.

    `starts` and `ends` are characters of the whole context, `ends` exclusive.

    Raises:
        ValueError: the arrays are not equally long.
    """

    scores: Floats
    starts: Places
    ends: Places
    null_score: float

    def __post_init__(self) -> None:
        shapes = [np.shape(array) for array in (self.scores, self.starts, self.ends)]
        if len(set(shapes)) != 1 or len(shapes[0]) != 1:
            raise ValueError(f"scores, starts and ends must be (n,) and equally long, not {shapes}.")


@dataclass(frozen=True)
class ScoredSpan:
    """`context[start:end]` as an answer, its score (logit) and its probability among all that could be answered."""

    start: int
    end: int
    score: float
    probability: float


def merge_spans(windows: Sequence[WindowSpans], n_best: int = 5, *, allows_no_answer: bool = False) -> list[ScoredSpan]:
    """The `n_best` answers to one question from all its windows, by falling score, then by start and end.

    A span that several windows found counts once, with its highest score. Only finite scores are candidates.
    Probabilities are a softmax over all distinct candidates, not only those returned, so `n_best` does not change them;
    with `allows_no_answer` the null score takes part, and what is missing to 1 is the probability of no answer.

    Raises:
        ValueError: `n_best` is below 1, or with `allows_no_answer` there is no window.
    """
    if n_best < 1:
        raise ValueError(f"n_best is {n_best}; at least 1 answer must be asked for.")
    scores, places = _candidates(windows)
    rivals = [no_answer_score(windows)] if allows_no_answer else []
    probabilities = _softmax(np.append(scores, rivals))
    return [
        ScoredSpan(int(start), int(end), float(score), float(probability))
        for (start, end), score, probability in zip(
            places[:n_best], scores[:n_best], probabilities[: len(scores)][:n_best], strict=True
        )
    ]


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


def _candidates(windows: Sequence[WindowSpans]) -> tuple[NDArray[np.float64], list[tuple[int, int]]]:
    """All distinct spans: scores `(n,)` and places, the best first.

    There are few, and arrays of so few cost more than they bring.
    """
    highest: dict[tuple[int, int], float] = {}
    for window in windows:
        places = zip(window.starts.tolist(), window.ends.tolist(), strict=True)
        for score, place in zip(window.scores.tolist(), places, strict=True):
            if math.isfinite(score) and score > highest.get(place, -math.inf):
                highest[place] = score
    ordered = sorted(highest, key=lambda place: (-highest[place], place))
    return np.array([highest[place] for place in ordered], dtype=np.float64), ordered


def _softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities of scores `(n,)`; nothing for nothing."""
    if not len(scores):
        return scores
    exponentials: NDArray[np.float64] = np.exp(scores - scores.max())
    return exponentials / float(exponentials.sum())


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
