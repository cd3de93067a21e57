from __future__ import annotations

import time

import numpy as np
import pytest

from doctune.scoring import intervals
from doctune.scoring.classification import STATISTICS, accuracy, confusion_matrix, f1_macro
from doctune.scoring.intervals import (
    bootstrap_interval,
    bootstrap_intervals,
    bootstrap_mean_interval,
    paired_difference,
    percentile_interval,
    resampled_values,
    unbiased_interval,
)


def test_accuracy_interval_is_that_of_the_binomial():
    low, high = bootstrap_interval(np.array([[90, 10], [0, 100]]), accuracy, resamples=20_000)
    half_width = 1.96 * np.sqrt(0.95 * 0.05 / 200)
    assert (low, high) == pytest.approx((0.95 - half_width, 0.95 + half_width), abs=0.006)


def test_interval_agrees_with_a_loop_over_resampled_documents():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 150)
    predicted = np.where(rng.random(150) < 0.7, truth, rng.integers(0, 4, 150))
    looped = []
    for _ in range(2000):
        drawn = rng.integers(0, 150, 150)
        looped.append(f1_macro(confusion_matrix(truth[drawn], predicted[drawn], 4)))
    ours = bootstrap_interval(confusion_matrix(truth, predicted, 4), f1_macro, resamples=4000)
    assert ours == pytest.approx(tuple(np.quantile(looped, [0.025, 0.975])), abs=0.015)


def test_intervals_depend_on_the_seed_alone(monkeypatch):
    confusion = np.array([[8, 2], [3, 9]])
    first = bootstrap_interval(confusion, f1_macro, seed=7)
    monkeypatch.setattr(intervals, "CHUNK_NUMBERS", 40)
    assert bootstrap_interval(confusion, f1_macro, seed=7) == first
    assert bootstrap_interval(confusion, f1_macro, seed=8) != first


def test_several_statistics_share_the_resamples_of_one():
    confusion = np.array([[8, 2], [3, 9]])
    together = bootstrap_intervals(confusion, STATISTICS, seed=5)
    assert together == {name: bootstrap_interval(confusion, STATISTICS[name], seed=5) for name in STATISTICS}
    assert together["accuracy"] == together["recall_weighted"]


def test_a_wider_level_gives_a_wider_interval():
    confusion = np.array([[30, 10], [12, 28]])
    narrow, wide = (bootstrap_interval(confusion, f1_macro, level=level) for level in (0.5, 0.99))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_without_a_mistake_the_interval_has_no_width():
    assert bootstrap_interval(np.diag([5, 5]), f1_macro) == (1.0, 1.0)


def test_mean_interval_is_that_of_the_normal_distribution():
    values = np.random.default_rng(1).normal(3.0, 2.0, 400)
    half_width = 1.96 * values.std() / 20
    expected = (values.mean() - half_width, values.mean() + half_width)
    assert bootstrap_mean_interval(values, resamples=8000) == pytest.approx(expected, abs=0.03)


def test_mean_interval_does_not_depend_on_the_chunks(monkeypatch):
    values = np.arange(30.0)
    first = bootstrap_mean_interval(values)
    monkeypatch.setattr(intervals, "CHUNK_NUMBERS", 90)
    assert bootstrap_mean_interval(values) == first


def test_paired_difference_of_a_model_with_itself_is_zero():
    truth = np.array([0, 1, 2, 0])
    predicted = np.array([0, 1, 1, 2])
    difference = paired_difference(truth, predicted, predicted, 3, f1_macro)
    assert (difference.value, difference.low, difference.high) == (0.0, 0.0, 0.0)


def test_paired_difference_is_certain_where_separate_intervals_overlap():
    truth = np.zeros(200, int)
    truth[:100] = 1
    worse = truth.copy()
    worse[:30] = 0
    better = truth.copy()
    better[:20] = 0
    difference = paired_difference(truth, better, worse, 2, accuracy)
    separate = [bootstrap_interval(confusion_matrix(truth, ids, 2), accuracy) for ids in (better, worse)]
    assert difference.value == pytest.approx(0.05)
    assert difference.low > 0
    assert separate[0][0] < separate[1][1]


def test_paired_difference_changes_its_sign_with_the_order():
    truth = np.array([0, 0, 1, 1] * 10)
    one, other = truth.copy(), np.zeros(40, int)
    there, back = paired_difference(truth, one, other, 2, f1_macro), paired_difference(truth, other, one, 2, f1_macro)
    assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low), abs=0.03)


def test_all_statistics_of_45_classes_and_70000_documents_take_seconds():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 45, 70_000)
    predicted = np.where(rng.random(70_000) < 0.9, truth, rng.integers(0, 45, 70_000))
    confusion = confusion_matrix(truth, predicted, 45)
    started = time.monotonic()
    bootstrap_intervals(confusion, STATISTICS)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    "call",
    [
        lambda: bootstrap_interval(np.zeros((2, 2), int), f1_macro),
        lambda: bootstrap_mean_interval(np.array([])),
        lambda: paired_difference(np.array([], int), np.array([], int), np.array([], int), 2, f1_macro),
    ],
)
def test_no_document_has_no_interval(call):
    with pytest.raises(ValueError, match="no document to score"):
        call()


def test_paired_arrays_must_be_equally_long():
    with pytest.raises(ValueError, match="equally long"):
        paired_difference(np.array([0]), np.array([0, 1]), np.array([0]), 2, f1_macro)


def test_resampled_values_agree_with_the_interval_of_a_mean():
    is_right = np.array([1.0] * 90 + [0.0] * 10)
    values = resampled_values(100, {"accuracy": lambda drawn: drawn @ is_right / 100}, resamples=20_000)["accuracy"]
    half_width = 1.96 * np.sqrt(0.9 * 0.1 / 100)
    assert percentile_interval(values) == pytest.approx((0.9 - half_width, 0.9 + half_width), abs=0.01)


def test_resampled_values_depend_on_the_seed_alone(monkeypatch):
    weights = np.arange(7.0)
    first = resampled_values(7, {"sum": lambda drawn: drawn @ weights}, seed=3)["sum"]
    monkeypatch.setattr(intervals, "CHUNK_NUMBERS", 20)
    assert (resampled_values(7, {"sum": lambda drawn: drawn @ weights}, seed=3)["sum"] == first).all()


def test_an_unbiased_interval_is_moved_to_hold_the_value_and_stays_above_0():
    values = np.linspace(0.05, 0.15, 1001)  # of mean 0.1
    assert unbiased_interval(0.06, values) == pytest.approx((0.0125, 0.1075), abs=1e-4)
    assert unbiased_interval(0.01, values) == pytest.approx((0.0, 0.0575), abs=1e-4)


def test_without_documents_or_values_there_is_no_interval():
    with pytest.raises(ValueError, match=r"num_documents is 0: there is no document to score\."):
        resampled_values(0, {})
    with pytest.raises(ValueError, match=r"values: there is no resample to take percentiles of\."):
        percentile_interval(np.array([]))
