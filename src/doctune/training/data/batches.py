"""Which documents go together: length-aware, globally shuffled, deterministic in (seed, epoch), shared out to ranks.

An effective batch is one optimiser step. It is shared out to the ranks (processes), and each rank's share is cut into
micro-batches, the forward passes whose gradients accumulate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from doctune.training.data.sampling import ClassSampling

# Effective batches that are sorted by length together: larger wastes less padding, smaller shuffles more freely.
_SORTED_TOGETHER = 50

Ids = NDArray[np.int64]


class MicroBatch(NamedTuple):
    """One forward pass.

    `scale` times the sum of the documents' losses is what `backward` gets, such that, after Lightning has divided by
    the accumulation and DDP has averaged over the ranks, an effective batch has the gradients of its mean loss, also
    where the last one is smaller. It is 0 for a stand-in document of a rank that has none left.
    `target_scales` is the same for each of K targets, whose loss is a mean over the texts that know it: 0 where no text
    of the effective batch does.
    `ends_step` marks the last one of an effective batch. `seed` and `repeats` (how often the epoch has drawn each
    document before) are what random views of the documents depend on; without a seed they are shown as they are.
    """

    indices: tuple[int, ...]
    scale: float
    ends_step: bool = True
    seed: tuple[int, int] | None = None
    repeats: tuple[int, ...] = ()
    target_scales: tuple[float, ...] = ()


@dataclass(frozen=True)
class BatchPlan:
    """How an effective batch is cut: documents per forward pass, forward passes per step and rank, processes."""

    micro: int
    accumulation: int = 1
    rank: int = 0
    num_ranks: int = 1

    @property
    def effective(self) -> int:
        """Documents per optimiser step."""
        return self.micro * self.accumulation * self.num_ranks

    def num_steps(self, num_documents: int) -> int:
        """Optimiser steps that show so many documents."""
        return -(-num_documents // self.effective)

    def num_micro_batches(self, num_documents: int) -> int:
        """Forward passes of each rank in these steps; the same for all ranks, else they would wait for each other."""
        full, rest = divmod(num_documents, self.effective)
        return full * self.accumulation + -(-rest // (self.micro * self.num_ranks))

    def share(self, batch: Ids) -> Iterator[MicroBatch]:
        """This rank's micro-batches of an effective batch, without a seed."""
        mine = batch[self.rank :: self.num_ranks]
        scale = self.accumulation * self.num_ranks / len(batch)
        passes = self.num_micro_batches(len(batch))
        for number in range(passes):
            indices = mine[number * self.micro : (number + 1) * self.micro].tolist()
            yield MicroBatch(tuple(indices) or (int(batch[0]),), scale if indices else 0.0, number == passes - 1)


