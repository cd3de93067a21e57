import numpy as np
import pytest
import torch
from torch.nn import functional as F

from doctune.corpus.targets import TargetSpec
from doctune.labels import Labels
from doctune.nets.encoder import pretrained_config
from doctune.nets.losses import DocumentLoss
from doctune.nets.multi_task import MultiTaskSettings, multi_task_classifier
from doctune.nets.task_losses import FixedBalance, LabelSetLoss, TargetLosses, UncertaintyBalance
from doctune.scoring import classification, multilabel
from doctune.training.modules.multi_task import MultiTaskModule, TargetMetrics
from doctune.training.optim import Optimisation

PLAN = Optimisation(1e-3, 2.0, 0.01, "linear", warmup_steps=2, total_steps=10)
KIND = TargetSpec("kind", "single", Labels(("x", "y", "z")))
TAGS = TargetSpec("tags", "multi", Labels(("a", "b")))
KINDS = torch.tensor([0, -1, 2, 1, -1, 1, 0, 2])  # six of eight texts know it
TAG_SETS = torch.tensor([[1, 0], [-1, -1], [0, 0], [-1, -1], [1, 1], [0, 1], [-1, -1], [1, 0]])  # five


def make(folder, balance):
    torch.manual_seed(0)
    net = multi_task_classifier(pretrained_config(folder), (KIND, TAGS), folder, MultiTaskSettings())
    losses = TargetLosses(
        [
            DocumentLoss("focal", torch.tensor([0.5, 1.0, 2.0]), gamma=2.0),
            LabelSetLoss("focal", torch.tensor([1.0, 3.0]), gamma=2.0),
        ]
    )
    module = MultiTaskModule(net, losses, balance, PLAN, balance_lr=0.01)
    module.log = module.log_dict = lambda *_, **__: None
    return module


@pytest.fixture
def module(tiny_encoder):
    """With weights that are learnt."""
    return make(str(tiny_encoder("distilbert")), UncertaintyBalance(2))


def batch(rows=slice(0, 8), accumulation=1):
    torch.manual_seed(1)
    ids = torch.randint(5, 60, (8, 12))
    return {
        "input_ids": ids[rows],
        "attention_mask": torch.ones_like(ids)[rows],
        "targets": (KINDS[rows], TAG_SETS[rows]),
        "index": torch.arange(8)[rows],
        "scale": accumulation / 8,
        "target_scales": torch.tensor([accumulation / 6, accumulation / 5]),
    }


def gradients(module, batches):
    """What an optimiser step would see: Lightning divides each loss by the accumulation."""
    module.zero_grad()
    found = [module.training_step(micro, 0) for micro in batches]
    for each in found:
        (each["loss"] / len(batches)).backward()
    sums = {name: sum(each[name].item() for each in found) for name in ("objective", "cross_entropy")}
    learnt = [parameter.grad.flatten() for parameter in module.parameters() if parameter.grad is not None]
    return torch.cat(learnt), sums


@pytest.mark.parametrize("balance", [FixedBalance([1.0, 0.3]), UncertaintyBalance(2)])
def test_four_micro_batches_of_two_equal_one_batch_of_eight_with_missing_targets(tiny_encoder, balance):
    module = make(str(tiny_encoder("distilbert")), balance)
    module.net.eval()  # dropout would draw differently
    parts = [batch(slice(start, start + 2), accumulation=4) for start in (0, 2, 4, 6)]
    (once, whole), (accumulated, added) = gradients(module, [batch()]), gradients(module, parts)
    torch.testing.assert_close(accumulated, once, atol=1e-6, rtol=1e-4)
    assert once.abs().max() > 0
    assert added == {name: pytest.approx(value, rel=1e-5) for name, value in whole.items()}


def test_a_stand_in_of_a_rank_that_has_no_text_left_adds_nothing(module):
    found = module.training_step(batch() | {"scale": 0.0, "target_scales": torch.zeros(2)}, 0)
    assert (found["loss"].item(), found["objective"].item()) == (0, 0)


