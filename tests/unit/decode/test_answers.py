from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doctune.decode.answers import (
    ScoredSpan,
    WindowSpans,
    best_of_each,
    choose_no_answer_threshold,
    joined,
    merge_questions,
    merge_spans,
)


def window(*spans, null=0.0):
    """A window of (score, start, end); so many as there are, the rest is filled up."""
    scores, starts, ends = zip(*spans, *[(-np.inf, -1, -1)] * (4 - len(spans)), strict=True)
    return WindowSpans(
        np.array([scores], float), np.array([starts], int), np.array([ends], int), np.array([null], float)
    )


def merged(*windows, **options):
    """The answers to one question from these windows."""
    return merge_spans(joined(windows), **options)


def places(spans):
    return [(span.start, span.end, span.score) for span in spans]


def test_spans_of_all_windows_are_merged_and_equal_ones_counted_once():
    spans = merged(window((1.0, 5, 9), (3.0, 2, 4)), window((2.0, 5, 9), (0.0, 7, 9)))
    assert places(spans) == [(2, 4, 3.0), (5, 9, 2.0), (7, 9, 0.0)]
    exponentials = np.exp([3.0, 2.0, 0.0])
    assert [span.probability for span in spans] == pytest.approx(exponentials / exponentials.sum(), abs=1e-15)


def test_equal_scores_are_ordered_by_start_then_end():
    spans = merged(window((1.0, 5, 9), (1.0, 2, 8), (1.0, 2, 4)))
    assert [(span.start, span.end) for span in spans] == [(2, 4), (2, 8), (5, 9)]


def test_the_order_of_the_windows_does_not_matter():
    windows = [window((1.0, 5, 9), (3.0, 2, 4)), window((2.0, 5, 9)), window((3.0, 1, 2))]
    assert merged(*windows) == merged(*windows[::-1])


def test_how_many_are_returned_does_not_change_a_probability():
    windows = window((1.0, 0, 1), (1.0, 1, 2), (1.0, 2, 3), (1.0, 3, 4))
    assert merge_spans(windows, n_best=1) == [ScoredSpan(0, 1, 1.0, 0.25)]
    assert merge_spans(windows, n_best=9)[:1] == merge_spans(windows, n_best=1)


@pytest.mark.parametrize("score", [-np.inf, np.nan, np.inf])
def test_scores_that_are_not_finite_are_no_candidates(score):
    assert merged(window((score, 0, 1), (2.0, 3, 4))) == [ScoredSpan(3, 4, 2.0, 1.0)]


def test_large_scores_do_not_overflow():
    spans = merged(window((1e4, 0, 1), (1e4, 1, 2), (-1e4, 2, 3)))
    assert [span.probability for span in spans] == [0.5, 0.5, 0.0]


def test_the_lowest_null_score_takes_part():
    windows = [window((1.0, 0, 1), null=7.0), window((1.0, 1, 2), null=1.0)]
    assert [span.probability for span in merged(*windows, allows_no_answer=True)] == pytest.approx([1 / 3, 1 / 3])
    assert [span.probability for span in merged(*windows)] == [0.5, 0.5]


@pytest.mark.parametrize("windows", [window(), window((-np.inf, 0, 1))])
def test_without_a_candidate_there_is_no_answer(windows):
    assert merge_spans(windows) == []


def test_without_a_candidate_no_answer_is_certain():
    assert merged(window(null=2.0), allows_no_answer=True) == []


def test_single_precision_scores_keep_their_value():
    single = np.zeros(1, np.float32)
    spans = WindowSpans(np.full((1, 1), 0.1, np.float32), np.full((1, 1), 3), np.full((1, 1), 5), single)
    assert merge_spans(spans) == [ScoredSpan(3, 5, float(np.float32(0.1)), 1.0)]


def test_impossible_calls_are_refused():
    with pytest.raises(ValueError, match=r"^n_best is 0; at least 1 answer must be asked for\.$"):
        merge_spans(window((1.0, 0, 1)), n_best=0)
    with pytest.raises(ValueError, match=r"^windows: question 1 has none\.$"):
        merge_questions(joined([window(), window()]), np.array([0, 2]), 3)


def test_a_null_score_beyond_all_bounds_is_no_missing_window():
    assert merged(window((1.0, 3, 5), null=np.inf)) == [ScoredSpan(3, 5, 1.0, 1.0)]


