"""A loss that is no number ends the run with a sentence; nothing could be learnt after it."""

from __future__ import annotations

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from doctune.errors import ConfigError


class FiniteLoss(Callback):
    """Stops at the first training batch whose loss is NaN or infinite, before it reaches a checkpoint.

    Raises:
        ConfigError: with epoch and step, and what to try.
    """

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at the loss that was just stepped on."""
        if not torch.isfinite(outputs["loss"]):
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            raise ConfigError(
                f"The training loss became {float(outputs['loss'])} in epoch {trainer.current_epoch + 1}, step "
                f"{trainer.global_step}, at a learning rate of {rate:.3g}. Lower optim.lr, or lengthen the warmup "
                "(schedule.warmup_ratio)."
            )
