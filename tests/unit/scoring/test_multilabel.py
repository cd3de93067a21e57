import time

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from doctune.scoring.multilabel import (
    LabelCounts,
    bootstrap_intervals,
    chance_levels,
    f1_macro,
    f1_micro,
    label_counts,
    label_scores,
    score,
    tune_thresholds,
)


def random_sets(seed, texts=300, labels=9):
    """Truth with common, rare and absent labels, predictions that follow it, both with empty rows."""
    rng = np.random.default_rng(seed)
    chances = np.linspace(0.5, 0.0, labels)
    truth = rng.random((texts, labels)) < chances
    predicted = np.where(rng.random((texts, labels)) < 0.7, truth, rng.random((texts, labels)) < chances)
    predicted[:, -2] = False
    return truth, predicted


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_those_of_scikit_learn(seed):
    truth, predicted = random_sets(seed)
    found = score(truth, predicted).to_dict()
    expected = {"texts": 300, "exact_match": accuracy_score(truth, predicted)}
    for average in ("macro", "micro", "samples"):
        precision, recall, f1, _ = precision_recall_fscore_support(truth, predicted, average=average, zero_division=0)
        expected |= {f"precision_{average}": precision, f"recall_{average}": recall, f"f1_{average}": f1}
    assert found == pytest.approx(expected, abs=1e-9)
    counts = label_counts(truth, predicted)
    precision, recall, f1, support = precision_recall_fscore_support(truth, predicted, average=None, zero_division=0)
    scores = label_scores(counts)
    for one, other in ((scores.precision, precision), (scores.recall, recall), (scores.f1, f1)):
        np.testing.assert_allclose(one, other, atol=1e-9)
    assert counts.support.tolist() == support.tolist()


def test_the_statistics_of_counts_are_the_headline_scores():
    truth, predicted = random_sets(0)
    counts, found = label_counts(truth, predicted), score(truth, predicted)
    assert (float(f1_macro(counts)), float(f1_micro(counts))) == (found.f1_macro, found.f1_micro)


def test_labels_that_nobody_has_count_in_macro():
    truth, predicted = np.array([[1, 0], [1, 0]], bool), np.array([[1, 0], [1, 0]], bool)
    assert score(truth, predicted).f1_macro == 0.5
    assert score(truth, predicted).f1_micro == 1.0


def test_counts_may_have_leading_dimensions():
    hits, predicted, support = np.array([[1, 0], [2, 1]]), np.array([[2, 0], [2, 1]]), np.array([[1, 0], [2, 3]])
    assert f1_macro(LabelCounts(hits, predicted, support)).tolist() == pytest.approx([1 / 3, 0.75])
    assert f1_micro(LabelCounts(hits, predicted, support)).tolist() == pytest.approx([2 / 3, 0.75])


def test_the_interval_is_that_of_drawing_texts():
    truth, predicted = random_sets(1)
    found = bootstrap_intervals(truth, predicted, resamples=4000)
    rng = np.random.default_rng(0)
    drawn = [rng.integers(0, len(truth), len(truth)) for _ in range(2000)]
    for name, statistic in (("f1_macro", f1_macro), ("f1_micro", f1_micro)):
        values = [float(statistic(label_counts(truth[rows], predicted[rows]))) for rows in drawn]
        assert found[name] == pytest.approx(np.quantile(values, [0.025, 0.975]).tolist(), abs=0.006)
        low, high = found[name]
        assert low < getattr(score(truth, predicted), name) < high


def test_the_interval_depends_on_nothing_but_its_arguments():
    truth, predicted = random_sets(1)
    order = np.random.default_rng(0).permutation(len(truth))
    first = bootstrap_intervals(truth, predicted, resamples=200)
    assert bootstrap_intervals(truth[order], predicted[order], resamples=200) == first
    assert bootstrap_intervals(truth, predicted, resamples=200, seed=1) != first


def test_chunks_of_resamples_change_nothing(monkeypatch):
    truth, predicted = random_sets(1)
    whole = bootstrap_intervals(truth, predicted, resamples=100)
    monkeypatch.setattr("doctune.scoring.multilabel.CHUNK_NUMBERS", 1)
    assert bootstrap_intervals(truth, predicted, resamples=100) == whole


def test_no_mistake_has_an_interval_without_width():
    truth = np.eye(3, dtype=bool)[[0, 1, 2] * 40]
    assert bootstrap_intervals(truth, truth) == {"f1_macro": (1.0, 1.0), "f1_micro": (1.0, 1.0)}


def test_a_thousand_resamples_of_five_thousand_texts_take_seconds():
    truth, predicted = random_sets(2, texts=5000, labels=28)
    start = time.process_time()
    bootstrap_intervals(truth, predicted)
    assert time.process_time() - start < 20


def test_arrays_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"truth and predictions must be \(N, L\) alike, not \(2, 3\), \(2, 2\)\."):
        score(np.zeros((2, 3)), np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"truth: there is no text to score\."):
        score(np.zeros((0, 3)), np.zeros((0, 3)))
    with pytest.raises(ValueError, match=r"truth and probabilities must be \(N, L\) alike, not \(2, 3\), \(2, 2\)\."):
        tune_thresholds(np.zeros((2, 3)), np.zeros((2, 2)))


