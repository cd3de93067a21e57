"""The optimiser and the schedule of its learning rate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR


@dataclass(frozen=True)
class Optimisation:
    """Everything that `configure_optimizers` needs; plain values, so that a checkpoint can hold them.

    `schedule` is linear, cosine, constant or one_cycle; `warmup_steps` and `total_steps` count optimiser steps;
    `layer_decay` is explained at `parameters.parameter_groups`; what pools chunks learns at `pooling_lr_multiplier`
    times `lr`. `fused` updates all weights in one kernel; with 16-bit gradients it also takes back their scale, after
    which they can no longer be clipped, so it is off there. `paged` lets the moments move out of a GPU's memory while
    it is needed for something else (Dettmers et al. 2023, section 3).
    """

    lr: float
    head_lr_multiplier: float
    weight_decay: float
    schedule: str
    warmup_steps: int
    total_steps: int
    layer_decay: float | None = None
    fused: bool = True
    pooling_lr_multiplier: float = 1.0
    paged: bool = False


def adamw(groups: list[dict[str, Any]], fused: bool = True, paged: bool = False) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019); rates and decay are in the groups."""
    if paged:
        from bitsandbytes.optim.adamw import PagedAdamW32bit

        return PagedAdamW32bit(groups)
    return torch.optim.AdamW(groups, fused=fused)


def with_schedule(optimizer: torch.optim.Optimizer, optimisation: Optimisation) -> OptimizerLRSchedulerConfig:
    """The optimiser with its per-step schedule, in the form that Lightning takes."""
    scheduler: LRScheduler
    if optimisation.schedule == "one_cycle":
        scheduler = _one_cycle(optimizer, optimisation.warmup_steps, optimisation.total_steps)
    else:
        scheduler = LambdaLR(optimizer, partial(_share_of_peak, optimisation))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def _share_of_peak(optimisation: Optimisation, step: int) -> float:
    """Part of the rate at a step: it rises linearly, then stays, or falls to nothing linearly or as half a cosine."""
    warmup, total = optimisation.warmup_steps, optimisation.total_steps
    if step < warmup:
        return step / max(1, warmup)
    if optimisation.schedule == "constant":
        return 1.0
    fall = max(1, total - warmup)
    if optimisation.schedule == "cosine":
        return max(0.0, 0.5 * (1.0 + math.cos(math.pi * ((step - warmup) / fall))))
    return max(0.0, (total - step) / fall)


def _one_cycle(optimizer: torch.optim.Optimizer, warmup_steps: int, total_steps: int) -> _OneCycle:
    """Each group's rate rises from 1/25 of it, then falls to almost nothing; momentum mirrors it (Smith & Topin 2019).

    Without warmup steps it starts to fall at once.
    """
    # torch divides by the length of the rise (from its first step to its peak) and by that of the fall.
    total = max(total_steps, 3)
    rise = min(max(warmup_steps, 2), total - 1) if warmup_steps else 0
    peaks = [group["lr"] for group in optimizer.param_groups]
    return _OneCycle(optimizer, max_lr=peaks, total_steps=total, pct_start=rise / total)


class _OneCycle(OneCycleLR):
    """torch's, except that a run resumed with more epochs follows the longer cycle, as the other schedules do."""

    def state_dict(self) -> dict[str, Any]:
        """What moves; the lengths belong to the plan."""
        lengths = ("total_steps", "_schedule_phases")
        return {key: value for key, value in super().state_dict().items() if key not in lengths}
