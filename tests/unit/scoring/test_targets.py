import re

import numpy as np
import pytest

from doctune.scoring import classification, intervals, multilabel
from doctune.scoring.targets import JudgedTarget, mean_f1_interval, mean_f1_macro, paired_difference


def sets(*rows):
    return np.array([[letter == "1" for letter in row] for row in rows])


def target(truth, said, known=None, is_multi=True):
    known = np.ones(len(truth), bool) if known is None else np.array(known, bool)
    return JudgedTarget(truth, said, known, is_multi)


def random_target(seed, texts=200, labels=5, share=0.8, is_multi=True):
    """Truth and a follower that is right with probability `share`; a quarter of the texts do not know it."""
    rng = np.random.default_rng(seed)
    if is_multi:
        truth = rng.random((texts, labels)) < 0.3
        said = np.where(rng.random((texts, labels)) < share, truth, ~truth)
    else:
        ids = rng.integers(0, labels, texts)
        others = np.where(rng.random(texts) < share, ids, (ids + 1) % labels)
        truth, said = np.eye(labels, dtype=bool)[ids], np.eye(labels, dtype=bool)[others]
    return target(truth, said, np.arange(texts) % 4 != 0, is_multi)


def test_the_mean_is_that_of_the_targets_over_the_texts_that_know_each():
    # The first label is always right. The second is never met: F1 0, which counts only where labels form a set.
    truth, said = sets("10", "10", "01"), sets("10", "10", "10")
    known = [True, True, False]
    multi, single = target(truth, said, known), target(truth, said, known, is_multi=False)
    assert (multi.f1_macro(), single.f1_macro()) == (0.5, 1.0)
    assert mean_f1_macro([multi, single]) == 0.75


@pytest.mark.parametrize("seed", range(3))
def test_macro_f1_is_that_of_each_kinds_own_scores(seed):
    multi, single = random_target(seed), random_target(seed, is_multi=False)
    assert multi.f1_macro() == pytest.approx(
        multilabel.score(multi.truth[multi.known], multi.said[multi.known]).f1_macro
    )
    truth, said = (array[single.known].argmax(axis=1) for array in (single.truth, single.said))
    assert single.f1_macro() == pytest.approx(classification.score(truth, said, 5).f1_macro)


def test_the_interval_is_that_of_drawing_texts_with_all_of_their_targets():
    targets = [random_target(1), random_target(2, is_multi=False)]
    low, high = mean_f1_interval(targets, resamples=4000)
    rng = np.random.default_rng(5)
    values = []
    for _ in range(2000):
        rows = rng.integers(0, 200, 200)
        drawn = [JudgedTarget(each.truth[rows], each.said[rows], each.known[rows], each.is_multi) for each in targets]
        values.append(mean_f1_macro(drawn))
    assert (low, high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])), abs=0.005)
    assert low < mean_f1_macro(targets) < high


def test_targets_that_agree_make_the_interval_no_narrower():
    one = random_target(3)
    assert mean_f1_interval([one, one]) == mean_f1_interval([one])


def test_a_resample_without_a_text_that_knows_a_target_leaves_it_out():
    always = target(sets("1", "1"), sets("1", "1"))
    once = target(sets("1", "0"), sets("1", "0"), [True, False])
    assert mean_f1_interval([always, once]) == (1.0, 1.0)


def test_the_interval_depends_on_nothing_but_its_arguments():
    targets = [random_target(4)]
    assert mean_f1_interval(targets) == mean_f1_interval(targets)
    assert mean_f1_interval(targets) != mean_f1_interval(targets, seed=1)


def test_a_paired_difference_is_narrower_than_that_of_separate_draws():
    good = random_target(6, share=0.9)
    flipped = good.said.copy()
    flipped[::10, 0] ^= True
    worse = JudgedTarget(good.truth, flipped, good.known, True)
    lead = paired_difference([good], [worse])
    assert lead.value == pytest.approx(good.f1_macro() - worse.f1_macro())
    assert lead.low < lead.value < lead.high
    own, other = mean_f1_interval([good]), mean_f1_interval([worse])
    assert lead.high - lead.low < (own[1] - own[0] + other[1] - other[0]) / 2


def test_the_difference_of_one_single_target_is_that_of_confusion_matrices():
    good, bad = (random_target(7, share=share, is_multi=False) for share in (0.9, 0.6))
    assert np.array_equal(good.truth, bad.truth)
    truth, first, second = (
        array[good.known].argmax(axis=1) for array in (good.truth, good.said, bad.said)
    )  # fmt: skip
    expected = intervals.paired_difference(truth, first, second, 5, classification.f1_macro, resamples=4000)
    found = paired_difference([good], [bad], resamples=4000)
    assert found.value == pytest.approx(expected.value)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.012)


def test_the_same_predictions_differ_by_nothing():
    one = random_target(8)
    found = paired_difference([one, one], [one, one])
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: target(sets("10"), sets("1")),
            "truth and said must be (N, L) alike and known (N,), not [(1, 2), (1, 1), (1,)].",
        ),
        (lambda: target(sets("10"), sets("10"), [False]), "known: no text knows the target."),
        (
            lambda: mean_f1_interval([]),
            "targets must be one at least and of the same texts, not of [] texts.",
        ),
        (
            lambda: mean_f1_macro([random_target(0, texts=8), random_target(0, texts=9)]),
            "targets must be one at least and of the same texts, not of [8, 9] texts.",
        ),
        (
            lambda: paired_difference([random_target(0)], [random_target(1)]),
            "first and second must hold the same targets with the same truth.",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(make, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make()
