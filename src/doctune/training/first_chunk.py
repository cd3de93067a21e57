"""The baseline of long documents: the same encoder by the same recipe, which sees the first chunk of each only.

What it lacks is what reading on is worth. It is trained like the run itself, without its guards and loggers.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import lightning as L
import numpy as np
import pyarrow.parquet as pq
import torch
from lightning import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.seed import isolate_rng

from doctune.corpus.baselines import Baseline
from doctune.corpus.division import LabelledDocument
from doctune.labels import Labels
from doctune.training import build
from doctune.training.callbacks.gradual import GradualUnfreezing
from doctune.training.callbacks.predictions import PredictionWriter
from doctune.training.callbacks.seeding import StepSeeds
from doctune.training.config import Config
from doctune.training.data.chunks import ChunkDataModule
from doctune.training.memory import is_out_of_memory, release_memory, smaller_micro_batch
from doctune.training.modules.hierarchical import HierarchicalModule

log = logging.getLogger(__name__)

NAME = "first_chunk"

Make = Callable[[Config], tuple[HierarchicalModule, ChunkDataModule]]


def first_chunk_baseline(
    config: Config,
    run: Path,
    precision: str,
    make: Make,
    labels: Labels,
    judged: Mapping[str, Sequence[LabelledDocument]],
) -> Baseline:
    """Train it and let the weights of its best epoch, by the monitored metric, predict.

    Python's, NumPy's and torch's generators are afterwards where they were before.

    Args:
        config: of the run.
        run: the run's folder; what training needs there for a while is removed.
        precision: of the run.
        make: a module and batches of first chunks for a configuration, whose micro-batch may become smaller.
        labels: in id order.
        judged: the documents of the parts "val" and "test".
    """
    scratch = run / NAME
    with isolate_rng():
        while True:
            shutil.rmtree(scratch, ignore_errors=True)  # by a run that was killed, or ran out of memory
            L.seed_everything(config.seed, workers=True, verbose=False)
            module, datamodule = make(config)
            best = _fit(config, scratch, precision, module, datamodule)
            if best is not None:
                break
            config = _with_smaller_micro_batch(config)
            release_memory()
        module.load_state_dict(torch.load(best, map_location="cpu", weights_only=True)["state_dict"])
        predicted = _predict(config, scratch, precision, module, datamodule, labels, judged)
    shutil.rmtree(scratch)
    return Baseline(NAME, *(np.asarray(predicted[part], dtype=np.int64) for part in ("val", "test")))


def _fit(
    config: Config, folder: Path, precision: str, module: HierarchicalModule, datamodule: ChunkDataModule
) -> str | None:
    """The path of the best epoch's weights; None if memory ran out."""
    best = ModelCheckpoint(folder, monitor=config.monitor.metric, mode=config.monitor.mode, save_weights_only=True)
    early = build.early_stopping(config)
    callbacks: list[Callback] = [
        StepSeeds(config.seed),
        *([GradualUnfreezing(module.net)] if config.finetune.strategy == "gradual" else []),  # type: ignore[arg-type]
        *([early] if early else []),
        best,
    ]
    trainer = build.trainer(config, folder, precision, callbacks, [])
    try:
        trainer.fit(module, datamodule)
    except SystemExit:
        if not trainer.interrupted:
            raise
        raise KeyboardInterrupt from None  # Lightning turns Ctrl-C into exit(1)
    except Exception as error:
        if is_out_of_memory(error) and config.trainer.device_batch_size() > 1:
            return None
        raise
    return best.best_model_path


def _with_smaller_micro_batch(config: Config) -> Config:
    trainer = config.trainer
    smaller = smaller_micro_batch(trainer.device_batch_size(), trainer.effective_batch_size)
    log.info("Memory ran out: the baseline begins again with %s documents per forward pass.", smaller)
    return replace(config, trainer=replace(trainer, micro_batch_size=smaller))


def _predict(
    config: Config,
    folder: Path,
    precision: str,
    module: HierarchicalModule,
    datamodule: ChunkDataModule,
    labels: Labels,
    judged: Mapping[str, Sequence[LabelledDocument]],
) -> dict[str, list[int]]:
    """Label ids of the judged documents of each part."""
    trainer = build.reader(config, precision, PredictionWriter(folder, labels, judged))
    trainer.validate(module, datamodule=datamodule, verbose=False)
    trainer.test(module, datamodule=datamodule, verbose=False)
    read = {part: pq.read_table(folder / f"{part}.parquet", columns=["prediction"]) for part in judged}
    return {part: labels.encode(table["prediction"].to_pylist()) for part, table in read.items()}
