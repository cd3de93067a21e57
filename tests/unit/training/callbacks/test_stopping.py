"""Early stopping ends a run in the epoch that patience and min_delta say, and does not forget it."""

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from doctune.training.callbacks.stopping import EarlyStopping


class Scripted(LightningModule):
    """Validates each epoch with the score that the test wrote down."""

    def __init__(self, scores):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.scores = scores

    def training_step(self, batch, batch_idx):
        return self.weight.sum()

    def validation_step(self, batch, batch_idx):
        pass

    def on_validation_epoch_end(self):
        self.log("val/f1_macro", self.scores[self.current_epoch])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self):
        return DataLoader([0.0, 1.0])

    val_dataloader = train_dataloader


def fit(folder, scores, epochs=None, ckpt_path=None, **settings):
    """The callback and the number of epochs that were trained."""
    stopping = EarlyStopping("val/f1_macro", **{"mode": "max", "patience": 2} | settings)
    trainer = Trainer(
        default_root_dir=folder, max_epochs=epochs or len(scores), accelerator="cpu", logger=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        callbacks=[stopping, ModelCheckpoint(folder, save_top_k=0, save_last=True)],
    )  # fmt: skip
    trainer.fit(Scripted(scores), ckpt_path=ckpt_path, weights_only=True)
    return stopping, trainer.current_epoch


@pytest.mark.parametrize(
    ("scores", "settings", "epochs"),
    [
        ([0.5, 0.6, 0.6, 0.55, 0.9, 0.9], {}, 4),  # standing still does not count as better
        ([0.5, 0.6, 0.59, 0.61, 0.6, 0.6, 0.9], {}, 6),  # what is better begins the count again
        ([0.5, 0.4, 0.3, 0.2, 0.1, 0.0], {"patience": 1}, 2),
        ([0.5, 0.505, 0.51, 0.52, 0.53, 0.54], {"min_delta": 0.05}, 3),
        ([0.5, 0.4, 0.45, 0.6, 0.7, 0.8], {"mode": "min"}, 4),
    ],
)
def test_the_run_ends_in_the_scripted_epoch(tmp_path, scores, settings, epochs):
    stopping, trained = fit(tmp_path, scores, **settings)
    assert (trained, stopping.wants_stop) == (epochs, True)


def test_a_run_that_goes_on_getting_better_is_left_alone(tmp_path):
    stopping, trained = fit(tmp_path, [0.1, 0.2, 0.3, 0.4])
    assert (trained, stopping.wants_stop) == (4, False)


SCORES = [0.5, 0.6, 0.6, 0.55, 0.9, 0.9]


def test_a_run_that_was_killed_after_its_decision_stays_stopped(tmp_path):
    assert fit(tmp_path, SCORES)[1] == 4
    stopping, trained = fit(tmp_path, SCORES, ckpt_path=tmp_path / "last.ckpt")
    assert (trained, stopping.wants_stop) == (4, True)


@pytest.mark.parametrize("score", [float("nan"), float("inf"), float("-inf")])
def test_a_metric_that_is_no_number_ends_the_run_and_that_is_remembered(tmp_path, score):
    scores = [0.5, score, 0.6, 0.7]
    stopping, trained = fit(tmp_path, scores)
    assert (trained, stopping.wants_stop, stopping.wait_count) == (2, True, 0)
    resumed, trained = fit(tmp_path, scores, ckpt_path=tmp_path / "last.ckpt")
    assert (trained, resumed.wants_stop) == (2, True)


def test_a_resumed_run_has_no_new_patience(tmp_path):
    assert fit(tmp_path, SCORES, epochs=3)[1] == 3
    stopping, trained = fit(tmp_path, SCORES, ckpt_path=tmp_path / "last.ckpt")
    assert (trained, stopping.wants_stop) == (4, True)
