"""A layer more learns in each epoch, and what is not released yet does not move."""

import logging

import pytest
import torch
from lightning import LightningModule, Trainer
from torch.utils.data import DataLoader
from transformers import AutoModelForSequenceClassification

from doctune.nets.parameters import freeze, parameter_groups
from doctune.training.callbacks.gradual import GradualUnfreezing

TRANSFORMER = "distilbert.transformer.layer."
HEAD = {"pre_classifier", "classifier"}


class Classifier(LightningModule):
    """A tiny DistilBERT over four made documents, two a step; it notes after each epoch which weights have moved."""

    def __init__(self, folder):
        super().__init__()
        torch.manual_seed(0)
        self.net = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)
        freeze(self.net, "gradual")
        self.moved = []

    def training_step(self, batch, batch_idx):
        logits = self.net(input_ids=batch).logits
        return torch.nn.functional.cross_entropy(logits, batch[:, 1] % 2)

    def on_train_epoch_start(self):
        self.before = {name: value.clone() for name, value in self.net.named_parameters()}

    def on_train_epoch_end(self):
        after = dict(self.net.named_parameters())
        self.moved.append({part(name) for name, value in self.before.items() if not torch.equal(value, after[name])})

    def configure_optimizers(self):
        groups = parameter_groups(self.net, lr=0.01, head_lr_multiplier=1, weight_decay=0.01, include_frozen=True)
        return torch.optim.AdamW(groups)

    def train_dataloader(self):
        documents = torch.tensor([[2, 5, 7, 3], [2, 6, 8, 3], [2, 7, 9, 3], [2, 8, 10, 3]])
        return DataLoader(list(documents), batch_size=2)


def part(name):
    """The module that a weight belongs to: embeddings, layer 0, layer 1, pre_classifier or classifier."""
    if name.startswith(TRANSFORMER):
        return f"layer {name.removeprefix(TRANSFORMER).partition('.')[0]}"
    return name.removeprefix("distilbert.").partition(".")[0]


def learning(net):
    return {part(name) for name, parameter in net.named_parameters() if parameter.requires_grad}


@pytest.fixture
def classifier(tiny_encoder):
    return lambda: Classifier(tiny_encoder("distilbert"))


def fit(module, callback, epochs, **settings):
    trainer = Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, callbacks=callback,
    )  # fmt: skip
    trainer.fit(module, **settings)
    return trainer


RELEASED = [
    HEAD,
    {*HEAD, "layer 1"},
    {*HEAD, "layer 1", "layer 0", "embeddings"},  # the embeddings with the lowest layer
    {*HEAD, "layer 1", "layer 0", "embeddings"},
]


def test_frozen_layers_stay_as_they_are_and_released_ones_change(classifier):
    module = classifier()
    fit(module, [GradualUnfreezing(module.net)], 4)
    assert module.moved == RELEASED


def test_the_log_says_how_much_learns(classifier, caplog):
    caplog.set_level(logging.INFO, "doctune.training.callbacks.gradual")
    module = classifier()
    fit(module, [GradualUnfreezing(module.net)], 4)
    assert [record.getMessage() for record in caplog.records if record.name.endswith("gradual")] == [
        "Epoch 1: the head and 0 encoder layers learn.",
        "Epoch 2: the head and 1 encoder layer learn.",
        "Epoch 3: the head and 2 encoder layers learn.",
        "Epoch 4: the head and 2 encoder layers learn.",
    ]


class Stop(GradualUnfreezing):
    """Saves and ends the run before the second step of the second epoch."""

    path = None

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == 1 and batch_idx == 1:
            trainer.save_checkpoint(self.path)
            raise KeyboardInterrupt


def test_a_run_that_is_resumed_within_an_epoch_trains_the_layers_of_that_epoch(classifier, tmp_path):
    stopped = classifier()
    stop = Stop(stopped.net)
    stop.path = tmp_path / "here.ckpt"
    with pytest.raises(SystemExit):
        fit(stopped, [stop], 4)
    module = classifier()

    seen = []

    class Look(GradualUnfreezing):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            seen.append((trainer.current_epoch, learning(pl_module.net)))

    module.on_train_start = lambda: module.on_train_epoch_start()  # an epoch that has begun is not announced again
    fit(module, [Look(module.net)], 4, ckpt_path=stop.path, weights_only=True)
    assert seen[0] == (1, RELEASED[1])
    assert [parts for epoch, parts in seen if epoch > 1] == [RELEASED[2]] * 2 + [RELEASED[3]] * 2
    assert module.moved == RELEASED[1:]


def test_a_run_that_is_resumed_between_epochs_trains_the_layers_of_the_next(classifier, tmp_path):
    first = classifier()
    fit(first, [GradualUnfreezing(first.net)], 2).save_checkpoint(tmp_path / "here.ckpt")
    module = classifier()
    fit(module, [GradualUnfreezing(module.net)], 3, ckpt_path=tmp_path / "here.ckpt", weights_only=True)
    assert module.moved == [RELEASED[2]]
