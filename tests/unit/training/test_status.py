"""The heartbeat: what status.json and the log say while a run goes on."""

import json
import logging
import math
import os
import platform
from datetime import datetime
from types import SimpleNamespace

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel, RandomDataset
from torch.utils.data import DataLoader

from doctune.training.callbacks import status as heartbeat
from doctune.training.callbacks.status import StatusFile, StatusHeartbeat


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Run:
    """A run of 100 batches (50 steps) and 10 validation batches an epoch, 4 epochs, on a clock that the test turns."""

    def __init__(self, folder, **settings):
        self.path = folder / "status.json"
        self.clock = Clock()
        self.beat = StatusHeartbeat(StatusFile(self.path), "val/loss", 200, clock=self.clock, **settings)
        self.trainer = SimpleNamespace(
            max_epochs=4,
            num_training_batches=100,
            num_val_batches=[10],
            accumulate_grad_batches=2,
            current_epoch=0,
            global_step=0,
            callback_metrics={},
            state=SimpleNamespace(fn="fit"),
            sanity_checking=False,
            is_global_zero=True,
            progress_bar_callback=None,
        )

    def __getattr__(self, hook):
        return lambda *arguments: getattr(self.beat, hook)(self.trainer, None, *arguments)

    def train(self, batches, seconds):
        for index in batches:
            self.on_train_batch_start(None, index)
            self.clock.now += seconds
            self.trainer.global_step = (self.trainer.current_epoch * 100 + index + 1) // 2
            self.trainer.callback_metrics["train/loss_step"] = torch.tensor(1 / (index + 1))
            self.on_train_batch_end(None, None, index)

    def validate(self, seconds):
        self.on_validation_start()
        for index in range(10):
            self.clock.now += seconds / 10
            self.on_validation_batch_end(None, None, index)
        self.trainer.callback_metrics["val/loss"] = torch.tensor(0.25)
        self.on_validation_end()

    def said(self):
        return json.loads(self.path.read_text())


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


def test_the_file_has_the_agreed_keys_and_says_who_writes_it(tmp_path):
    StatusFile(tmp_path / "status.json").update(phase="extracting")
    said = json.loads((tmp_path / "status.json").read_text())
    assert list(said) == [
        "phase", "epoch", "epochs", "step", "steps", "train_loss", "monitor", "value", "gap_status", "rate",
        "eta_low_s", "eta_high_s", "updated_at", "pid", "started_at", "host",
    ]  # fmt: skip
    assert (said["phase"], said["pid"], said["host"]) == ("extracting", os.getpid(), platform.node())
    started, updated = (datetime.fromisoformat(said[name]) for name in ("started_at", "updated_at"))
    assert started.tzinfo is not None
    assert started <= updated


def test_started_at_stays_and_others_may_add_fields(tmp_path):
    status = StatusFile(tmp_path / "status.json")
    status.update(phase="training", eta_low_s=3.0, eta_high_s=4.0)
    first = json.loads((tmp_path / "status.json").read_text())
    status.update(gap_status="good", warnings=["A sentence."])
    second = json.loads((tmp_path / "status.json").read_text())
    assert second["started_at"] == first["started_at"]
    assert (second["phase"], second["gap_status"], second["warnings"]) == ("training", "good", ["A sentence."])
    assert (second["eta_low_s"], second["eta_high_s"]) == (3.0, 4.0)
    status.update(phase="finished")
    third = json.loads((tmp_path / "status.json").read_text())
    assert (third["eta_low_s"], third["eta_high_s"]) == (None, None)


def test_a_file_that_a_reader_locks_ends_no_run(tmp_path, monkeypatch):
    attempts = []

    def locked(path, value):
        attempts.append(path)
        raise PermissionError

    monkeypatch.setattr(heartbeat, "write_json", locked)
    StatusFile(tmp_path / "status.json").update(phase="training")
    assert len(attempts) == 3


def test_training_is_announced_before_its_first_batch(run):
    run.on_train_start()
    said = run.said()
    assert (said["phase"], said["epochs"], said["steps"], said["monitor"]) == ("training", 4, 200, "val/loss")
    assert (said["step"], said["rate"], said["eta_low_s"], said["may_stop_early"]) == (None, None, None, False)


