"""Checkpoint files: whole or not at all, also when the disk is full or the machine stops."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from doctune.errors import TrainingError
from doctune.files import written_whole


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes beside and renames, after the bytes have reached the disk.

    Raises:
        TrainingError: the disk is full; checkpoints that were there before still are.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Save to a local path."""
        try:
            with written_whole(Path(path)) as temporary, temporary.open("wb") as stream:
                torch.save(checkpoint, stream)
                stream.flush()
                os.fsync(stream.fileno())
        except (OSError, RuntimeError) as error:
            if not is_disk_full(error):
                raise
            raise TrainingError(disk_full_message(Path(path))) from error


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, says that no space or quota is left; torch hides it behind its own."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__ or error.__context__
    return False


def disk_full_message(path: Path) -> str:
    """What happened, what is still there, and how to go on."""
    folder = path.parent
    while not folder.is_dir():
        folder = folder.parent
    return (
        f"The disk is full: {path.name} could not be written to {path.parent} "
        f"({shutil.disk_usage(folder).free / 1e6:,.0f} MB free). What was saved before is whole. Make room, then go on "
        "with resume=RUN."
    )


def checkpoint_bytes(saved: int, trainable: int) -> int:
    """About how large a checkpoint is: 32-bit weights, and AdamW's two moments of those that learn."""
    return 4 * (saved + 2 * trainable)
