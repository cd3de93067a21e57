"""Random numbers that depend on where the run is, not on how it came there."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer


class StepSeeds(Callback):
    """Seeds Python, NumPy and torch before each micro-batch from (seed, epoch, micro-batch, rank).

    Dropout of a resumed run is then that of the run that was lost; a generator's saved state would be right for the
    first micro-batch only, and not at all where workers draw numbers too.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Seed all three generators."""
        place = (self._seed, trainer.current_epoch, batch_idx, trainer.global_rank)
        seed = int(np.random.SeedSequence(place).generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
