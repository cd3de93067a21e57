import numpy as np
import pytest

from doctune.corpus.targets import TargetSpec
from doctune.decode.multi_task import (
    TargetPrediction,
    multi_task_predictions,
    sigmoid,
    target_predictions,
    target_probabilities,
)
from doctune.labels import Labels

TAGS = TargetSpec("tags", "multi", Labels(("a", "b", "c")))
KIND = TargetSpec("kind", "single", Labels(("x", "y")))
TAG_LOGITS = np.log(np.array([[0.6, 0.9, 0.2], [0.5, 0.1, 0.3]]) / (1 - np.array([[0.6, 0.9, 0.2], [0.5, 0.1, 0.3]])))


def test_labels_apply_from_their_thresholds_on_the_most_probable_first():
    first, second = target_predictions(TAGS, TAG_LOGITS, [0.5, 0.5, 0.15])
    assert first.labels == ("b", "a", "c")
    assert first.probabilities == pytest.approx((0.6, 0.9, 0.2))
    assert second.labels == ("a", "c")


def test_without_thresholds_labels_apply_from_one_half_on_and_none_may():
    first, second = target_predictions(TAGS, TAG_LOGITS)
    assert (first.labels, second.labels) == (("b", "a"), ("a",))
    assert target_predictions(TAGS, np.full((1, 3), -1.0))[0].labels == ()


def test_a_single_label_target_has_its_most_probable_label_the_first_of_equal_ones():
    found = target_predictions(KIND, np.array([[0.0, 2.0], [1.0, 1.0]]))
    assert [each.labels for each in found] == [("y",), ("x",)]
    assert found[0].probabilities == pytest.approx((0.1192029, 0.8807971))
    assert found[1] == TargetPrediction("kind", ("x",), (0.5, 0.5))


def test_all_heads_are_decoded_text_by_text_in_their_order():
    logits = [TAG_LOGITS, np.array([[0.0, 2.0], [3.0, 1.0]])]
    found = multi_task_predictions((TAGS, KIND), logits, {"tags": [0.7, 0.7, 0.7]})
    assert [[(each.target, each.labels) for each in text] for text in found] == [
        [("tags", ("b",)), ("kind", ("y",))],
        [("tags", ()), ("kind", ("x",))],
    ]


def test_no_text_gives_no_prediction():
    assert multi_task_predictions((TAGS, KIND), [np.zeros((0, 3)), np.zeros((0, 2))], {}) == []


def test_probabilities_are_a_sigmoid_or_a_softmax():
    logits = np.array([[1.0, -2.0]], dtype=np.float32)
    assert target_probabilities(TargetSpec("t", "multi", Labels(("a", "b"))), logits).tolist() == [
        pytest.approx([1 / (1 + np.exp(-1)), 1 / (1 + np.exp(2))])
    ]
    assert target_probabilities(KIND, logits).sum() == pytest.approx(1)


def test_the_sigmoid_never_overflows():
    with np.errstate(all="raise"):
        assert sigmoid(np.array([-700.0, -30.0, 0.0, 30.0, 700.0])).tolist() == pytest.approx(
            [0.0, 9.357622968839299e-14, 0.5, 1.0, 1.0], rel=1e-12, abs=1e-300
        )
