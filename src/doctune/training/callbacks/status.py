"""The heartbeat: `status.json` says where the run stands and how long it still takes."""

from __future__ import annotations

import json
import logging
import math
import os
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from doctune.files import write_json
from doctune.reports.status import ENDED, range_words, rate_words
from doctune.training.time_left import Plan, Range, TimeLeft

log = logging.getLogger(__name__)

_SECONDS_BETWEEN_WRITES = 1.0
_SECONDS_BETWEEN_LINES = 30.0
_MAX_LINES = 100  # of a run, however long it is
_ATTEMPTS = 3


class StatusFile:
    """Writes `status.json`; fields keep their last value.

    `started_at` is when this object was made, so that a run which is resumed starts anew. An ended run has no time
    left.

    Args:
        path: the file.
        writes: False in a process that works beside the one which writes it.
    """

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        self._path = path
        self._writes = writes
        self._fields: dict[str, Any] = dict.fromkeys(
            ("phase", "epoch", "epochs", "step", "steps", "train_loss", "monitor", "value", "gap_status", "rate")
        )
        self._fields |= {"eta_low_s": None, "eta_high_s": None, "updated_at": None, "pid": os.getpid()}
        self._fields |= {"started_at": _now(), "host": platform.node()}

    def take_up(self) -> None:
        """Go on with what the file says: another process of this run has written it."""
        self._fields |= json.loads(self._path.read_text(encoding="utf-8"))

    def update(self, **fields: Any) -> None:
        """Change fields and write the file whole."""
        self._fields |= fields | {"updated_at": _now()}
        if self._fields["phase"] in ENDED:
            self._fields |= {"eta_low_s": None, "eta_high_s": None}
        self._write()

    def _write(self) -> None:
        """Windows lets no file be replaced while another process reads it; that must not end a run."""
        if not self._writes:
            return None
        for _ in range(_ATTEMPTS):
            try:
                return write_json(self._path, self._fields)
            except PermissionError:
                time.sleep(0.02)
        return None


class StatusHeartbeat(Callback):
    """Brings the status file up to date at most once a second, and after each validation.

    Where there is no progress bar, it also logs a line now and then: at least 30 s after the last one and after the
    line of an epoch, and not more than about a hundred in a run.

    Args:
        status: the file.
        monitor: the metric whose value is shown.
        total_steps: optimiser steps of all epochs.
        may_stop_early: whether early stopping may end the run before the time that is said.
        validations: of each epoch.
        clock: seconds, from anywhere.
    """

    def __init__(
        self,
        status: StatusFile,
        monitor: str,
        total_steps: int,
        *,
        may_stop_early: bool = False,
        validations: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._status = status
        self._monitor = monitor
        self._total_steps = total_steps
        self._may_stop_early = may_stop_early
        self._validations = validations
        self._clock = clock
        self._started = self._written = self._said = clock()
        self._time_left: TimeLeft | None = None
        self._is_validating = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Announce the phase."""
        self._started = self._written = self._said = self._clock()
        plan = _plan(trainer, self._validations)
        self._time_left = TimeLeft(plan, self._clock) if plan else None
        self._write(
            trainer,
            phase="training",
            epochs=trainer.max_epochs,
            steps=self._total_steps,
            monitor=self._monitor,
            may_stop_early=self._may_stop_early,
        )

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Training goes on after a validation."""
        self._end_validation()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write where training is, at most once a second."""
        if self._time_left:
            self._time_left.batch_done(trainer.current_epoch * int(trainer.num_training_batches) + batch_idx + 1)
        if self._is_due():
            self._write(trainer, **self._progress(trainer))
            self._say(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The time until training goes on is the validation's."""
        if self._time_left and trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._time_left.validation_started()
            self._is_validating = True

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Show that the run lives."""
        if self._time_left and self._is_validating:
            self._time_left.validation_batch_done()
        self._beat(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the monitored value."""
        value = trainer.callback_metrics.get(self._monitor)
        if trainer.state.fn == "fit" and not trainer.sanity_checking and value is not None:
            self._write(trainer, **self._progress(trainer), value=_finite(value))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The epoch's own line is in the log now."""
        self._said = self._clock()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on only the best weights are judged and reported."""
        self._end_validation()
        if self._time_left:
            self._time_left.training_ended()
        self._write(trainer)

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Show that the run lives."""
        self._beat(trainer)

    def _end_validation(self) -> None:
        if self._time_left and self._is_validating:
            self._time_left.validation_ended()
        self._is_validating = False

    def _is_due(self) -> bool:
        return self._clock() - self._written >= _SECONDS_BETWEEN_WRITES

    def _beat(self, trainer: Trainer) -> None:
        if self._is_due():
            self._write(trainer)

    def _write(self, trainer: Trainer, **fields: Any) -> None:
        if not trainer.is_global_zero:
            return
        self._written = self._clock()
        left = self._time_left.left() if self._time_left else None
        low, high = (round(left.low, 1), round(left.high, 1)) if left else (None, None)
        self._status.update(**fields, eta_low_s=low, eta_high_s=high)

    def _progress(self, trainer: Trainer) -> dict[str, Any]:
        """Epoch, step, the last step's loss and the recent rate in optimiser steps per second."""
        batches_per_s = self._time_left.batches_per_s() if self._time_left else None
        return {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            "train_loss": _finite(trainer.callback_metrics.get("train/loss_step")),
            "rate": batches_per_s and float(f"{batches_per_s / trainer.accumulate_grad_batches:.3g}"),
        }

    def _say(self, trainer: Trainer) -> None:
        left = self._time_left.left() if self._time_left else None
        now = self._clock()
        whole = now - self._started + (left.high if left else 0.0)
        if now - self._said < max(_SECONDS_BETWEEN_LINES, whole / _MAX_LINES):
            return
        self._said = now
        if trainer.progress_bar_callback is None and trainer.is_global_zero:
            log.info("%s", self._line(trainer, left))

    def _line(self, trainer: Trainer, left: Range | None) -> str:
        progress = self._progress(trainer)
        facts = [
            "" if progress["train_loss"] is None else f"loss {progress['train_loss']:.2f}",
            "" if progress["rate"] is None else rate_words(progress["rate"]),
            "" if left is None else f"{range_words(left.low, left.high)} left",
        ]
        place = f"Epoch {progress['epoch']}/{trainer.max_epochs}, step {progress['step']}/{self._total_steps}"
        return ": ".join([place, *filter(None, [", ".join(fact for fact in facts if fact)])])


def _plan(trainer: Trainer, validations: int) -> Plan | None:
    """None where a loader does not know its length, or nobody said how many epochs."""
    validation_batches = sum(trainer.num_val_batches)
    if trainer.max_epochs in (None, -1) or math.isinf(trainer.num_training_batches) or math.isinf(validation_batches):
        return None
    return Plan(int(trainer.max_epochs or 0), int(trainer.num_training_batches), int(validation_batches), validations)


def _finite(value: Any) -> float | None:
    """Rounded for people; None for what JSON cannot hold."""
    return round(float(value), 4) if value is not None and math.isfinite(float(value)) else None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
