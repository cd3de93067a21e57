"""Validation within an epoch, after every so many optimiser steps."""

from __future__ import annotations

from typing import Any

from lightning import Callback, LightningModule, Trainer


class StepChecks(Callback):
    """Has Lightning validate after steps that are multiples of a number, beside the validation at an epoch's end.

    Lightning's own `val_check_interval` counts forward passes and leaves the end of an epoch out. A check is asked for
    when its step is over, so that no gradient is pending.

    Args:
        every_n_steps: optimiser steps, counted over the whole run.
    """

    def __init__(self, every_n_steps: int) -> None:
        self._every_n_steps = every_n_steps

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Ask for a check; that at the end of an epoch comes by itself."""
        is_due = batch["ends_step"] and trainer.global_step % self._every_n_steps == 0
        trainer.val_check_batch = 1 if is_due else trainer.num_training_batches


def is_within_epoch(trainer: Trainer) -> bool:
    """Whether the validation that goes on stands between two steps of an epoch, not at its end."""
    return not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch


def place_in_words(trainer: Trainer) -> str:
    """Where a validation stands, such as "epoch 2" at its end or "step 40" within it."""
    return f"step {trainer.global_step}" if is_within_epoch(trainer) else f"epoch {trainer.current_epoch + 1}"