def test_chance_is_what_can_be_had_without_reading():
    truth, _ = random_sets(3)
    train, _ = random_sets(4, texts=500)
    found = chance_levels(train.sum(axis=0), len(train), truth.sum(axis=0), len(truth))
    everything = score(truth, np.ones_like(truth))
    shares = np.tile((train.sum(axis=0) + 1) / (len(train) + 2), (len(truth), 1))
    assert (found["f1_macro"], found["f1_micro"]) == pytest.approx((everything.f1_macro, everything.f1_micro))
    assert found["loss"] == pytest.approx(-np.log(np.where(truth, shares, 1 - shares)).mean())


# --- thresholds --------------------------------------------------------------------------------------------------


def random_probabilities(seed, texts=80, labels=5, digits=2):
    """Rounded, so that there are many equal ones."""
    rng = np.random.default_rng(seed)
    truth = rng.random((texts, labels)) < np.linspace(0.4, 0.05, labels)
    return truth, np.round(np.clip(0.3 * truth + rng.random((texts, labels)) * 0.7, 0, 1), digits)


def f1_at(truth, probabilities, threshold):
    """Of each label, by its definition."""
    predicted = probabilities >= threshold
    return 2 * (truth & predicted).sum(axis=0) / np.maximum(truth.sum(axis=0) + predicted.sum(axis=0), 1)


@pytest.mark.parametrize("digits", [1, 2, 17])
@pytest.mark.parametrize("seed", range(4))
def test_no_threshold_has_a_better_f1_than_the_one_that_is_found(seed, digits):
    truth, probabilities = random_probabilities(seed, digits=digits)
    found = tune_thresholds(truth, probabilities, min_positives=0)
    best = np.max([f1_at(truth, probabilities, each) for each in (*np.unique(probabilities), 1.1)], axis=0)
    assert f1_at(truth, probabilities, found.values).tolist() == pytest.approx(best.tolist(), abs=1e-12)


@pytest.mark.parametrize("digits", [1, 2, 17])
@pytest.mark.parametrize("seed", range(4))
def test_no_shared_threshold_has_a_better_macro_f1_than_the_one_that_is_found(seed, digits):
    truth, probabilities = random_probabilities(seed, digits=digits)
    found = tune_thresholds(truth, probabilities, min_positives=10**9)
    candidates = np.unique(probabilities)
    best = max(f1_at(truth, probabilities, each).mean() for each in candidates)
    assert f1_at(truth, probabilities, found.shared).mean() == pytest.approx(best, abs=1e-12)
    assert found.values.tolist() == [found.shared] * 5
    assert not found.is_own.any()


def test_a_threshold_lies_half_way_between_the_texts_that_it_parts():
    truth = np.array([[1], [1], [0], [0]], bool)
    found = tune_thresholds(truth, np.array([[0.9], [0.6], [0.2], [0.1]]), min_positives=1)
    assert found.values.tolist() == pytest.approx([0.4])


def test_of_equally_good_cuts_the_one_that_predicts_least_is_taken():
    # One right of one (F1 2/3 of two true) is as good as two right of four.
    truth = np.array([[1], [0], [0], [1]], bool)
    found = tune_thresholds(truth, np.array([[0.9], [0.8], [0.3], [0.2]]), min_positives=1)
    assert found.values.tolist() == pytest.approx([0.85])


def test_a_label_that_is_best_predicted_always_or_never():
    truth = np.array([[1, 0], [1, 0], [1, 0]], bool)
    probabilities = np.array([[0.4, 0.9], [0.2, 1.0], [0.1, 0.7]])
    found = tune_thresholds(truth, probabilities, min_positives=0)
    assert found.apply(probabilities).tolist() == [[True, False]] * 3


def test_neighbouring_numbers_can_be_parted():
    upper = np.nextafter(0.5, 1.0)
    found = tune_thresholds(np.array([[1], [0]], bool), np.array([[upper], [0.5]]), min_positives=1)
    assert found.values.tolist() == [upper]


def test_rare_labels_have_the_shared_threshold():
    truth, probabilities = random_probabilities(0)
    positives = truth.sum(axis=0)
    floor = int(np.sort(positives)[2])
    found = tune_thresholds(truth, probabilities, min_positives=floor)
    assert found.is_own.tolist() == (positives >= floor).tolist()
    assert found.values[~found.is_own].tolist() == [found.shared] * int((~found.is_own).sum())
    own = tune_thresholds(truth, probabilities, min_positives=0)
    assert found.values[found.is_own].tolist() == own.values[found.is_own].tolist()


def test_thresholds_do_not_depend_on_the_order_of_texts():
    truth, probabilities = random_probabilities(3, digits=1)
    order = np.random.default_rng(1).permutation(len(truth))
    first, second = (tune_thresholds(truth[rows], probabilities[rows]) for rows in (slice(None), order))
    assert first.values.tolist() == second.values.tolist()
