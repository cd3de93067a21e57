"""Which documents go together: length-aware, globally shuffled, deterministic in (seed, epoch).

An effective batch is one optimiser step. It is cut into micro-batches, the forward passes whose gradients accumulate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

# Effective batches that are sorted by length together: larger wastes less padding, smaller shuffles more freely.
_SORTED_TOGETHER = 50


class MicroBatch(NamedTuple):
    """One forward pass.

    `scale` times the sum of the documents' losses is what `backward` gets, such that, after Lightning has divided by
    the accumulation, an effective batch has the gradients of its mean loss, also where the last one is smaller.
    """

    indices: tuple[int, ...]
    scale: float


class LengthAwareBatches(Sampler[MicroBatch]):
    """Micro-batches of documents of similar length.

    Args:
        lengths: tokens per document, shape (N,).
        micro: documents per forward pass.
        accumulation: forward passes per optimiser step.
        seed: with the epoch it determines the order.
    """

    def __init__(self, lengths: Sequence[int] | NDArray[np.int64], *, micro: int, accumulation: int, seed: int) -> None:
        self.lengths = np.asarray(lengths)
        self.micro = micro
        self.accumulation = accumulation
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration follows."""
        self.epoch = epoch

    @property
    def sampler(self) -> LengthAwareBatches:
        """Itself: Lightning calls `set_epoch` on a loader's `batch_sampler.sampler` and nowhere else."""
        return self

    def __len__(self) -> int:
        full, rest = divmod(len(self.lengths), self.micro * self.accumulation)
        return full * self.accumulation + -(-rest // self.micro)

    def num_steps(self) -> int:
        """Optimiser steps per epoch."""
        return -(-len(self.lengths) // (self.micro * self.accumulation))

    def __iter__(self) -> Iterator[MicroBatch]:
        for batch in self._effective_batches():
            for start in range(0, len(batch), self.micro):
                yield MicroBatch(tuple(batch[start : start + self.micro].tolist()), self.accumulation / len(batch))

    def _effective_batches(self) -> list[NDArray[np.int64]]:
        rng = np.random.default_rng((self.seed, self.epoch))
        order = rng.permutation(len(self.lengths))
        size = self.micro * self.accumulation
        chunks = [
            order[start : start + size * _SORTED_TOGETHER] for start in range(0, len(order), size * _SORTED_TOGETHER)
        ]
        batches = []
        for chunk in chunks:
            by_length = chunk[np.argsort(-self.lengths[chunk], kind="stable")]
            batches += [by_length[start : start + size] for start in range(0, len(by_length), size)]
        # Only the last chunk has a smaller batch; it stays last, since Lightning steps early at an epoch's end only.
        whole = [batch for batch in batches if len(batch) == size]
        return [*(whole[i] for i in rng.permutation(len(whole))), *(batch for batch in batches if len(batch) < size)]


def in_length_order(lengths: Sequence[int] | NDArray[np.int64], size: int) -> list[MicroBatch]:
    """Batches for evaluation: longest first, so that memory runs out at once or never."""
    order = np.argsort(-np.asarray(lengths), kind="stable")
    return [MicroBatch(tuple(order[start : start + size].tolist()), 1.0) for start in range(0, len(order), size)]
