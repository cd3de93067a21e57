import math

import numpy as np
import pytest

from doctune.corpus.targets import TargetSpec
from doctune.labels import Labels
from doctune.training.config import LossConfig, MultiTaskConfig
from doctune.training.data.multi_task import TargetCounts, TargetFacts
from doctune.training.tasks.multi_task import chance, target_balance, target_losses, unread_loss

KIND = TargetSpec("kind", "single", Labels(("x", "y")))
TAGS = TargetSpec("tags", "multi", Labels(("a", "b")))


JUDGED = (TargetCounts((1, 1), 2), TargetCounts((1, 1), 4))


def facts(val=JUDGED):
    train = (TargetCounts((30, 10), 40), TargetCounts((5, 20), 25))
    return TargetFacts((KIND, TAGS), {"train": train, "val": val, "test": val}, 50, 5)


def test_weights_come_from_the_training_texts_that_know_the_target():
    kind, tags = target_losses(LossConfig(), facts()).describe()
    assert kind["weights"] == pytest.approx([40 / 60, 40 / 20])
    assert tags["weights"] == pytest.approx([20 / 5, 5 / 20])
    unweighted = target_losses(LossConfig(class_weights="none", label_smoothing=0.1), facts()).describe()
    assert [each["weights"] for each in unweighted] == [[1, 1], [1, 1]]
    assert unweighted[0]["label_smoothing"] == 0.1


def test_fixed_weights_are_those_of_the_configuration_and_learnt_ones_begin_at_one():
    data = MultiTaskConfig(targets={"kind": {"weight": 0.5}, "tags": {"kind": "multi"}})
    assert target_balance(LossConfig(), data).current_weights().tolist() == [0.5, 1]
    assert target_balance(LossConfig(balance="uncertainty"), data).current_weights().tolist() == [1, 1]


def test_chance_is_added_up_over_the_targets():
    found = chance(facts(), LossConfig(class_weights="none"))
    assert found.uniform_loss == pytest.approx(2 * math.log(2))
    majority, everything = (2 / 3) / 2, 2 * 1 / (4 + 1)
    assert found.levels["kind/f1_macro"] == pytest.approx(majority)
    assert found.levels["tags/f1_macro"] == pytest.approx(everything)
    assert found.levels["f1_macro"] == pytest.approx((majority + everything) / 2)
    single = -(30 * math.log(31 / 42) + 10 * math.log(11 / 42)) / 40
    shares = 6 / 27, 21 / 27
    multi = -sum(n * math.log(s) + (25 - n) * math.log(1 - s) for n, s in zip((5, 20), shares, strict=True)) / 50
    assert found.train_loss == pytest.approx(single + multi)


def test_balanced_weights_answer_perhaps_however_rare_a_label_is():
    assert chance(facts(), LossConfig(class_weights="none")).train_loss < 1.1
    weights = np.array([24 / 2, 2 / 24])
    rare = TargetCounts((1, 23), 24)
    assert unread_loss(TAGS, rare, weights) == pytest.approx(math.log(2))
    assert unread_loss(TAGS, rare, np.ones(2)) == pytest.approx(-(math.log(2 / 26) + 23 * math.log(24 / 26)) / 24)


def test_a_target_that_no_validation_text_knows_has_no_level():
    found = chance(facts(val=(TargetCounts((1, 1), 2), TargetCounts((0, 0), 0))), LossConfig())
    assert [*found.levels] == ["kind/f1_macro", "f1_macro", "loss"]
    assert found.levels["f1_macro"] == found.levels["kind/f1_macro"]
