"""Curves and areas are those of scikit-learn, and None where a label has no curve."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc_curve

from doctune.scoring import ranking
from doctune.scoring.intervals import resampled_values
from doctune.scoring.ranking import average_precision, macro, per_label, rank_labels, roc_auc, roc_curve

# Few distinct scores, so that ties are the rule.
RANKED = st.lists(st.tuples(st.booleans(), st.integers(0, 5).map(lambda tenth: tenth / 10)), min_size=2, max_size=40)


def with_both(documents):
    is_positive, scores = (np.array(column) for column in zip(*documents, strict=True))
    is_positive[0], is_positive[1] = True, False
    return is_positive, scores


@given(RANKED)
def test_areas_are_those_of_scikit_learn(documents):
    is_positive, scores = with_both(documents)
    assert roc_auc(is_positive, scores) == pytest.approx(roc_auc_score(is_positive, scores), abs=1e-9)
    assert average_precision(is_positive, scores) == pytest.approx(
        average_precision_score(is_positive, scores), abs=1e-9
    )


@given(RANKED)
def test_curves_are_those_of_scikit_learn(documents):
    is_positive, scores = with_both(documents)
    ours = roc_curve(is_positive, scores)
    theirs = sklearn_roc_curve(is_positive, scores, drop_intermediate=False)
    assert np.allclose(ours.false_positive_rate, theirs[0])
    assert np.allclose(ours.true_positive_rate, theirs[1])
    ours = ranking.precision_recall_curve(is_positive, scores)
    precision, recall, _ = precision_recall_curve(is_positive, scores)  # from the lowest threshold, with a point added
    assert np.allclose(ours.precision, precision[:-1][::-1])
    assert np.allclose(ours.recall, recall[:-1][::-1])


def made_up(num_documents=120, num_labels=5, decimals=2):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, num_labels, num_documents)
    logits = rng.normal(size=(num_documents, num_labels))
    logits[np.arange(num_documents), truth] += 1
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return truth, np.round(chances, decimals)


def test_macro_means_are_those_of_scikit_learn():
    truth, chances = made_up()
    is_label = np.eye(5)[truth]
    assert macro(per_label(truth, chances, roc_auc)) == pytest.approx(roc_auc_score(is_label, chances), abs=1e-9)
    assert macro(per_label(truth, chances, average_precision)) == pytest.approx(
        average_precision_score(is_label, chances), abs=1e-9
    )


def test_a_label_without_documents_has_no_area_and_no_say_in_the_mean():
    truth, chances = np.array([0, 1, 1]), np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1]])
    areas = per_label(truth, chances, roc_auc)
    assert areas == (1.0, 1.0, None)
    assert macro(areas) == 1.0
    assert per_label(truth, chances, average_precision) == (1.0, 1.0, None)


def test_a_label_that_all_documents_have_has_no_roc_curve_but_a_precision_of_1():
    is_positive = np.array([True, True])
    assert roc_curve(is_positive, np.array([0.5, 0.9])) is None
    assert roc_auc(is_positive, np.array([0.5, 0.9])) is None
    assert average_precision(is_positive, np.array([0.5, 0.9])) == 1.0


def test_without_any_known_label_there_is_no_mean():
    assert macro((None, None)) is None


def test_scores_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match=r"scores: that of document 1 is not finite\."):
        roc_auc(np.array([True, False]), np.array([0.5, np.nan]))


def test_lengths_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"positives and scores must be \(N,\) and equally long, not \(2,\), \(3,\)\."):
        roc_auc(np.array([True, False]), np.ones(3))


# --- resamples ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decimals", [1, 8])
def test_resampled_means_are_those_of_the_documents_that_were_drawn(decimals):
    truth, chances = made_up(decimals=decimals)
    drawn = np.random.default_rng(1).multinomial(120, np.ones(120) / 120, size=5)
    ranked = rank_labels(truth, chances)
    areas, precisions = ranked.macro_roc_auc(drawn), ranked.macro_average_precision(drawn)
    for row, counts in enumerate(drawn):
        again = np.repeat(np.arange(120), counts)
        assert areas[row] == pytest.approx(macro(per_label(truth[again], chances[again], roc_auc)), abs=1e-12)
        assert precisions[row] == pytest.approx(
            macro(per_label(truth[again], chances[again], average_precision)), abs=1e-12
        )


def test_a_resample_of_one_label_alone_has_no_area():
    truth, chances = np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]])
    areas = rank_labels(truth, chances).macro_roc_auc(np.array([[2, 0], [1, 1]]))
    assert np.isnan(areas[0])
    assert areas[1] == 1.0


def test_resamples_without_an_area_are_left_out_of_the_values():
    ranked = rank_labels(np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]]))
    values = resampled_values(2, {"area": ranked.macro_roc_auc}, resamples=100)["area"]
    assert 30 < len(values) < 70
    assert (values == 1).all()
