"""One object per epoch in `training_history.json`, rewritten whole after each."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from doctune.files import write_json
from doctune.training.collectives import is_main, summed_numbers
from doctune.training.data.batched import num_losses

log = logging.getLogger(__name__)


@dataclass
class Totals:
    """What an epoch has added up; `objective` stays on the device while training, so that no step waits for it.

    Of several processes each has its share.
    """

    objective: Any = 0.0
    documents: int = 0
    tokens: int = 0
    cells: int = 0
    seconds: float = 0.0

    def of_all_processes(self, device: torch.device) -> Totals:
        """The shares together; they took the time of one."""
        shares = [float(self.objective), self.documents, self.tokens, self.cells]
        objective, documents, tokens, cells = summed_numbers(shares, device)
        return Totals(objective, int(documents), int(tokens), int(cells), self.seconds)


class History(Callback):
    """Keeps the epoch's losses and metrics, its learning rate, seconds, real tokens per second and padding share.

    Only finished optimiser steps count, so that what a resumed run does again is not counted twice.

    Args:
        path: the file.
        gap_status: the name of a gap, see `scoring.gap.GapThresholds.status`.
    """

    def __init__(self, path: Path, gap_status: Callable[[float], str]) -> None:
        self._path = path
        self._gap_status = gap_status
        self.epochs: list[dict[str, Any]] = []
        self._totals = Totals()
        self._pending: list[tuple[Any, int, int, int]] = []
        self._resumed_at = time.monotonic()
        self._device = torch.device("cpu")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, also in the middle of an epoch."""
        self._resumed_at = time.monotonic()
        self._device = pl_module.device

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start counting."""
        self._resumed_at = time.monotonic()
        self._totals, self._pending = Totals(), []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add up the loss, the real tokens and the cells of the padded batch, once their step is done."""
        if batch["scale"]:
            self._pending.append((outputs["objective"], num_losses(batch), batch["tokens"], _cells(batch)))
        if not batch["ends_step"]:
            return
        for objective, documents, tokens, cells in self._pending:
            self._totals.objective = self._totals.objective + objective
            self._totals.documents += documents
            self._totals.tokens += tokens
            self._totals.cells += cells
        self._pending = []
        now = time.monotonic()
        self._totals.seconds += now - self._resumed_at
        self._resumed_at = now

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the finished epoch; the training loop has validated already."""
        self.epochs.append(self._epoch(trainer, self._totals.of_all_processes(self._device)))
        for logger in trainer.loggers:
            # Not through the module's log: Lightning would write it after the checkpoint of this epoch is saved, and a
            # run that is resumed from there would lack it. The step is that of the validation.
            logger.log_metrics({"train/loss": self.epochs[-1]["train_loss"]}, step=trainer.global_step - 1)
        log.info("%s", _line(self.epochs[-1], trainer.max_epochs))
        if trainer.is_global_zero:
            write_json(self._path, self.epochs)

    def _epoch(self, trainer: Trainer, totals: Totals) -> dict[str, Any]:
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        scores = {name.replace("/", "_"): value for name, value in metrics.items() if name.startswith("val/")}
        return {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            "train_loss": totals.objective / totals.documents,
            "train_eval_loss": metrics["train_eval/loss"],
            **scores,
            "gap": metrics["gap"],
            "gap_status": self._gap_status(metrics["gap"]),
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "seconds": round(totals.seconds + time.monotonic() - self._resumed_at, 3),
            "tokens_per_s": round(totals.tokens / totals.seconds, 1),
            "padding_share": round(1 - totals.tokens / totals.cells, 4),
        }

    def state_dict(self) -> dict[str, Any]:
        """The epochs and the totals so far, so that a resumed run's history is whole."""
        return {"epochs": self.epochs, "totals": asdict(self._totals.of_all_processes(self._device))}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what the run that is resumed has added up."""
        self.epochs = list(state_dict["epochs"])
        self._totals = Totals(**state_dict["totals"]) if is_main() else Totals()


def _cells(batch: Any) -> int:
    """Tokens that are computed, padding included: a net that pads otherwise than its batch says so in `cells`."""
    if "cells" in batch:
        return int(batch["cells"])
    return int(batch["attention_mask"].numel() if "attention_mask" in batch else batch["tokens"])


def _line(epoch: dict[str, Any], epochs: int | None) -> str:
    losses = ", ".join(f"{name} {epoch[name]:.4f}" for name in ("train_loss", "val_loss"))
    scores = ", ".join(
        f"{name} {value:.4f}" for name, value in epoch.items() if name.startswith("val_") and name != "val_loss"
    )
    return (
        f"Epoch {epoch['epoch']}/{epochs}: {losses}, {scores}; gap {epoch['gap']:.2f} ({epoch['gap_status']}); "
        f"{epoch['seconds']:.0f} s, {epoch['tokens_per_s']:,.0f} tokens/s."
    )
