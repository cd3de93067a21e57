import math

import numpy as np
import pytest

from doctune.scoring.paired import holm, mcnemar, sign_test


def judged(only_a, only_b, both=5, neither=2):
    """Truth and two predictions with so many documents that only A, only B, both or neither had right."""
    right_a = [True] * only_a + [False] * only_b + [True] * both + [False] * neither
    right_b = [False] * only_a + [True] * only_b + [True] * both + [False] * neither
    truth = np.ones(len(right_a), np.int64)
    return truth, np.where(right_a, 1, 0), np.where(right_b, 1, 2)


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),  # 2 * 1/2
        (6, 0, 2 / 64),
        (0, 6, 2 / 64),
        (8, 2, 2 * (1 + 10 + 45) / 1024),
        (3, 3, 1.0),  # twice the half with the middle is above 1
        (15, 5, 2 * sum(math.comb(20, i) for i in range(6)) / 2**20),
    ],
)
def test_p_is_the_two_sided_binomial_probability(only_a, only_b, p):
    found = mcnemar(*judged(only_a, only_b))
    assert (found.only_a, found.only_b) == (only_a, only_b)
    assert found.p == p


def test_documents_on_which_both_agree_say_nothing():
    assert mcnemar(*judged(8, 2, both=0, neither=0)) == mcnemar(*judged(8, 2, both=900, neither=70))


def test_two_different_mistakes_are_no_disagreement():
    truth, first, second = judged(0, 0, both=0, neither=9)
    assert (first != second).all()
    assert mcnemar(truth, first, second).p == 1.0


def test_large_counts_neither_overflow_nor_vanish():
    even, uneven = mcnemar(*judged(3000, 3000)), mcnemar(*judged(3300, 2700))
    assert even.p == 1.0
    # The normal approximation with continuity correction: z = (600 - 1) / sqrt(6000).
    assert uneven.p == pytest.approx(math.erfc(599 / math.sqrt(2 * 6000)), rel=0.02)
    assert mcnemar(*judged(2000, 0)).p == 0.0  # 2 ** -1999 is below the smallest float


def test_arrays_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match=r"must be equally long, not \[\(3,\), \(3,\), \(2,\)\]"):
        mcnemar(np.zeros(3), np.zeros(3), np.zeros(2))


def test_holm_multiplies_by_how_many_are_left_and_never_falls():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.02]) == [0.02]
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_sign_test_counts_who_is_ahead_and_leaves_ties_out():
    found = sign_test([0.5, 1.0, 0.75, 0.25], [0.25, 0.5, 0.75, 0.5])
    assert (found.only_a, found.only_b, found.p) == (2, 1, 1.0)


def test_the_sign_test_of_right_and_wrong_is_mcnemars():
    rng = np.random.default_rng(0)
    first, second = rng.random(50) < 0.8, rng.random(50) < 0.5
    assert sign_test(first.astype(int), second.astype(int)) == mcnemar(np.ones(50, bool), first, second)


def test_a_sign_test_of_other_lengths_is_refused():
    with pytest.raises(ValueError, match=r"^both arrays must be equally long, not \[\(2,\), \(1,\)\]\.$"):
        sign_test([1, 2], [1])
