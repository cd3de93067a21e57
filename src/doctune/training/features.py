"""A frozen encoder reads each document once; what its head needs is kept with the other caches.

Shapes: R rows (documents, or chunks of them), F features, D hidden.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
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
from doctune.training.data.chunks import ChunkDataModule
from doctune.training.data.file_content import FileContentDataModule, Reading
from doctune.training.data.multi_task import MultiTaskDataModule
from doctune.training.modules.classification import ClassificationModule
from doctune.training.modules.multi_task import MultiTaskModule

log = logging.getLogger(__name__)

_TRIED_DOCUMENTS = 4


def encoder_outputs(
    config: Config,
    precision: str,
    module: ClassificationModule | MultiTaskModule,
    datamodule: FileContentDataModule | ChunkDataModule | MultiTaskDataModule,
) -> Mapping[str, NDArray[np.float32]]:
    """What the frozen encoder gives for every row of the datamodule's readings, memory-mapped; cached.

    Of documents it is (R, F, D) per part, of chunks and of texts with several targets (R, D).
    """
    readings = datamodule.readings()
    cache = Path(config.data.cache_dir) / "features"
    encoder = _fingerprint(module, precision)
    folders = {name: cache / _key(encoder, reading) for name, reading in readings.items()}
    if not all((folder / "features.npy").exists() for folder in folders.values()):
        log.info("The frozen encoder reads all documents once.")
        writer = _Writer([(folders[name], reading.num_rows) for name, reading in readings.items()])
        build.reader(config, precision, writer).predict(module, datamodule=datamodule, return_predictions=False)
    for folder in folders.values():
        mark_used(folder)
    return {name: np.load(folder / "features.npy", mmap_mode="r") for name, folder in folders.items()}


def head_reads_stored_rows(module: ClassificationModule, datamodule: FileContentDataModule) -> bool:
    """Whether the head of this architecture reads no more of the encoder's output than would be kept."""
    datamodule.setup()
    batch = next(iter(datamodule.predict_dataloader()[0]))
    tried = {name: batch[name][:_TRIED_DOCUMENTS] for name in ("input_ids", "attention_mask")}
    return head_reads_first_token(module.net, **tried)


def _key(encoder: str, reading: Reading) -> str:
    return hashlib.sha256(f"{encoder} {reading.tokens}".encode()).hexdigest()[:16]


def _fingerprint(module: ClassificationModule | MultiTaskModule, precision: str) -> str:
    """Of what gives the rows: the encoder's weights, what is kept of its output, and the precision."""
    digest = hashlib.sha256(f"{precision} {module.stored}".encode())
    for name, weights in module.net.base_model.state_dict().items():
        digest.update(name.encode())
        digest.update(weights.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class _Writer(Callback):
    """Writes the outputs of `trainer.predict` into memory maps, which get their names when everything is there.

    Args:
        targets: the folder and the number of rows of each loader.
    """

    def __init__(self, targets: Sequence[tuple[Path, int]]) -> None:
        self._targets = targets
        self._arrays: dict[int, NDArray[np.float32]] = {}
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
        """Put the rows where the documents, or their chunks, are."""
        found = outputs.float().cpu().numpy()  # (B, F, D), or (C, D)
        if dataloader_idx not in self._arrays:
            folder, num_rows = self._targets[dataloader_idx]
            temporary = self._open_files.enter_context(written_whole(folder / "features.npy"))
            self._arrays[dataloader_idx] = open_memmap(temporary, "w+", np.float32, (num_rows, *found.shape[1:]))
        places = batch["rows"] if "rows" in batch else batch["index"]
        self._arrays[dataloader_idx][places.cpu().numpy()] = found

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Everything is there."""
        self._arrays = {}
        self._open_files.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave nothing half done behind."""
        self._arrays = {}
        self._open_files.__exit__(type(exception), exception, exception.__traceback__)