def test_early_stopping_is_announced(tmp_path):
    run = Run(tmp_path, may_stop_early=True)
    run.on_train_start()
    assert run.said()["may_stop_early"] is True


def test_where_training_is_and_how_long_it_takes(run):
    run.on_train_start()
    run.train(range(40), 1.0)
    said = run.said()
    assert (said["epoch"], said["step"], said["train_loss"], said["rate"]) == (1, 20, 0.025, 0.5)
    # 360 batches, 4 + 2 validations of 10 batches of 0.2 to 1 s, 2 to 10 s and 1 % of 400 s for the report.
    assert (said["eta_low_s"], said["eta_high_s"]) == (356.0, 462.8)


def test_it_writes_at_most_once_a_second(run, monkeypatch):
    run.on_train_start()
    written = []
    update = StatusFile.update
    monkeypatch.setattr(StatusFile, "update", lambda self, **fields: (written.append(fields), update(self, **fields)))
    run.train(range(100), 0.125)
    assert len(written) == 12
    run.validate(5.0)
    assert len(written) == 12 + 5 + 1  # five beats, one value


def test_the_heart_beats_while_validation_goes_on(run):
    run.on_train_start()
    run.train(range(100), 1.0)
    run.on_validation_start()
    run.clock.now += 40
    run.on_validation_batch_end(None, None, 0)
    said = run.said()
    assert said["phase"] == "training"
    # One batch of ten in 40 s: this validation and five more take 40 to 400 s each.
    assert said["eta_high_s"] == pytest.approx(300 * 1.08 + 5.9 * 400 + 10 + 4)


def test_a_validation_lasts_until_training_goes_on(run):
    run.on_train_start()
    run.train(range(100), 1.0)
    run.validate(10.0)
    assert run.said()["value"] == 0.25
    run.clock.now += 10  # a checkpoint is written, the gap is measured
    run.on_train_epoch_end()
    run.trainer.current_epoch = 1
    run.train(range(2), 1.0)
    # 3 + 2 validations of 20 s, 15 % less and more.
    assert run.said()["eta_low_s"] == pytest.approx(298 * 0.95 + 5 * 17 + 2)


def test_a_resumed_run_goes_on_from_its_epoch(run):
    run.trainer.current_epoch, run.trainer.global_step = 3, 175
    run.on_train_start()
    run.train(range(50, 70), 1.0)
    said = run.said()
    assert (said["epoch"], said["step"], said["rate"]) == (4, 185, 0.5)
    assert said["eta_low_s"] == pytest.approx(30 * 0.95 + 3 * 2 + 2)


def test_after_training_only_the_ending_is_left(run):
    run.on_train_start()
    run.train(range(100), 1.0)
    run.validate(10.0)
    run.on_train_end()
    assert run.said()["eta_low_s"] == pytest.approx(2 * 8.5 + 2)
    run.trainer.state.fn = "test"
    run.clock.now += 5
    run.on_test_batch_end(None, None, 0)
    assert run.said()["eta_low_s"] == pytest.approx(2 * 8.5 + 2 - 5)


def test_the_validation_of_the_best_weights_is_not_one_of_the_epochs(run):
    run.on_train_start()
    run.train(range(100), 1.0)
    run.validate(10.0)
    run.on_train_end()
    run.trainer.state.fn = "validate"
    run.trainer.callback_metrics["val/loss"] = torch.tensor(9.0)
    run.on_validation_start()
    run.clock.now += 5
    run.on_validation_batch_end(None, None, 0)
    run.on_validation_end()
    assert run.said()["value"] == 0.25


def test_numbers_that_json_lacks_are_left_out(run):
    run.on_train_start()
    run.train(range(2), 1.0)
    run.trainer.callback_metrics |= {"val/loss": torch.tensor(math.nan), "train/loss_step": torch.tensor(math.inf)}
    run.on_validation_end()
    assert (run.said()["value"], run.said()["train_loss"]) == (None, None)


