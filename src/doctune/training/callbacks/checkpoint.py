"""Checkpoint files with names that say when, which epoch and how good."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor


class NamedCheckpoint(ModelCheckpoint):
    """Keeps the best by the monitored metric and the last.

    Files are `<prefix>_<YYYYmmdd_HHMMSS>_epoch<EEE>_loss<val_loss .4f>.ckpt` with epochs from 1, and `last.ckpt`.
    """

    def __init__(self, folder: Path, *, prefix: str, monitor: str, mode: str, save_top_k: int) -> None:
        super().__init__(dirpath=folder, monitor=monitor, mode=mode, save_top_k=save_top_k, save_last=True)
        self._prefix = prefix

    def format_checkpoint_name(
        self, metrics: dict[str, Tensor], filename: str | None = None, ver: int | None = None, prefix: str | None = None
    ) -> str:
        """The path of a new checkpoint; `last` keeps its name."""
        if filename == self.CHECKPOINT_NAME_LAST:
            return str(Path(self.dirpath or "") / f"{filename}{self.FILE_EXTENSION}")
        epoch = int(metrics["epoch"]) + 1
        name = f"{self._prefix}_{datetime.now():%Y%m%d_%H%M%S}_epoch{epoch:03d}_loss{_loss(metrics):.4f}"
        version = f"-v{ver}" if ver is not None else ""
        return str(Path(self.dirpath or "") / f"{name}{version}{self.FILE_EXTENSION}")


def _loss(metrics: dict[str, Any]) -> float:
    return float(metrics.get("val/loss", float("nan")))
