"""Overfitting is called by its name, and ends the run where that is asked for."""

import json
import logging

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from doctune.scoring.gap import GapThresholds
from doctune.training.alarms import Alarms
from doctune.training.callbacks.gap import GapGuard
from doctune.training.callbacks.status import StatusFile

SCORES = [0.5, 0.75, 0.7, 0.65, 0.6, 0.55]
REMEDIES = (
    " To try: lower optim.lr or trainer.max_epochs, raise model.dropout, optim.weight_decay or loss.label_smoothing, "
    "freeze layers (finetune=partial), or give it more documents."
)


class Scripted(LightningModule):
    """Validates each epoch with the gap and the score that the test wrote down."""

    def __init__(self, gaps, scores=SCORES, name="val/f1_macro"):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.gaps, self.scores, self.name_of_score = gaps, scores, name

    def training_step(self, batch, batch_idx):
        return self.weight.sum()

    def validation_step(self, batch, batch_idx):
        pass

    def on_validation_epoch_end(self):
        epoch = self.current_epoch
        self.log_dict({"gap": self.gaps[epoch], self.name_of_score: self.scores[epoch]})

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self):
        return DataLoader([0.0, 1.0])

    val_dataloader = train_dataloader


class Run:
    """One process of a run: a guard, what it has said, and a Trainer that saves after each epoch."""

    def __init__(self, folder, gaps, checks=2, monitor="val/f1_macro", mode="max", scores=SCORES):
        self.folder = folder
        self.published = []
        self.alarms = Alarms(lambda every, active: self.published.append(active))
        self.guard = GapGuard(
            GapThresholds(), checks=checks, monitor=monitor, mode=mode, alarms=self.alarms,
            status=StatusFile(folder / "status.json"),
        )  # fmt: skip
        self.module = Scripted(gaps, scores, monitor)

    def fit(self, epochs=6, **settings):
        self.trainer = Trainer(
            default_root_dir=self.folder, max_epochs=epochs, accelerator="cpu", logger=False,
            enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
            callbacks=[self.guard, ModelCheckpoint(self.folder, save_top_k=0, save_last=True)],
        )  # fmt: skip
        self.trainer.fit(self.module, **settings)
        return self

    @property
    def epochs(self):
        return self.trainer.current_epoch

    @property
    def gap_status(self):
        return json.loads((self.folder / "status.json").read_text())["gap_status"]


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "doctune.training.alarms"]


def test_a_critical_gap_that_grew_for_two_checks_stops_the_run_in_the_scripted_epoch(tmp_path):
    run = Run(tmp_path, [0.1, 0.2, 0.5, 0.6, 0.7, 0.8]).fit()
    assert run.epochs == 4
    assert run.guard.wants_stop
    assert run.alarms.active == [
        "Overfitting: in epoch 4 the validation loss is 0.60 above the training loss (critical from 0.45); the gap "
        "opened in epoch 2. It has grown in 2 checks in a row, so the run stops here. Keep the checkpoint of epoch 2 "
        "(val/f1_macro 0.7500)." + REMEDIES
    ]


def test_the_first_critical_gap_is_logged_when_it_is_found(tmp_path, caplog):
    Run(tmp_path, [0.1, 0.5, 0.48]).fit(epochs=3)
    assert warnings(caplog) == [
        "Overfitting: in epoch 2 the validation loss is 0.50 above the training loss (critical from 0.45); the gap "
        "opened in epoch 2. Keep the checkpoint of epoch 2 (val/f1_macro 0.7500)." + REMEDIES
    ]


def test_a_gap_that_shrinks_in_between_stops_nothing(tmp_path):
    run = Run(tmp_path, [0.5, 0.6, 0.55, 0.65, 0.6, 0.7]).fit()
    assert (run.epochs, run.guard.wants_stop) == (6, False)


@pytest.mark.parametrize(
    ("checks", "epochs", "sentence"),
    [
        (1, 2, " It has grown in this check, so the run stops here. "),
        (2, 3, " It has grown in 2 checks in a row, so the run stops here. "),
        (3, 4, " It has grown in 3 checks in a row, so the run stops here. "),
    ],
)
def test_so_many_checks_as_asked_for_stop_the_run(tmp_path, checks, epochs, sentence):
    run = Run(tmp_path, [0.1, 0.5, 0.6, 0.7, 0.8, 0.9], checks=checks).fit()
    assert run.epochs == epochs
    assert sentence in run.alarms.active[0]


