"""A frozen encoder reads each document once; what its head needs is kept with the other caches.

Shapes: N documents of a part, F features, D hidden.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from doctune.corpus.store import mark_used
from doctune.files import written_whole
from doctune.nets.frozen import head_reads_first_token
from doctune.training import build
from doctune.training.config import Config
from doctune.training.data.batched import PARTS
from doctune.training.data.file_content import FileContentDataModule
from doctune.training.modules.classification import ClassificationModule

log = logging.getLogger(__name__)

_TRIED_DOCUMENTS = 4


def encoder_outputs(
    config: Config, precision: str, module: ClassificationModule, datamodule: FileContentDataModule
) -> Mapping[str, NDArray[np.float32]] | None:
    """What the frozen encoder gives for every document, (N, F, D) per part, memory-mapped; cached.

    None where this architecture's head reads more of the encoder's output than is kept.
    """
    if not _can_be_stored(module, datamodule):
        return None
    cache = Path(config.data.cache_dir) / "features"
    folders = {part: cache / _key(module, precision, datamodule, part) for part in PARTS}
    if not all((folder / "features.npy").exists() for folder in folders.values()):
        log.info("The frozen encoder reads all documents once.")
        writer = _Writer(folders, datamodule)
        build.reader(config, precision, writer).predict(module, datamodule=datamodule, return_predictions=False)
    for folder in folders.values():
        mark_used(folder)
    return {part: np.load(folder / "features.npy", mmap_mode="r") for part, folder in folders.items()}


def _can_be_stored(module: ClassificationModule, datamodule: FileContentDataModule) -> bool:
    datamodule.setup()
    batch = next(iter(datamodule.predict_dataloader()[0]))
    tried = {name: batch[name][:_TRIED_DOCUMENTS] for name in ("input_ids", "attention_mask")}
    return head_reads_first_token(module.net, **tried)


def _key(module: ClassificationModule, precision: str, datamodule: FileContentDataModule, part: str) -> str:
    """Depends on the encoder's weights, the tokens and the precision."""
    digest = hashlib.sha256(f"{precision} {datamodule.tokens(part).folder.name}".encode())
    for name, weights in module.net.base_model.state_dict().items():
        digest.update(name.encode())
        digest.update(weights.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


class _Writer(Callback):
    """Writes the outputs of `trainer.predict` into memory maps, which get their names when everything is there."""

    def __init__(self, folders: Mapping[str, Path], datamodule: FileContentDataModule) -> None:
        self._folders = folders
        self._counts = {part: len(datamodule.tokens(part)) for part in folders}
        self._arrays: dict[str, NDArray[np.float32]] = {}
        self._open_files = ExitStack()

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Put the rows where the documents are."""
        rows = outputs.float().cpu().numpy()  # (B, F, D)
        part = PARTS[dataloader_idx]
        if part not in self._arrays:
            temporary = self._open_files.enter_context(written_whole(self._folders[part] / "features.npy"))
            self._arrays[part] = open_memmap(temporary, "w+", np.float32, (self._counts[part], *rows.shape[1:]))
        self._arrays[part][batch["index"].cpu().numpy()] = rows

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Everything is there."""
        self._arrays = {}
        self._open_files.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave nothing half done behind."""
        self._arrays = {}
        self._open_files.__exit__(type(exception), exception, exception.__traceback__)
