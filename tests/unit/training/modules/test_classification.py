import pytest
import torch
from torch.nn import functional as F

from doctune.labels import Labels
from doctune.nets.assemble import classifier
from doctune.nets.encoder import pretrained_config
from doctune.nets.losses import DocumentLoss, class_weights
from doctune.training.modules.classification import ClassificationModule
from doctune.training.optim import Optimisation

COUNTS = (6, 2)
PLAN = Optimisation(1e-3, 2.0, 0.01, "linear", warmup_steps=2, total_steps=10)


@pytest.fixture
def module(tiny_encoder):
    folder = str(tiny_encoder("distilbert"))
    torch.manual_seed(0)
    net = classifier(pretrained_config(folder), Labels(("x", "y")), folder)
    loss = DocumentLoss("cross_entropy", class_weights("balanced", COUNTS), label_smoothing=0.1)
    return ClassificationModule(net, loss, PLAN)


def batch(size: int, scale: float):
    torch.manual_seed(1)
    return {
        "input_ids": torch.randint(5, 60, (size, 12)),
        "attention_mask": torch.ones(size, 12, dtype=torch.long),
        "labels": torch.arange(size) % 2,
        "index": torch.arange(size),
        "scale": scale,
    }


def part(whole, rows, scale):
    return {key: value[rows] if key != "scale" else scale for key, value in whole.items()}


def gradients(module, batches, accumulation):
    """What an optimiser step would see: Lightning divides each loss by the accumulation."""
    module.zero_grad()
    for micro in batches:
        (module.training_step(micro, 0)["loss"] / accumulation).backward()
    return torch.cat([parameter.grad.flatten() for parameter in module.net.parameters() if parameter.grad is not None])


def test_four_micro_batches_of_two_equal_one_batch_of_eight(module):
    module.net.eval()  # dropout would draw differently
    module.log = lambda *_, **__: None
    whole = batch(8, scale=1 / 8)
    parts = [part(whole, slice(start, start + 2), 4 / 8) for start in (0, 2, 4, 6)]
    once, accumulated = gradients(module, [whole], 1), gradients(module, parts, 4)
    assert torch.allclose(once, accumulated, atol=1e-6)
    assert once.abs().max() > 0


def test_the_training_loss_is_weighted_and_smoothed_and_divided_by_the_documents(module):
    module.net.eval()
    module.log = lambda *_, **__: None
    whole = batch(8, scale=1 / 8)
    logits = module(whole["input_ids"], whole["attention_mask"])
    weights = torch.tensor([8 / 12, 8 / 4])
    expected = F.cross_entropy(logits, whole["labels"], weight=weights, label_smoothing=0.1, reduction="sum") / 8
    assert module.training_step(whole, 0)["loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_validation_loss_is_plain(module):
    module.net.eval()
    module.log = module.log_dict = lambda *_, **__: None
    whole = batch(8, scale=1.0)
    logits = module.validation_step(whole, 0)["logits"]
    assert module.val_loss.compute().item() == pytest.approx(F.cross_entropy(logits, whole["labels"]).item(), rel=1e-5)


def test_dropout_is_on_while_training(module):
    whole = batch(4, 1.0)
    first, second = (module(whole["input_ids"], whole["attention_mask"]) for _ in range(2))
    assert not torch.equal(first, second)


def test_rates_warm_up_and_fall_to_zero(module):
    configured = module.configure_optimizers()
    optimizer, scheduler = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(10):
        rates.append({group["name"]: group["lr"] for group in optimizer.param_groups})
        optimizer.step()
        scheduler.step()
    assert [round(rate["encoder"] * 1e3, 4) for rate in rates] == [
        0,
        0.5,
        1,
        0.875,
        0.75,
        0.625,
        0.5,
        0.375,
        0.25,
        0.125,
    ]
    assert all(rate["head"] == pytest.approx(2 * rate["encoder"]) for rate in rates)


def test_hyperparameters_are_plain(module, tmp_path):
    torch.save(dict(module.hparams), tmp_path / "h.pt")
    loaded = torch.load(tmp_path / "h.pt", weights_only=True)
    assert loaded["optimisation"]["total_steps"] == 10
    assert loaded["net"]["id2label"] == {0: "x", 1: "y"}


def test_the_gap_compares_plain_losses_of_validation_and_training_documents(module):
    module.net.eval()
    logged = {}
    module.log = lambda *_, **__: None
    module.log_dict = lambda values, **__: logged.update(values)
    val, sample = batch(8, 1.0), part(batch(8, 1.0), slice(0, 3), 1.0)
    module.validation_step(val, 0, 0)
    logits = module.validation_step(sample, 0, 1)["logits"]
    module.on_validation_epoch_end()
    expected = F.cross_entropy(logits, sample["labels"]).item()
    assert logged["train_eval/loss"].item() == pytest.approx(expected, rel=1e-5)
    assert logged["gap"].item() == pytest.approx(module.val_loss.compute().item() - expected, rel=1e-5)


def test_a_validation_that_was_cut_short_leaves_nothing_behind(module):
    module.log = module.log_dict = lambda *_, **__: None
    module.validation_step(batch(8, 1.0), 0, 0)
    module.on_validation_epoch_start()
    assert module.val_metrics["f1_macro"].tp.sum() == 0
    assert module.val_loss.weight == 0


def test_a_frozen_encoders_outputs_give_the_logits_of_its_token_ids(module):
    module.net.eval()
    whole = batch(4, 1.0)
    features = module.predict_step(whole, 0)
    stored, computed = (module._outputs(each)["logits"] for each in ({"features": features}, whole))
    assert torch.allclose(stored, computed, atol=1e-6)