def test_the_best_span_of_each_question():
    windows = joined(
        [
            window((1.0, 5, 9), (3.0, 8, 9)),
            window((-np.inf, 0, 1), (np.nan, 0, 1)),
            window((3.0, 7, 9), (3.0, 7, 8)),
            window((-5.0, 1, 2), (np.inf, 0, 1)),
        ]
    )
    found = best_of_each(windows, np.array([4, 0, 4, 1]))
    assert [column.tolist() for column in found] == [[1, 4], [-5.0, 3.0], [1, 7], [2, 8]]


def mean_f1(threshold, differences, has_answer, f1):
    scores = [
        float(not answerable) if difference > threshold else (value if answerable else 0.0)
        for difference, answerable, value in zip(differences, has_answer, f1, strict=True)
    ]
    return sum(scores) / len(scores)


cases = st.lists(
    st.tuples(
        st.sampled_from([-3.0, -1.5, -1.0, 0.0, 0.5, 1.0, 1.5, 4.0, np.inf, -np.inf]) | st.floats(-5, 5),
        st.booleans(),
        st.sampled_from([0.0, 0.25, 0.4, 2 / 3, 1.0]),
    ),
    min_size=1,
    max_size=25,
)


@settings(deadline=None)
@given(cases)
def test_the_threshold_is_that_of_brute_force(questions):
    differences, has_answer, f1 = (np.array(column) for column in zip(*questions, strict=True))
    finite = differences[np.isfinite(differences)]
    tried = [0.0, *finite, *([np.nextafter(finite.min(), -np.inf)] if len(finite) else [])]
    reached = {threshold: mean_f1(threshold, differences, has_answer, f1) for threshold in tried}
    best = max(reached.values())
    nearest = min((abs(one), one) for one, score in reached.items() if score >= best - 1e-10)[1]
    chosen = choose_no_answer_threshold(differences, has_answer, f1)
    assert chosen == nearest
    for other in np.linspace(-6, 6, 60):
        assert mean_f1(other, differences, has_answer, f1) <= mean_f1(chosen, differences, has_answer, f1) + 1e-9


@pytest.mark.parametrize(
    ("differences", "has_answer", "f1", "threshold"),
    [
        ([-2.0, -1.0, 1.0, 2.0], [True, True, False, False], [1, 1, 0, 0], 0.0),
        ([1.0, 2.0, 3.0], [True, True, False], [1, 1, 0], 2.0),
        ([-3.0, -2.0, -1.0], [True, False, False], [1, 0, 0], -3.0),
        ([-3.0, -2.0], [False, False], [0, 0], np.nextafter(-3.0, -np.inf)),
        ([3.0, 2.0], [False, False], [0, 0], 0.0),
        ([1.0, 1.0, 1.0], [True, True, False], [1, 1, 0], 1.0),
        ([-1.0, 1.0], [False, True], [0, 1], 1.0),
        ([np.inf], [False], [0], 0.0),
    ],
)
def test_the_threshold_of_small_sets(differences, has_answer, f1, threshold):
    assert choose_no_answer_threshold(np.array(differences), np.array(has_answer), np.array(f1)) == threshold


def test_thresholds_of_a_million_questions_take_seconds():
    rng = np.random.default_rng(0)
    has_answer = rng.random(1_000_000) < 0.5
    started = time.process_time()
    threshold = choose_no_answer_threshold(rng.normal(np.where(has_answer, -1.0, 2.0)), has_answer, np.ones(1_000_000))
    assert time.process_time() - started < 5
    assert threshold == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("differences", "has_answer", "f1", "sentence"),
    [
        (
            [0.0],
            [True, False],
            [1.0, 0.0],
            r"all arrays must be \(Q,\) and equally long, not \[\(1,\), \(2,\), \(2,\)\]\.",
        ),
        ([], [], [], r"null_minus_best: there is no question\."),
        ([0.0, np.nan], [True, True], [1.0, 1.0], r"null_minus_best: question 1 has no number \(NaN\)\."),
    ],
)
def test_arrays_that_say_nothing_are_refused(differences, has_answer, f1, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        choose_no_answer_threshold(np.array(differences), np.array(has_answer), np.array(f1))
