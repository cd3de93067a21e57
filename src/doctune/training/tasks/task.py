"""What a run asks of its task. The story of a run is one; the tasks differ in data, head, scores and baselines."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from doctune.nets.adapter_files import save_net
from doctune.training.build import Encoder
from doctune.training.callbacks.learning import Chance
from doctune.training.config import Config
from doctune.training.data.batched import BatchedDataModule
from doctune.training.modules.finetuned import FineTunedModule
from doctune.training.record import RunRecord


class Facts(Protocol):
    """What every datamodule tells of its data."""

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps."""

    @property
    def examples_per_epoch(self) -> int:
        """Examples that they show."""


class Task(ABC):
    """The data of a run, prepared, and the encoder that is to learn it.

    Attributes:
        name: of the task, in the run's files.
        source: the encoder, about to be built.
        scores: the names of its `val/` and `test/` metrics beside the loss, the one that says most first.
    """

    name: str
    source: Encoder
    scores: Sequence[str]

    @abstractmethod
    def judge_baselines(self, run: Path) -> None:
        """Write what cheap baselines score on the same split."""

    @abstractmethod
    def datamodule(self, config: Config) -> BatchedDataModule:
        """Batches for the encoder."""

    @abstractmethod
    def facts(self, datamodule: Any) -> Facts:
        """What its datamodule tells."""

    @abstractmethod
    def module(self, config: Config, datamodule: Any, precision: str) -> FineTunedModule:
        """The encoder with its head, with what should not learn frozen."""

    @abstractmethod
    def chance(self, datamodule: Any) -> Chance:
        """What an untrained model and a cheap baseline reach."""

    def class_weights(self, module: Any) -> Tensor:
        """Of the classes in the loss, (L,); a single one where there are no classes."""
        return torch.ones(1)

    @abstractmethod
    def before_training(
        self, config: Config, run: Path, precision: str, module: Any, datamodule: Any, record: RunRecord
    ) -> None:
        """What wants the module as it is before it learns; done again by a run that is resumed."""

    @abstractmethod
    def callbacks(self, run: Path, record: RunRecord) -> list[Callback]:
        """What writes the predictions."""

    def dashboard(self, logger: TensorBoardLogger) -> list[Callback]:
        """What TensorBoard shows of this task only."""
        return []

    @abstractmethod
    def export(self, config: Config, module: Any, folder: Path, record: RunRecord) -> None:
        """Write the `model/` folder."""

    def hints(self, run: Path) -> Mapping[str, str]:
        """Commands to go on with, each with what it does."""
        return {}


def save_encoder(source: Encoder, module: FineTunedModule, max_length: int, folder: Path) -> None:
    """Write weights, of an adapted net those that learnt, and tokenizer in Hugging Face format."""
    for made_from_others in ("onnx", "merged"):
        shutil.rmtree(folder / made_from_others, ignore_errors=True)
    save_net(module.net, folder)
    source.tokenizer.model_max_length = max_length
    source.backend.no_truncation()  # the last window's limits must not be saved as the tokenizer's own
    source.tokenizer.save_pretrained(folder)
