import math

import pytest

from doctune.scoring.generation import (
    loss_difference,
    merge_scores,
    score_completions,
    score_losses,
    summarise_completions,
)


@pytest.mark.parametrize(
    ("prediction", "reference", "exact", "precision", "recall", "f1"),
    [
        ("The answer is 5.", "the Answer is: 5", 1, 1, 1, 1),
        ("it is 5", "5", 0, 1 / 3, 1, 0.5),
        ("5", "it is 5", 0, 1, 1 / 3, 0.5),
        ("two two", "two", 0, 0.5, 1, 2 / 3),
        ("four", "five", 0, 0, 0, 0),
        ("", "five", 0, 0, 0, 0),
        ("the", "a", 1, 1, 1, 1),
    ],
)
def test_completions_share_words_after_normalisation(prediction, reference, exact, precision, recall, f1):
    scores = score_completions([prediction], [reference])
    found = (scores.exact_match[0], scores.precision[0], scores.recall[0], scores.f1[0])
    assert found == pytest.approx((exact, precision, recall, f1))


def test_means_stand_with_their_intervals():
    found = summarise_completions(score_completions(["a b", "x y"], ["a b", "z"]))
    assert {name: found[name] for name in ("completions", "exact_match", "f1")} == {
        "completions": 2, "exact_match": 0.5, "f1": 0.5,
    }  # fmt: skip
    assert found["ci95"]["exact_match"] == [0, 1]


def test_perplexity_is_of_all_tokens_together():
    found = score_losses([2.0, 30.0], [2, 10])
    assert found["loss"] == pytest.approx(32 / 12)
    assert found["perplexity"] == pytest.approx(math.exp(32 / 12))
    assert (found["conversations"], found["tokens"]) == (2, 12)
    assert found["ci95"]["loss"] == pytest.approx([1.0, 3.0])
    assert found["ci95"]["perplexity"] == pytest.approx([math.e, math.exp(3)])


def test_a_loss_beyond_all_numbers_has_an_infinite_perplexity():
    assert score_losses([1e6], [1])["perplexity"] == math.inf


def test_a_change_is_judged_on_the_same_conversations():
    difference = loss_difference([1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [1, 2, 3])
    assert (difference.value, difference.low, difference.high) == pytest.approx((-1, -1, -1))


def test_records_are_merged_with_their_intervals():
    losses, completions = {"loss": 1, "ci95": {"loss": [0, 2]}}, {"f1": 0.5, "ci95": {"f1": [0, 1]}}
    assert merge_scores(losses, None) == losses
    assert merge_scores(losses, completions) == {"loss": 1, "f1": 0.5, "ci95": {"loss": [0, 2], "f1": [0, 1]}}


def test_nothing_to_score_is_an_error():
    with pytest.raises(ValueError, match="there is no completion to score"):
        score_completions([], [])
    with pytest.raises(ValueError, match="1 predictions and 2 references: they must be pairs"):
        score_completions(["x"], ["x", "y"])
