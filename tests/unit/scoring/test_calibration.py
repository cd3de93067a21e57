"""Calibration errors, temperatures and thresholds are what their definitions say, or are said not to exist."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import log_loss as sklearn_log_loss

from doctune.scoring.calibration import (
    Kept,
    ReliabilityBin,
    adaptive_calibration_error,
    apply_temperature,
    bin_numbers,
    coverage_curve,
    expected_calibration_error,
    fit_temperature,
    kept_by,
    reliability_bins,
    resampled_calibration_errors,
    scores_of,
    threshold_for,
)

SCORES = np.array([0.95, 0.85, 0.85, 0.55, 0.15])
IS_RIGHT = np.array([True, True, False, False, True])


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def noisy(num_documents=500, num_labels=4, sharpness=3.0, seed=0):
    """Truth drawn from softmax(logits), and the probabilities of a model that is `sharpness` times too sure."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(num_documents, num_labels))
    chances = softmax(logits)
    truth = (rng.random((num_documents, 1)) > chances.cumsum(axis=1)).sum(axis=1)
    return truth, softmax(logits * sharpness)


def test_scores_are_the_probabilities_of_the_predicted_labels():
    scores, is_right = scores_of(np.array([0, 1]), np.array([[0.7, 0.3], [0.6, 0.4]]))
    assert scores.tolist() == [0.7, 0.6]
    assert is_right.tolist() == [True, False]


def test_arrays_that_do_not_fit_together_are_refused():
    with pytest.raises(ValueError, match=r"probabilities must be \(N, L\) with N = 3, not \(2, 2\)\."):
        scores_of(np.array([0, 1, 0]), np.ones((2, 2)) / 2)
    with pytest.raises(ValueError, match=r"probabilities: there is no document\."):
        scores_of(np.array([]), np.empty((0, 2)))


def test_bins_include_their_upper_bound():
    assert bin_numbers(np.array([0.0, 0.1, 0.1001, 1.0]), bins=10).tolist() == [0, 0, 1, 9]


def test_the_error_is_the_weighted_distance_of_score_and_accuracy():
    # Bins of 0.1: 0.95 is alone (off by 0.05), the two 0.85 are half right (0.35), 0.55 and 0.15 are off by 0.55, 0.85.
    wanted = (0.05 + 2 * 0.35 + 0.55 + 0.85) / 5
    assert expected_calibration_error(SCORES, IS_RIGHT, bins=10) == pytest.approx(wanted, abs=1e-12)


def test_bins_of_equal_count_may_cancel_what_equal_widths_do_not():
    # Two bins of three and two: (1 - 0.15) + (0 - 0.55) + (1 - 0.85), and (0 - 0.85) + (1 - 0.95).
    wanted = (abs(0.85 - 0.55 + 0.15) + abs(-0.85 + 0.05)) / 5
    assert adaptive_calibration_error(SCORES, IS_RIGHT, bins=2) == pytest.approx(wanted, abs=1e-12)


def test_a_perfectly_calibrated_bin_has_no_error():
    scores = np.full(10, 0.8)
    is_right = np.array([True] * 8 + [False] * 2)
    assert expected_calibration_error(scores, is_right) == pytest.approx(0, abs=1e-12)
    assert adaptive_calibration_error(scores, is_right, bins=1) == pytest.approx(0, abs=1e-12)


def test_reliability_bins_count_every_document_once_and_leave_empty_ones_without_means():
    bins = reliability_bins(SCORES, IS_RIGHT, bins=10)
    assert sum(each.count for each in bins) == 5
    assert bins[8] == ReliabilityBin(0.8, 0.9, 2, pytest.approx(0.85), 0.5)
    assert bins[0] == ReliabilityBin(0.0, 0.1, 0, None, None)


def test_resampled_errors_are_those_of_the_resampled_documents():
    drawn = np.array([[1, 1, 1, 1, 1], [2, 0, 3, 0, 0]])
    again = np.repeat(np.arange(5), drawn[1])
    found = resampled_calibration_errors(SCORES, IS_RIGHT, drawn)
    assert found[0] == pytest.approx(expected_calibration_error(SCORES, IS_RIGHT))
    assert found[1] == pytest.approx(expected_calibration_error(SCORES[again], IS_RIGHT[again]))


# --- temperature -------------------------------------------------------------------------------------------------


def test_a_temperature_of_1_changes_nothing():
    _, chances = noisy(20)
    assert np.allclose(apply_temperature(chances, 1.0), chances, atol=1e-12)


