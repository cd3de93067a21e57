"""What all datamodules have: parts with examples of known lengths, and loaders that batch them by length.

An example is what one row of a batch shows: a document, or a window of one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from lightning import LightningDataModule
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from doctune.training.data.batches import BatchPlan, LengthAwareBatches, MicroBatch, OrderedBatches, in_length_order
from doctune.training.data.sampling import ClassSampling

Batch = dict[str, Any]
PARTS = ("train", "val", "test")


class Examples(Protocol):
    """The examples of a part; asked for a `MicroBatch` they give a padded batch.

    Every batch has index (B,), the examples' places in the part, tokens, the number of real ones, and scale and
    ends_step, see `MicroBatch`.
    """

    def __len__(self) -> int: ...

    def __getitems__(self, micro: MicroBatch) -> Batch: ...


def num_losses(batch: Batch) -> int:
    """Of how many the sums of a training step are: as many as the batch says, such as tokens, else its examples."""
    return int(batch.get("losses", len(batch["index"])))


class FixedBatches(Dataset[Batch]):
    """The batches of an evaluation, which are always the same."""

    def __init__(self, examples: Examples, batches: Sequence[MicroBatch]) -> None:
        self._examples = examples
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, number: int) -> Batch:
        return self._examples.__getitems__(self._batches[number])


class BatchedDataModule(LightningDataModule, ABC):
    """Length-aware batches for training, fixed ones for evaluation; a run that is resumed goes on where it was.

    Args:
        plan: how an effective batch is cut; Lightning's ranks are filled in.
        seed: of the order of training examples.
        num_workers: processes that prepare batches.
    """

    def __init__(self, *, plan: BatchPlan, seed: int, num_workers: int = 0) -> None:
        super().__init__()
        self._plan, self._seed = plan, seed
        self._num_workers = num_workers

    @abstractmethod
    def lengths(self, part: str) -> NDArray[np.int64]:
        """Tokens of each example of a part, (N,)."""

    @abstractmethod
    def examples(self, part: str) -> Examples:
        """The examples of a part, in the order of their lengths' array."""

    def sampling(self) -> ClassSampling | None:
        """Which training examples an epoch shows; None: each once."""
        return None

    def known_targets(self) -> NDArray[np.bool_] | NDArray[np.int64] | None:
        """Which of K targets are known of each training example, or how many losses it has of each, (N, K); None where
        each example has one loss."""
        return None

    def train_dataloader(self) -> DataLoader[Batch]:
        """Length-aware batches; Lightning sets the epoch through the sampler."""
        batches = LengthAwareBatches(
            self.lengths("train"),
            self._ranked_plan(),
            seed=self._seed,
            sampling=self.sampling(),
            known=self.known_targets(),
        )
        if self.trainer is not None:
            # Lightning asks for the first batches before it sets the epoch, and workers prepare them at once. A new run
            # has zeros here.
            loop = self.trainer.fit_loop
            batches.set_epoch(loop.epoch_progress.current.processed)  # type: ignore[attr-defined]
            batches.skip_once(loop.epoch_loop.batch_progress.current.ready % len(batches))
        return self._loader(self.examples("train"), batch_sampler=batches, collate_fn=_as_it_is)

    def val_dataloader(self) -> list[DataLoader[Batch]]:
        """The examples that choose, and the sample of training examples that the gap compares them with."""
        sample = self._training_sample()
        sampled = self._in_length_order(self.lengths("train")[sample])
        return [self._evaluation_loader("val"), self._fixed_loader("train", sampled.among(sample))]

    def test_dataloader(self) -> DataLoader[Batch]:
        """The examples that judge."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> list[DataLoader[Batch]]:
        """All examples, part by part, in the order of `PARTS`."""
        return [self._evaluation_loader(part) for part in PARTS]

    def _training_sample(self) -> NDArray[np.int64]:
        """As many training examples as there are for validation; always the same ones."""
        train, val = len(self.lengths("train")), len(self.lengths("val"))
        return np.sort(np.random.default_rng(self._seed).permutation(train)[:val])

    def _ranked_plan(self) -> BatchPlan:
        if self.trainer is None:
            return self._plan
        return replace(self._plan, rank=self.trainer.global_rank, num_ranks=self.trainer.world_size)

    def _evaluation_loader(self, part: str) -> DataLoader[Batch]:
        return self._fixed_loader(part, self._in_length_order(self.lengths(part)))

    def _in_length_order(self, lengths: NDArray[np.int64]) -> OrderedBatches:
        plan = self._ranked_plan()
        return in_length_order(lengths, plan.micro, plan.rank, plan.num_ranks)

    def _fixed_loader(self, part: str, batches: Sequence[MicroBatch]) -> DataLoader[Batch]:
        return self._loader(FixedBatches(self.examples(part), batches), batch_size=None)

    def _loader(self, dataset: Any, **batching: Any) -> DataLoader[Batch]:
        return DataLoader(
            dataset,
            **batching,
            num_workers=self._num_workers,
            persistent_workers=self._num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )


def _as_it_is(batch: Any) -> Any:
    """`__getitems__` has made a batch already."""
    return batch
