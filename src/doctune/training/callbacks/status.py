"""The heartbeat: `status.json` says where the run stands."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from doctune.files import write_json

_SECONDS_BETWEEN_WRITES = 1.0


class StatusFile:
    """Writes `status.json`; fields keep their last value."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fields: dict[str, Any] = dict.fromkeys(
            ("phase", "epoch", "epochs", "step", "steps", "train_loss", "monitor", "value", "gap_status", "rate")
        )
        self._fields |= {"eta_low_s": None, "eta_high_s": None}

    def update(self, **fields: Any) -> None:
        """Change fields and write the file whole."""
        self._fields |= fields
        stamp = {"updated_at": datetime.now(UTC).isoformat(timespec="seconds"), "pid": os.getpid()}
        write_json(self._path, self._fields | stamp)


class StatusHeartbeat(Callback):
    """Brings the status file up to date at most once a second while training, and after each validation."""

    def __init__(self, status: StatusFile, monitor: str, total_steps: int) -> None:
        self._status = status
        self._monitor = monitor
        self._total_steps = total_steps
        self._written = 0.0
        self._first: tuple[float, int] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Announce the phase."""
        self._first = (time.monotonic(), trainer.global_step)
        self._status.update(phase="training", epochs=trainer.max_epochs, steps=self._total_steps, monitor=self._monitor)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Write epoch, step, loss and rate (optimiser steps per second)."""
        now = time.monotonic()
        if now - self._written < _SECONDS_BETWEEN_WRITES or self._first is None:
            return
        self._written = now
        started, first_step = self._first
        loss = trainer.callback_metrics.get("train/loss_step")
        self._status.update(
            epoch=trainer.current_epoch + 1,
            step=trainer.global_step,
            train_loss=None if loss is None else round(float(loss), 4),
            rate=round((trainer.global_step - first_step) / (now - started), 2),
        )

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the monitored value."""
        value = trainer.callback_metrics.get(self._monitor)
        if trainer.state.fn == "fit" and not trainer.sanity_checking and value is not None:
            self._status.update(epoch=trainer.current_epoch + 1, step=trainer.global_step, value=round(float(value), 4))