def test_both_losses_of_the_gap_are_sums_over_targets_of_plain_means(module):
    module.net.eval()
    logged = {}
    module.log_dict = lambda values, **__: logged.update(values)
    kinds, tags = module.validation_step(batch(), 0, 0)["logits"]
    module.validation_step(batch(slice(4, 8)), 0, 1)
    module.on_validation_epoch_end()
    known = KINDS >= 0, TAG_SETS[:, 0] >= 0
    expected = F.cross_entropy(kinds[known[0]], KINDS[known[0]]).item()
    binary = F.binary_cross_entropy_with_logits(tags[known[1]], TAG_SETS[known[1]].float()).item()
    assert logged["val/loss"].item() == pytest.approx(expected + binary, rel=1e-5)
    assert logged["val/kind/loss"] == pytest.approx(expected, rel=1e-5)
    late = F.cross_entropy(kinds[5:], KINDS[5:]).item() + F.binary_cross_entropy_with_logits(
        tags[[4, 5, 7]], TAG_SETS[[4, 5, 7]].float()
    )
    assert logged["train_eval/loss"].item() == pytest.approx(late.item(), rel=1e-5)
    assert logged["gap"].item() == pytest.approx(expected + binary - late.item(), abs=1e-5)


def test_live_scores_are_those_of_scoring_over_the_texts_that_know_the_target():
    torch.manual_seed(2)
    kinds, tags = torch.randn(8, 3), torch.randn(8, 2)
    metrics = TargetMetrics((KIND, TAGS))
    for rows in (slice(0, 5), slice(5, 8)):
        metrics.update((kinds[rows], tags[rows]), (KINDS[rows], TAG_SETS[rows]))
    found = {name: value.item() for name, value in metrics.compute().items()}
    known = KINDS >= 0, TAG_SETS[:, 0] >= 0
    confusion = classification.confusion_matrix(
        KINDS[known[0]].numpy(), kinds[known[0]].argmax(dim=1).numpy(), 3
    )  # fmt: skip
    sets = multilabel.score(TAG_SETS[known[1]].numpy() == 1, (tags[known[1]] > 0).numpy())
    assert found["kind/f1_macro"] == pytest.approx(classification.f1_macro(confusion))
    assert found["kind/accuracy"] == pytest.approx(classification.accuracy(confusion))
    assert found["tags/f1_macro"] == pytest.approx(sets.f1_macro)
    assert found["tags/f1_micro"] == pytest.approx(sets.f1_micro)
    assert found["f1_macro"] == pytest.approx(np.mean([found["kind/f1_macro"], found["tags/f1_macro"]]))


def test_logits_that_look_like_probabilities_are_none():
    metrics = TargetMetrics((TAGS,))
    metrics.update((torch.full((2, 2), 0.4),), (torch.tensor([[1, 0], [0, 1]]),))  # sigmoid(0.4) is above 0.5
    assert metrics.compute()["tags/f1_macro"].item() == pytest.approx(2 / 3)


def test_a_target_that_no_text_knows_is_not_in_the_mean():
    metrics = TargetMetrics((KIND, TAGS))
    metrics.update((torch.eye(3), torch.zeros(3, 2)), (torch.arange(3), torch.full((3, 2), -1)))
    assert {name: value.item() for name, value in metrics.compute().items()} == {
        "f1_macro": 1.0, "kind/accuracy": 1.0, "kind/f1_macro": 1.0,
    }  # fmt: skip


def test_a_validation_that_was_cut_short_leaves_nothing_behind(module):
    module.validation_step(batch(), 0, 0)
    module.on_validation_epoch_start()
    assert module.val_loss.counts.tolist() == [0, 0]
    module.val_metrics.update((torch.eye(3), torch.zeros(3, 2)), (torch.arange(3), torch.full((3, 2), -1)))
    assert module.val_metrics.compute()["f1_macro"].item() == 1


def test_learnt_weights_are_logged_and_have_a_rate_of_their_own(module):
    logged = {}
    module.log_dict = lambda values, **__: logged.update(values)
    module.training_step(batch(), 0)
    assert {name: value.item() for name, value in logged.items()} == {"train/weight/kind": 1, "train/weight/tags": 1}
    group = next(each for each in module.parameter_groups() if each["name"] == "balance")
    assert (group["lr"], group["weight_decay"], group["params"]) == (0.01, 0.0, [module.balance.raw])


def test_a_frozen_encoders_vectors_give_the_logits_of_its_token_ids(module):
    module.net.eval()
    stored = module({"vectors": module.predict_step(batch(), 0)}).logits
    for one, other in zip(stored, module(batch()).logits, strict=True):
        torch.testing.assert_close(one, other)


def test_hyperparameters_are_plain(module, tmp_path):
    torch.save(dict(module.hparams), tmp_path / "h.pt")
    loaded = torch.load(tmp_path / "h.pt", weights_only=True)
    assert loaded["targets"][1] == {"name": "tags", "kind": "multi", "labels": ["a", "b"]}
    assert loaded["losses"][0]["gamma"] == 2.0
