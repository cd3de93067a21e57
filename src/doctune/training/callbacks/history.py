"""One object per epoch in `training_history.json`, rewritten whole after each."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from doctune.files import write_json

log = logging.getLogger(__name__)


class History(Callback):
    """Keeps the epoch's losses and metrics, its learning rate, seconds, real tokens per second and padding share."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.epochs: list[dict[str, Any]] = []
        self._started = time.monotonic()
        self._tokens = self._cells = 0
        self._training_seconds = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start counting."""
        self._started = time.monotonic()
        self._tokens = self._cells = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count real tokens and the cells of the padded batch."""
        mask = batch["attention_mask"]
        self._tokens += int(mask.sum())
        self._cells += mask.numel()
        self._training_seconds = time.monotonic() - self._started

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the finished epoch; the training loop has validated already."""
        self.epochs.append(self._epoch(trainer))
        log.info("%s", _line(self.epochs[-1], trainer.max_epochs))
        if trainer.is_global_zero:
            write_json(self._path, self.epochs)

    def _epoch(self, trainer: Trainer) -> dict[str, Any]:
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        scores = {name.replace("/", "_"): value for name, value in metrics.items() if name.startswith("val/")}
        return {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            "train_loss": metrics["train/loss"],
            **scores,
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "seconds": round(time.monotonic() - self._started, 3),
            "tokens_per_s": round(self._tokens / self._training_seconds, 1),
            "padding_share": round(1 - self._tokens / self._cells, 4),
        }

    def state_dict(self) -> dict[str, Any]:
        """The epochs so far, so that a resumed run's history is whole."""
        return {"epochs": self.epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the epochs of the run that is resumed."""
        self.epochs = list(state_dict["epochs"])


def _line(epoch: dict[str, Any], epochs: int | None) -> str:
    scores = ", ".join(f"{name} {value:.4f}" for name, value in epoch.items() if name.startswith(("train_", "val_")))
    return (
        f"Epoch {epoch['epoch']}/{epochs}: {scores}; {epoch['seconds']:.0f} s, {epoch['tokens_per_s']:,.0f} tokens/s."
    )