@given(arrays(np.float64, (6, 3), elements=st.floats(-8, 8)), st.floats(0.1, 10))
def test_a_temperature_divides_the_logits_and_keeps_the_order_of_labels(logits, temperature):
    scaled = apply_temperature(softmax(logits), temperature)
    assert np.allclose(scaled, softmax(logits / temperature), atol=1e-9)


def test_the_fitted_temperature_undoes_what_made_the_model_too_sure():
    truth, chances = noisy(20_000, sharpness=3.0)
    fit = fit_temperature(truth, chances)
    assert fit.temperature == pytest.approx(3.0, rel=0.05)
    assert fit.problem == ""
    assert fit.documents == 20_000


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 4.0])
def test_no_other_temperature_has_a_lower_loss(sharpness):
    truth, chances = noisy(sharpness=sharpness, seed=3)
    fit = fit_temperature(truth, chances)
    losses = {
        step: sklearn_log_loss(truth, apply_temperature(chances, fit.temperature * step), labels=range(4))
        for step in (0.999, 1.0, 1.001)
    }
    assert min(losses, key=losses.get) == 1.0
    assert losses[1.0] == pytest.approx(fit.log_loss_after, abs=1e-9)
    assert sklearn_log_loss(truth, chances, labels=range(4)) == pytest.approx(fit.log_loss_before, abs=1e-9)


def test_the_fit_is_exact_to_a_millionth():
    # Two labels, three of four right: the best score is 0.75, so softmax(log p / T) must give it.
    chances = np.tile([0.9, 0.1], (4, 1))
    fit = fit_temperature(np.array([0, 0, 0, 1]), chances)
    assert fit.temperature == pytest.approx(np.log(9) / np.log(3), abs=1e-6)
    assert apply_temperature(chances, fit.temperature)[0, 0] == pytest.approx(0.75, abs=1e-6)


@pytest.mark.parametrize(
    ("truth", "chances", "problem"),
    [
        ([0, 1], [[0.9, 0.1], [0.2, 0.8]], "no validation document was wrong, so nothing says how unsure the model"),
        ([0], [[0.9, 0.1]], "no validation document was wrong"),
        ([1], [[0.9, 0.1]], "on the validation documents the probabilities say nothing of the labels"),
        ([0, 0], [[1.0], [1.0]], "there is one label only"),
        ([0], [[np.nan, np.nan]], "there is no validation document to fit it on"),
        ([], np.empty((0, 3)), "there is no validation document to fit it on"),
    ],
)
def test_where_no_temperature_is_the_best_it_is_1_and_the_reason_is_said(truth, chances, problem):
    fit = fit_temperature(np.array(truth, np.int64), np.array(chances))
    assert fit.temperature == 1.0
    assert fit.problem.startswith(problem)
    assert fit.log_loss_after == fit.log_loss_before


def test_probabilities_that_float32_rounds_to_0_stay_usable():
    truth, chances = np.array([0, 1, 1]), np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], np.float32)
    fit = fit_temperature(truth, chances)
    assert np.isfinite(apply_temperature(chances, fit.temperature)).all()
    assert np.isfinite([fit.temperature, fit.log_loss_before, fit.log_loss_after]).all()


# --- thresholds --------------------------------------------------------------------------------------------------


def test_the_curve_keeps_equal_scores_together():
    curve = coverage_curve(SCORES, IS_RIGHT)
    assert curve.thresholds.tolist() == [0.95, 0.85, 0.55, 0.15]
    assert curve.coverage.tolist() == [0.2, 0.6, 0.8, 1.0]
    assert curve.accuracy.tolist() == pytest.approx([1, 2 / 3, 0.5, 0.6])


def test_the_threshold_keeps_as_many_as_the_precision_allows():
    assert threshold_for(0.6, SCORES, IS_RIGHT) == 0.15
    assert threshold_for(0.61, SCORES, IS_RIGHT) == 0.85
    assert threshold_for(0.9, SCORES, IS_RIGHT) == 0.95


def test_a_precision_that_cannot_be_reached_has_no_threshold():
    assert threshold_for(0.5, np.array([0.9, 0.8]), np.array([False, False])) is None


def test_what_a_threshold_keeps_of_other_documents():
    assert kept_by(0.85, SCORES, IS_RIGHT) == Kept(3, 0.6, pytest.approx(2 / 3))
    assert kept_by(0.99, SCORES, IS_RIGHT) == Kept(0, 0.0, None)


def test_a_curve_needs_a_document():
    with pytest.raises(ValueError, match=r"scores: there is no document\."):
        coverage_curve(np.array([]), np.array([], bool))
