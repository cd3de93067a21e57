"""The loss of a whole optimiser step: of all its micro-batches, of all processes."""

from __future__ import annotations

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from doctune.training.collectives import summed
from doctune.training.data.batched import num_losses


class StepLoss(Callback):
    """Logs `train/loss_step`: the loss as it is minimised, the mean over the examples or tokens of the effective batch.

    However the batch is cut and shared out, it is the same number.
    """

    def __init__(self) -> None:
        self._sums: list[Tensor] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add up micro-batches; a stand-in of a process that has none left counts nothing."""
        objective = outputs["objective"]
        share = torch.stack([objective, objective.new_full((), num_losses(batch))])
        self._sums.append(share if batch["scale"] else torch.zeros_like(share))
        if batch["ends_step"]:
            total, examples = summed(torch.stack(self._sums).sum(dim=0))
            self._sums = []
            pl_module.log("train/loss_step", total / examples, on_step=True, on_epoch=False, prog_bar=True)