def test_a_guard_that_only_reports_never_stops(tmp_path):
    run = Run(tmp_path, [0.5, 0.6, 0.7, 0.8, 0.9, 1.0], checks=None).fit()
    assert (run.epochs, run.guard.wants_stop) == (6, False)
    assert run.alarms.active == [
        "Overfitting: in epoch 6 the validation loss is 1.00 above the training loss (critical from 0.45); the gap "
        "opened in epoch 1. Keep the checkpoint of epoch 2 (val/f1_macro 0.7500)." + REMEDIES
    ]


def test_where_less_is_better_the_smallest_value_is_the_one_to_keep(tmp_path):
    run = Run(tmp_path, [0.1, 0.1, 0.5], monitor="val/loss", mode="min", scores=[0.9, 0.25, 0.8]).fit(epochs=3)
    assert "Keep the checkpoint of epoch 2 (val/loss 0.2500)." in run.alarms.active[0]


def test_of_equal_scores_the_earliest_checkpoint_is_kept(tmp_path):
    run = Run(tmp_path, [0.1, 0.1, 0.5], scores=[0.5, 0.75, 0.75]).fit(epochs=3)
    assert "Keep the checkpoint of epoch 2 " in run.alarms.active[0]


NAN = float("nan")


@pytest.mark.parametrize(
    ("monitor", "mode", "scores", "kept"),
    [
        ("val/f1_macro", "max", [NAN, 0.25, 0.5], "epoch 3 (val/f1_macro 0.5000)"),
        ("val/f1_macro", "max", [0.25, NAN, 0.125], "epoch 1 (val/f1_macro 0.2500)"),
        ("val/loss", "min", [NAN, 0.5, 0.75], "epoch 2 (val/loss 0.5000)"),
        ("val/loss", "min", [0.75, 0.5, NAN], "epoch 2 (val/loss 0.5000)"),
    ],
)
def test_a_score_that_is_no_number_is_never_the_one_to_keep(tmp_path, monitor, mode, scores, kept):
    run = Run(tmp_path, [0.1, 0.1, 0.5], monitor=monitor, mode=mode, scores=scores).fit(epochs=3)
    assert f"Keep the checkpoint of {kept}." in run.alarms.active[0]


def test_a_gap_that_closes_clears_the_alarm(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    run = Run(tmp_path, [0.5, 0.3, 0.1]).fit(epochs=3)
    assert run.alarms.active == []
    assert [(alarm["epoch"], alarm["cleared"]) for alarm in run.alarms.to_list()] == [(1, 2)]
    assert warnings(caplog)[-1].startswith("No longer so in epoch 2: Overfitting: in epoch 1 ")


@pytest.mark.parametrize(
    ("gap", "name"),
    [(0.01, "excellent"), (0.1, "good"), (0.3, "moderate"), (0.5, "critical"), (float("nan"), "critical")],
)
def test_the_status_file_has_the_name_of_the_last_gap(tmp_path, gap, name):
    assert Run(tmp_path, [0.6, gap]).fit(epochs=2).gap_status == name


def test_the_status_file_of_a_resumed_run_has_the_name_before_its_first_check(tmp_path):
    gaps = [0.1, 0.5, 0.3]
    Run(tmp_path, gaps).fit(epochs=2)
    (tmp_path / "status.json").unlink()  # the resumed run begins its own
    resumed, seen = Run(tmp_path, gaps), []
    resumed.module.on_train_start = lambda: seen.append(resumed.gap_status)
    resumed.fit(epochs=3, ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert (seen, resumed.gap_status) == (["critical"], "moderate")


def test_a_run_that_was_killed_after_its_decision_stays_stopped(tmp_path):
    gaps = [0.1, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert Run(tmp_path, gaps).fit().epochs == 3
    resumed = Run(tmp_path, gaps).fit(ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert (resumed.epochs, resumed.trainer.global_step) == (3, 6)
    assert resumed.guard.wants_stop


def test_a_resumed_run_counts_on_from_the_checks_before(tmp_path):
    gaps = [0.1, 0.5, 0.6, 0.7, 0.8, 0.9]
    Run(tmp_path, gaps).fit(epochs=2)
    resumed = Run(tmp_path, gaps).fit(ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert resumed.epochs == 3
    assert resumed.guard.state_dict() == {
        "gaps": pytest.approx([0.1, 0.5, 0.6]),
        "scores": pytest.approx([0.5, 0.75, 0.7]),
        "places": ["epoch 1", "epoch 2", "epoch 3"],
    }


def test_a_validation_after_training_is_no_check(tmp_path):
    run = Run(tmp_path, [0.1, 0.2, 0.5]).fit(epochs=2)
    run.trainer.validate(run.module, verbose=False)
    assert run.guard.state_dict()["gaps"] == pytest.approx([0.1, 0.2])
    assert (run.gap_status, run.alarms.active) == ("moderate", [])
