"""What can be reached without reading a document."""

import math

import numpy as np
import pytest

from doctune.corpus.baselines import majority
from doctune.scoring.chance import chance_levels, uniform_loss
from doctune.scoring.classification import score


@pytest.mark.parametrize(
    ("train", "judged"),
    [
        ([0, 1, 1, 2, 1], [1, 0, 2, 2, 1, 1]),
        ([2, 0, 0, 2, 1], [2, 2, 1, 0]),  # two labels are equally frequent: the lower id answers
        ([0, 0, 1, 2], [1, 2, 2]),  # the answer never occurs among the judged
        ([0, 0, 1], [0, 1, 2]),  # a label without training document
    ],
)
def test_its_scores_are_those_of_the_majority_baseline(train, judged):
    counts, judged_counts = (np.bincount(ids, minlength=3).tolist() for ids in (train, judged))
    baseline = majority(np.array(train), len(judged), 0, 3)
    expected = score(np.array(judged), baseline.val, 3)
    levels = chance_levels(counts, judged_counts)
    assert (levels["accuracy"], levels["f1_macro"]) == (expected.accuracy, expected.f1_macro)


def test_its_loss_is_that_of_answering_with_the_shares_of_the_training_labels():
    # Shares (3 + 1) / 8, (1 + 1) / 8, (1 + 1) / 8; judged are one, two and one document.
    expected = (math.log(2) + 2 * math.log(4) + math.log(4)) / 4
    assert chance_levels([3, 1, 1], [1, 2, 1])["loss"] == pytest.approx(expected, abs=1e-12)


def test_a_label_that_training_lacks_has_a_finite_loss():
    assert chance_levels([3, 0], [0, 2])["loss"] == pytest.approx(math.log(5), abs=1e-12)


def test_a_head_that_knows_nothing_has_the_logarithm_of_the_classes():
    assert uniform_loss(4) == pytest.approx(2 * math.log(2), abs=1e-12)
