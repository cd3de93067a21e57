"""The optimiser and the schedule of its learning rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from transformers import get_scheduler


@dataclass(frozen=True)
class Optimisation:
    """Everything that `configure_optimizers` needs; plain values, so that a checkpoint can hold them.

    `warmup_steps` and `total_steps` count optimiser steps.
    """

    lr: float
    head_lr_multiplier: float
    weight_decay: float
    schedule: str
    warmup_steps: int
    total_steps: int


def adamw(groups: list[dict[str, Any]]) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019); rates and decay are in the groups."""
    return torch.optim.AdamW(groups, fused=True)


def with_schedule(optimizer: torch.optim.Optimizer, optimisation: Optimisation) -> OptimizerLRSchedulerConfig:
    """The optimiser with its per-step schedule, in the form that Lightning takes."""
    name = "constant_with_warmup" if optimisation.schedule == "constant" else optimisation.schedule
    scheduler = get_scheduler(
        name,
        optimizer,
        num_warmup_steps=optimisation.warmup_steps,
        num_training_steps=optimisation.total_steps,
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