class LengthAwareBatches(Sampler[MicroBatch]):
    """Micro-batches of documents of similar length.

    Args:
        lengths: tokens per document, shape (N,).
        plan: how effective batches are cut.
        seed: with the epoch it determines the order.
        sampling: which documents an epoch shows; None shows each once.
        known: which targets are known of each document, or how many losses it has of each, (N, K); None where all
            documents count alike.
    """

    def __init__(
        self,
        lengths: Sequence[int] | NDArray[np.int64],
        plan: BatchPlan,
        *,
        seed: int,
        sampling: ClassSampling | None = None,
        known: NDArray[np.bool_] | NDArray[np.int64] | None = None,
    ) -> None:
        self.lengths = np.asarray(lengths)
        self.plan = plan
        self.seed = seed
        self.epoch = 0
        self._sampling = sampling
        self._known = known
        self._skip = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration follows."""
        self.epoch = epoch

    def skip_once(self, micro_batches: int) -> None:
        """Let the next iteration start after so many micro-batches: a resumed run has had them."""
        self._skip = micro_batches

    @property
    def sampler(self) -> LengthAwareBatches:
        """Itself: Lightning calls `set_epoch` on a loader's `batch_sampler.sampler` and nowhere else."""
        return self

    def __len__(self) -> int:
        return self.plan.num_micro_batches(self._documents)

    def num_steps(self) -> int:
        """Optimiser steps per epoch."""
        return self.plan.num_steps(self._documents)

    def __iter__(self) -> Iterator[MicroBatch]:
        skip, self._skip = self._skip, 0
        for number, micro in enumerate(self._micro_batches()):
            if number >= skip:
                yield micro

    @property
    def _documents(self) -> int:
        return len(self.lengths) if self._sampling is None else len(self._sampling)

    def _micro_batches(self) -> Iterator[MicroBatch]:
        rng = np.random.default_rng((self.seed, self.epoch))
        drawn = rng.permutation(len(self.lengths)) if self._sampling is None else self._sampling.draw(rng)
        repeats = repeats_before(drawn)
        for batch in self._effective_batches(self.lengths[drawn], rng):
            for places in self.plan.share(batch):
                chosen = list(places.indices)
                documents, times = (tuple(each[chosen].tolist()) for each in (drawn, repeats))
                scales = self._target_scales(drawn[batch], places.scale)
                yield places._replace(
                    indices=documents, seed=(self.seed, self.epoch), repeats=times, target_scales=scales
                )

    def _target_scales(self, documents: Ids, scale: float) -> tuple[float, ...]:
        """The scale of an effective batch's mean, for each target over the documents that know it."""
        if self._known is None:
            return ()
        counts = self._known[documents].sum(axis=0).tolist()
        return tuple(scale * len(documents) / count if count else 0.0 for count in counts)

    def _effective_batches(self, lengths: Ids, rng: np.random.Generator) -> list[Ids]:
        """Places in the order that was drawn, whose documents have these lengths."""
        size = self.plan.effective
        batches = []
        for start in range(0, len(lengths), size * _SORTED_TOGETHER):
            chunk = np.arange(start, min(start + size * _SORTED_TOGETHER, len(lengths)))
            by_length = chunk[np.argsort(-lengths[chunk], kind="stable")]
            batches += [by_length[start : start + size] for start in range(0, len(by_length), size)]
        # Only the last chunk has a smaller batch; it stays last, since Lightning steps early at an epoch's end only.
        whole = [batch for batch in batches if len(batch) == size]
        return [*(whole[i] for i in rng.permutation(len(whole))), *(batch for batch in batches if len(batch) < size)]


def repeats_before(drawn: Ids) -> Ids:
    """How often each element of an array has stood in it before."""
    order = np.argsort(drawn, kind="stable")
    in_order = drawn[order]
    firsts = np.searchsorted(in_order, in_order, side="left")
    repeats = np.empty(len(drawn), dtype=np.int64)
    repeats[order] = np.arange(len(drawn)) - firsts
    return repeats


class OrderedBatches(Sequence[MicroBatch]):
    """Batches of documents in a given order, each made when it is asked for.

    Args:
        order: the documents, shape (N,).
        size: documents of a batch; the last one may have fewer.
    """

    def __init__(self, order: Ids, size: int) -> None:
        self._order = order
        self._size = size

    def __len__(self) -> int:
        return -(-len(self._order) // self._size)

    def __getitem__(self, number: int) -> MicroBatch:  # type: ignore[override]  # slices are not needed
        start = range(len(self))[number] * self._size
        return MicroBatch(tuple(self._order[start : start + self._size].tolist()), 1.0)

    def among(self, documents: Ids) -> OrderedBatches:
        """The same, where document n is one of more: the one at place n of `documents`."""
        return OrderedBatches(documents[self._order], self._size)


def in_length_order(
    lengths: Sequence[int] | NDArray[np.int64], size: int, rank: int = 0, num_ranks: int = 1
) -> OrderedBatches:
    """A rank's batches for evaluation: longest first, so that memory runs out at once or never.

    Each document is in one batch of one rank. Documents are dealt out, not batches, so that no rank has none unless
    there are fewer documents than ranks.
    """
    return OrderedBatches(np.argsort(-np.asarray(lengths), kind="stable")[rank::num_ranks], size)
