from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from doctune.scoring.classification import (
    STATISTICS,
    class_scores,
    confusion_matrix,
    document_log_losses,
    f1_macro,
    f1_mix,
    log_loss,
    score,
    top_k_accuracy,
)

TRUTH = np.array([0, 0, 0, 1, 1, 2])
PREDICTED = np.array([0, 0, 1, 1, 0, 2])


@pytest.fixture
def soft():
    rng = np.random.default_rng(3)
    probabilities = rng.dirichlet(np.ones(5), size=400)
    truth = np.where(rng.random(400) < 0.6, probabilities.argmax(1), rng.integers(0, 5, 400))
    return truth, probabilities


def test_confusion_matrix_has_the_truth_in_rows():
    assert confusion_matrix(TRUTH, PREDICTED, 4).tolist() == [[2, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]


def test_scores_of_a_small_example():
    scores = score(TRUTH, PREDICTED, 3)
    assert scores.to_dict() == {
        "documents": 6,
        "accuracy": pytest.approx(4 / 6),
        "f1_macro": pytest.approx((2 / 3 + 1 / 2 + 1) / 3),
        "precision_macro": pytest.approx((2 / 3 + 1 / 2 + 1) / 3),
        "recall_macro": pytest.approx((2 / 3 + 1 / 2 + 1) / 3),
        "f1_weighted": pytest.approx((3 * 2 / 3 + 2 * 1 / 2 + 1) / 6),
        "precision_weighted": pytest.approx((3 * 2 / 3 + 2 * 1 / 2 + 1) / 6),
        "recall_weighted": pytest.approx(4 / 6),
        "log_loss": None,
        "top_k_accuracy": None,
    }


def test_labels_that_nobody_met_do_not_enter_macro_averages():
    assert score(TRUTH, PREDICTED, 3).f1_macro == score(TRUTH, PREDICTED, 50).f1_macro


def test_a_label_that_was_only_predicted_counts_as_zero():
    assert score(np.array([0, 0]), np.array([0, 1]), 3).f1_macro == pytest.approx((2 / 3 + 0) / 2)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 40), st.integers(0, 10_000))
def test_hard_scores_agree_with_scikit_learn(num_labels, documents, seed):
    rng = np.random.default_rng(seed)
    truth, predicted = rng.integers(0, num_labels, (2, documents))
    ours = score(truth, predicted, num_labels)
    assert ours.accuracy == pytest.approx(metrics.accuracy_score(truth, predicted), abs=1e-6)
    for average in ("macro", "weighted"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = metrics.precision_recall_fscore_support(truth, predicted, average=average, zero_division=0)
        names = (f"precision_{average}", f"recall_{average}", f"f1_{average}")
        assert [getattr(ours, name) for name in names] == pytest.approx(list(theirs[:3]), abs=1e-6)


def test_class_scores_agree_with_scikit_learn_with_an_absent_class(soft):
    truth, probabilities = soft
    predicted = probabilities.argmax(1)
    ours = class_scores(confusion_matrix(truth, predicted, 7))
    theirs = metrics.precision_recall_fscore_support(truth, predicted, labels=range(7), zero_division=0)
    for mine, reference in zip((ours.precision, ours.recall, ours.f1, ours.support), theirs, strict=True):
        np.testing.assert_allclose(mine, reference, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_log_loss_agrees_with_scikit_learn(soft, dtype):
    truth, probabilities = soft
    probabilities = probabilities.astype(dtype)
    reference = metrics.log_loss(truth, probabilities, labels=range(5))
    assert log_loss(truth, probabilities) == pytest.approx(reference, abs=1e-6)


def test_log_loss_of_a_certain_mistake_is_finite_and_of_a_diverged_model_is_not():
    certain = np.array([[1.0, 0.0]])
    assert log_loss(np.array([1]), certain) == pytest.approx(-np.log(np.finfo(np.float64).eps))
    assert np.isnan(log_loss(np.array([1]), np.array([[np.nan, np.nan]])))


def test_document_log_losses_are_one_number_per_document():
    losses = document_log_losses(np.array([0, 1]), np.array([[0.5, 0.5], [0.75, 0.25]]))
    assert losses == pytest.approx([np.log(2), np.log(4)])


@pytest.mark.parametrize("k", [1, 2, 3])
def test_top_k_accuracy_agrees_with_scikit_learn(soft, k):
    truth, probabilities = soft
    reference = metrics.top_k_accuracy_score(truth, probabilities, k=k, labels=range(5))
    assert top_k_accuracy(truth, probabilities, k) == pytest.approx(reference, abs=1e-6)


def test_top_1_accuracy_equals_argmax_with_ties():
    probabilities = np.array([[0.5, 0.5], [0.5, 0.5]])
    assert top_k_accuracy(np.array([0, 1]), probabilities, 1) == 0.5


def test_top_k_counts_rows_of_nan_as_misses():
    broken = np.full((1, 4), np.nan)
    assert [top_k_accuracy(np.array([truth]), broken, 3) for truth in range(4)] == [0, 0, 0, 0]


def test_top_k_that_every_answer_would_reach_is_left_out():
    probabilities = np.full((2, 4), 0.25)
    scores = score(np.array([0, 3]), np.array([0, 0]), 4, probabilities)
    assert scores.to_dict()["top_k_accuracy"] == {"3": 0.5}


@pytest.mark.parametrize("name", STATISTICS)
def test_statistics_of_a_stack_equal_those_of_its_matrices(name):
    stack = np.random.default_rng(0).integers(0, 4, (5, 3, 3))
    assert STATISTICS[name](stack).tolist() == [float(STATISTICS[name](matrix)) for matrix in stack]


def test_an_empty_matrix_in_a_stack_scores_zero():
    assert f1_macro(np.zeros((2, 3, 3))).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [
        ([], [], "truth: there is no document to score."),
        ([0, 3], [0, 0], "truth: ids run from 0 to 3, but there are 3 labels."),
        ([0, 1], [0, -1], "predictions: ids run from -1 to 0, but there are 3 labels."),
        ([0, 1], [0], "truth and predictions must be (N,) and equally long, not (2,), (1,)."),
    ],
)
def test_arrays_that_do_not_fit_are_refused(truth, predicted, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        confusion_matrix(np.array(truth, dtype=int), np.array(predicted, dtype=int), 3)


def test_probabilities_of_another_length_are_refused():
    with pytest.raises(ValueError, match=r"probabilities must be \(N, L\) with N = 2, not \(1, 3\)"):
        log_loss(np.array([0, 1]), np.ones((1, 3)))


def test_the_mix_weighs_the_f1_of_each_label():
    truth, predicted = np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 2, 2, 0])
    confusion = confusion_matrix(truth, predicted, 4)
    expected = metrics.f1_score(truth, predicted, average=None, labels=[0, 1, 2, 3], zero_division=0)
    weights = np.array([3.0, 3.0, 4.0, 10.0])
    assert f1_mix(confusion, weights) == pytest.approx(float(expected @ weights) / 20)
    assert f1_mix(confusion, weights * 7) == pytest.approx(f1_mix(confusion, weights))
