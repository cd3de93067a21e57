"""A nearly full disk is said before it fails a run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer


class DiskSpace(Callback):
    """Compares the free space with what is still to be written, before training and before each checkpoint.

    Args:
        folder: of the checkpoints.
        checkpoint_bytes: of one checkpoint, about.
        kept: checkpoints that there are at most at one time, the one that is being written included.
        model_bytes: of the exported model, which is written last.
        say: is given the sentence, once.
    """

    def __init__(
        self, folder: Path, *, checkpoint_bytes: int, kept: int, model_bytes: int, say: Callable[[str], None]
    ) -> None:
        self._folder = folder
        self._checkpoint_bytes = checkpoint_bytes
        self._kept = kept
        self._model_bytes = model_bytes
        self._say = say
        self._is_said = False

    def check(self) -> None:
        """Say it where the disk is too small for the checkpoints that are still to come and the model."""
        missing = max(self._kept - len([*self._folder.glob("*.ckpt")]), 1)
        needed = missing * self._checkpoint_bytes + self._model_bytes
        present = next(folder for folder in (self._folder, *self._folder.parents) if folder.is_dir())
        free = shutil.disk_usage(present).free
        if free >= needed or self._is_said:
            return
        self._is_said = True
        checkpoints = "1 more checkpoint" if missing == 1 else f"{missing} checkpoints"
        self._say(
            f"The disk may be too small: {checkpoints} and the model take about {needed / 1e9:.1f} GB, and "
            f"{free / 1e9:.1f} GB are free. Make room, or lower callbacks.checkpoint.save_top_k or keep_interval."
        )

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Look again."""
        self.check()
