"""Checks within epochs: where they come, and that gap guard, early stopping and checkpoints go by them."""

import json
import logging

import pytest
import torch
from lightning import LightningModule, Trainer

from doctune.scoring.gap import GapThresholds
from doctune.training.alarms import Alarms
from doctune.training.callbacks.check_log import CheckLog, write_summary
from doctune.training.callbacks.checkpoint import NamedCheckpoint
from doctune.training.callbacks.gap import GapGuard
from doctune.training.callbacks.resume_points import ResumePoints
from doctune.training.callbacks.status import StatusFile
from doctune.training.callbacks.step_checks import StepChecks
from doctune.training.callbacks.stopping import EarlyStopping


class Scripted(LightningModule):
    """Five steps an epoch; each check has the next loss that the test wrote down, and a training loss of 1."""

    def __init__(self, losses):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.losses, self.steps = list(losses), []

    def training_step(self, batch, batch_idx):
        return self.weight.sum()

    def validation_step(self, batch, batch_idx):
        pass

    def on_validation_epoch_end(self):
        loss = self.losses[len(self.steps)]
        self.steps.append(self.trainer.global_step)
        self.log_dict({"val/loss": loss, "train_eval/loss": 1.0, "gap": loss - 1.0})

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self):
        return torch.utils.data.DataLoader(
            [{"ends_step": True, "scale": 1.0, "tokens": 10} for _ in range(5)], batch_size=None
        )

    val_dataloader = train_dataloader


def fit(folder, losses, every=2, epochs=2, patience=99, checks=None):
    module, said = Scripted(losses), []
    alarms = Alarms(lambda alarms, active: said.extend(active))
    gap = GapGuard(
        GapThresholds(), checks=checks, monitor="val/loss", mode="min", alarms=alarms,
        status=StatusFile(folder / "status.json"),
    )  # fmt: skip
    best = NamedCheckpoint(folder / "checkpoints", prefix="checkpoint", monitor="val/loss", mode="min", save_top_k=1)
    trainer = Trainer(
        default_root_dir=folder, max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0,
        callbacks=[
            ResumePoints(folder / "checkpoints", every_minutes=None, keep=1, accumulation=1, micro_batches=5), gap,
            CheckLog(folder, GapThresholds().status), StepChecks(every),
            EarlyStopping("val/loss", mode="min", patience=patience), best,
        ],
    )  # fmt: skip
    trainer.fit(module)
    return module.steps, said, best


def test_checks_come_after_every_so_many_steps_of_the_run_and_at_the_end_of_epochs(tmp_path):
    steps, _, best = fit(tmp_path, [5, 4, 3, 2, 4, 5, 6])
    assert steps == [2, 4, 5, 6, 8, 10]
    rows = json.loads((tmp_path / "training_metrics.json").read_text())
    assert [(row["step"], row["epoch"], row["val_loss"]) for row in rows] == [
        (2, 1, 5), (4, 1, 4), (5, 1, 3), (6, 2, 2), (8, 2, 4), (10, 2, 5),
    ]  # fmt: skip
    assert torch.load(best.best_model_path, weights_only=True)["global_step"] == 6
    assert float(best.best_model_score) == 2
    assert torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 10


def test_early_stopping_counts_checks(tmp_path):
    steps, _, best = fit(tmp_path, [5, 4, 4.5, 4.6, 4.7, 5, 6], patience=2, epochs=3)
    assert steps == [2, 4, 5, 6]
    assert torch.load(best.best_model_path, weights_only=True)["global_step"] == 4


def test_the_gap_guard_stops_within_an_epoch_and_names_steps(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        steps, said, _ = fit(tmp_path, [1.1, 1.5, 1.6, 1.7, 2], checks=2, every=1)
    assert steps == [1, 2, 3]
    assert said[-1] == (
        "Overfitting: in step 3 the validation loss is 0.60 above the training loss (critical from 0.45); the gap "
        "opened in step 2. It has grown in 2 checks in a row, so the run stops here. Keep the checkpoint of step 1 "
        "(val/loss 1.1000). To try: lower optim.lr or trainer.max_epochs, raise model.dropout, optim.weight_decay or "
        "loss.label_smoothing, freeze layers (finetune=partial), or give it more documents."
    )


def test_the_summary_tells_of_the_best_check(tmp_path):
    rows = [
        {"step": step, "epoch": 1, "train_loss": 1.0, "val_loss": 1 + gap, "gap": gap, "gap_status": "good", "lr": 0.1}
        | {"tokens": 10 * step + 10}
        for step, gap in ((2, 0.3), (4, 0.1), (6, 0.2))
    ]
    (tmp_path / "training_metrics.json").write_text(json.dumps(rows))
    write_summary(tmp_path, "gap", 12.5)
    assert json.loads((tmp_path / "training_summary.json").read_text()) == {
        "best_step": 4, "best_epoch": 1, "best_val_loss": pytest.approx(1.1), "gap_at_best": 0.1, "gap_status": "good",
        "status": "gap", "checks": 3, "steps": 6, "seconds": 12.5, "tokens": 70,
    }  # fmt: skip
