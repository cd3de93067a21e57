import numpy as np
import pytest
import torch
from torch.nn import functional as F

from doctune.labels import Labels
from doctune.nets.encoder import Dropouts, pretrained_config, set_dropouts
from doctune.nets.frozen import keep_encoder_in_eval
from doctune.nets.hierarchy import HierarchySettings, hierarchical_classifier
from doctune.nets.losses import DocumentLoss, class_weights
from doctune.nets.parameters import freeze
from doctune.scoring.classification import confusion_matrix, f1_mix
from doctune.training.modules.hierarchical import HierarchicalModule
from doctune.training.optim import Optimisation

PLAN = Optimisation(1e-3, 2.0, 0.01, "linear", warmup_steps=2, total_steps=10, pooling_lr_multiplier=3.0)
# Eight documents as the lengths of their chunks.
DOCUMENTS = ([9, 4], [9], [9, 9, 2], [5], [9, 9, 9], [3], [9, 1], [7])
WEIGHTS = (1.0, 3.0)


@pytest.fixture
def make(tiny_encoder):
    def build(dropout=0.0, **settings):
        folder = str(tiny_encoder("distilbert"))
        config = pretrained_config(folder)
        set_dropouts(config, Dropouts(encoder=dropout))
        torch.manual_seed(0)
        settings = HierarchySettings(**{"max_chunks": 3, "dropout": dropout} | settings)
        net = hierarchical_classifier(config, Labels(("x", "y")), folder, settings, chunks_per_pass=4)
        loss = DocumentLoss("cross_entropy", class_weights("balanced", (6, 2)), label_smoothing=0.1)
        module = HierarchicalModule(net, loss, PLAN, f1_weights=WEIGHTS)
        module.log = module.log_dict = lambda *_, **__: None
        return module

    return build


def batch(documents=range(8), scale=1.0):
    """The documents with these numbers; each has the same tokens in every batch."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 60, (8, 3, 9), generator=generator)
    lengths = [length for number in documents for length in DOCUMENTS[number]]
    chosen = torch.stack([ids[number, place] for number in documents for place in range(len(DOCUMENTS[number]))])
    mask = (torch.arange(9) < torch.tensor(lengths)[:, None]).long()
    return {
        "input_ids": chosen * mask,
        "attention_mask": mask,
        "chunk_counts": torch.tensor([len(DOCUMENTS[number]) for number in documents]),
        "labels": torch.tensor([number % 2 for number in documents]),
        "index": torch.tensor([*documents]),
        "tokens": sum(lengths),
        "scale": scale,
    }


def gradients(module, batches, accumulation):
    """What an optimiser step would see: Lightning divides each loss by the accumulation."""
    module.zero_grad()
    for micro in batches:
        (module.training_step(micro, 0)["loss"] / accumulation).backward()
    return torch.cat([parameter.grad.flatten() for parameter in module.net.parameters() if parameter.grad is not None])


def test_four_micro_batches_of_two_equal_one_batch_of_eight(make):
    module = make()
    parts = [batch(range(start, start + 2), 4 / 8) for start in (0, 2, 4, 6)]
    once, accumulated = gradients(module, [batch(scale=1 / 8)], 1), gradients(module, parts, 4)
    assert torch.allclose(once, accumulated, atol=1e-6)
    assert once.abs().max() > 0


def test_logits_and_attention_are_those_of_the_net(make):
    module, whole = make(), batch()
    expected = module.net(whole["input_ids"], whole["attention_mask"], whole["chunk_counts"])
    for outputs in (module.validation_step(whole, 0), module.test_step(whole, 0)):
        assert torch.equal(outputs["logits"], expected.logits)
        assert torch.equal(outputs["attention"], expected.attention)
    assert expected.logits.shape == (8, 2)
    assert [part.sum().item() for part in expected.attention.split(whole["chunk_counts"].tolist())] == pytest.approx(
        [1] * 8
    )


def test_the_training_loss_is_weighted_and_smoothed_and_divided_by_the_documents(make):
    module, whole = make(), batch(scale=1 / 8)
    logits = module(whole["input_ids"], whole["attention_mask"], whole["chunk_counts"]).logits
    weights = torch.tensor([8 / 12, 8 / 4])
    expected = F.cross_entropy(logits, whole["labels"], weight=weights, label_smoothing=0.1, reduction="sum") / 8
    assert module.training_step(whole, 0)["loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_tokens_that_are_computed_are_those_that_exist(make):
    module, computed = make(), []
    module.net.chunks_per_pass = 1
    module.net.encoder.register_forward_pre_hook(
        lambda _, __, inputs: computed.append(inputs["input_ids"].numel()), with_kwargs=True
    )
    whole = batch()
    module.validation_step(whole, 0)
    assert sum(computed) == whole["tokens"] == int(whole["attention_mask"].sum())


@pytest.mark.parametrize("vector", ["cls", "mean"])
def test_stored_vectors_give_the_losses_of_computing_them(make, vector):
    module, whole = make(dropout=0.1, vector=vector), batch(scale=1 / 8)
    freeze(module.net, "head")
    keep_encoder_in_eval(module.net)
    module.net.dropout.eval()
    vectors = {"vectors": module.predict_step(whole, 0)} | {
        name: whole[name] for name in ("chunk_counts", "labels", "index", "scale")
    }
    computed, stored = (module.training_step(each, 0) for each in (whole, vectors))
    assert stored["loss"].item() == pytest.approx(computed["loss"].item(), rel=1e-6)
    assert module.stored == f"chunk {vector}"


def test_encoder_pooling_and_head_learn_at_their_own_rates(make):
    module = make()
    optimizer = module.configure_optimizers()["optimizer"]
    rates = {group["name"].partition("/")[0]: group["initial_lr"] for group in optimizer.param_groups}
    assert rates == {"encoder": 1e-3, "pooling": pytest.approx(3e-3), "head": 2e-3}


def test_a_frozen_encoder_stays_out_of_the_optimiser(make):
    module = make()
    freeze(module.net, "head")
    names = {group["name"].partition("/")[0] for group in module.configure_optimizers()["optimizer"].param_groups}
    assert names == {"pooling", "head"}


def test_the_mix_is_that_of_the_scores(make):
    module, whole = make(), batch()
    module.on_validation_epoch_start()
    predicted = module.validation_step(whole, 0)["logits"].argmax(dim=1)
    confusion = confusion_matrix(whole["labels"].numpy(), predicted.numpy(), 2)
    live = module.val_metrics.compute()["val/f1_mix"].item()
    assert live == pytest.approx(float(f1_mix(confusion, np.array(WEIGHTS))), abs=1e-6)


def test_hyperparameters_are_plain_and_say_how_chunks_are_pooled(make, tmp_path):
    torch.save(dict(make(pooling="max").hparams), tmp_path / "h.pt")
    loaded = torch.load(tmp_path / "h.pt", weights_only=True)
    assert loaded["hierarchy"]["pooling"] == "max"
    assert loaded["optimisation"]["pooling_lr_multiplier"] == 3.0
