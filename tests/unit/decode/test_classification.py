import numpy as np
import pytest

from doctune.decode.classification import predictions, probabilities
from doctune.labels import Labels


def test_probabilities_do_not_overflow():
    assert probabilities(np.array([[1000.0, 1000.0], [-1e9, 0.0]])).tolist() == [[0.5, 0.5], [0.0, 1.0]]


def test_the_most_probable_label_wins_and_the_first_of_equals():
    first, second = predictions(np.array([[0.0, np.log(3)], [1.0, 1.0]]), Labels(("a", "b")))
    assert (first.label, first.score) == ("b", pytest.approx(0.75))
    assert first.probabilities == pytest.approx((0.25, 0.75))
    assert second.label == "a"