@pytest.mark.parametrize("unknown", [{"num_training_batches": math.inf}, {"max_epochs": -1}])
def test_without_a_plan_no_time_is_promised(run, unknown):
    vars(run.trainer).update(unknown)
    run.on_train_start()
    run.clock.now += 5
    run.trainer.global_step = 7
    run.beat.on_train_batch_end(run.trainer, None, None, None, 13)
    assert (run.said()["step"], run.said()["eta_low_s"], run.said()["rate"]) == (7, None, None)


def test_only_the_first_process_writes(run):
    run.trainer.is_global_zero = False
    run.on_train_start()
    run.train(range(5), 1.0)
    assert not run.path.exists()


def lines(caplog):
    return [record.getMessage() for record in caplog.records]


def test_a_long_epoch_gets_a_line_now_and_then(run, caplog):
    caplog.set_level(logging.INFO)
    run.on_train_start()
    run.train(range(65), 1.0)
    assert lines(caplog) == [
        "Epoch 1/4, step 15/200: loss 0.03, 0.5 steps/s, 6 min to 8 min left",
        "Epoch 1/4, step 30/200: loss 0.02, 0.5 steps/s, 5 min 30 s to 7 min 30 s left",
    ]


def test_short_epochs_have_their_own_lines_only(run, caplog):
    caplog.set_level(logging.INFO)
    run.on_train_start()
    for epoch in range(4):
        run.trainer.current_epoch = epoch
        run.train(range(100), 0.29)
        run.validate(0.5)
        run.on_train_epoch_end()
    assert lines(caplog) == []


def test_a_progress_bar_replaces_the_lines(run, caplog):
    caplog.set_level(logging.INFO)
    run.trainer.progress_bar_callback = object()
    run.on_train_start()
    run.train(range(65), 1.0)
    assert lines(caplog) == []


def test_a_run_of_days_gets_a_hundred_lines_at_most(run, caplog):
    caplog.set_level(logging.INFO)
    run.on_train_start()
    for epoch in range(4):
        run.trainer.current_epoch = epoch
        run.train(range(100), 600.0)
    assert 70 <= len(lines(caplog)) <= 100
    assert lines(caplog)[-1] == "Epoch 4/4, step 199/200: loss 0.01, 20 min per step, 1 h 15 min to 6 h 5 min left"


class Tiny(BoringModel):
    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.step(batch))

    def train_dataloader(self):
        return DataLoader(RandomDataset(32, 6))

    def val_dataloader(self):
        return DataLoader(RandomDataset(32, 3))


class Stop(StatusHeartbeat):
    """Ends the run after so many batches."""

    def __init__(self, *arguments, after):
        super().__init__(*arguments)
        self.after = after

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self.after -= 1
        if self.after == 0:
            trainer.save_checkpoint(trainer.default_root_dir + "/here.ckpt")
            raise KeyboardInterrupt


def test_a_real_trainer_that_is_resumed_in_the_middle_of_an_epoch(tmp_path, monkeypatch):
    told = []

    class Listening(heartbeat.TimeLeft):
        def batch_done(self, done):
            told.append(done)
            super().batch_done(done)

        def validation_ended(self):
            told.append("validation")
            super().validation_ended()

    monkeypatch.setattr(heartbeat, "TimeLeft", Listening)

    def fit(callback, **settings):
        trainer = Trainer(
            default_root_dir=tmp_path, max_epochs=3, accelerator="cpu", logger=False, callbacks=[callback],
            enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, num_sanity_val_steps=1,
        )  # fmt: skip
        trainer.fit(Tiny(), **settings)

    status = StatusFile(tmp_path / "status.json")
    with pytest.raises(SystemExit):
        fit(Stop(status, "val/loss", 18, after=8))
    assert told == [1, 2, 3, 4, 5, 6, "validation", 7, 8]
    told.clear()
    fit(StatusHeartbeat(status, "val/loss", 18), ckpt_path=tmp_path / "here.ckpt")
    assert told == [9, 10, 11, 12, "validation", 13, 14, 15, 16, 17, 18, "validation"]
    said = json.loads((tmp_path / "status.json").read_text())
    assert (said["phase"], said["epoch"], said["epochs"], said["step"]) == ("training", 3, 3, 18)
    assert said["value"] is not None
