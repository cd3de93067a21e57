"""Conversations -> batches of token sequences with what the model is to write in them.

Shapes: S sequences of a part, R rows of it, B rows of a batch, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from doctune.corpus.instruction_corpus import InstructionCorpus
from doctune.corpus.instruction_tokens import InstructionTokens
from doctune.nets.causal import IGNORED
from doctune.training.data.batched import PARTS, Batch, BatchedDataModule
from doctune.training.data.batches import BatchPlan, MicroBatch
from doctune.training.data.packing import Row, pack


@dataclass(frozen=True)
class InstructionFacts:
    """What the data tells the module and the guards.

    `num_examples` are the conversations of each part, `num_learnt` the tokens to write in them; `rows_per_epoch` is how
    many rows an epoch shows: sequences, or packs of them.
    """

    num_examples: Mapping[str, int]
    num_learnt: Mapping[str, int]
    rows_per_epoch: int
    steps_per_epoch: int

    @property
    def examples_per_epoch(self) -> int:
        """Rows that an epoch shows."""
        return self.rows_per_epoch


class SequenceDataset(Dataset[Batch]):
    """The rows of one part; asked for a `MicroBatch` it gives a batch padded on the right.

    A batch has input_ids, labels (B, T), the tokens to write and `IGNORED` elsewhere, losses, how many there are of the
    former, and what `Examples` says; its scale is that of their sum. Rows of one sequence have attention_mask (B, T),
    packed ones position_ids (B, T), which begin anew with each sequence, and cells, the size of the batch.

    Args:
        tokens: of all sequences.
        rows: the sequences of each row.
        pad_id: what fills up rows.
        packed: whether rows have several sequences.
    """

    def __init__(self, tokens: InstructionTokens, rows: Sequence[Row], pad_id: int, *, packed: bool = False) -> None:
        self._tokens = tokens
        self._rows = rows
        self._pad_id = pad_id
        self._packed = packed

    def __len__(self) -> int:
        return len(self._rows)

    def __getitems__(self, micro: MicroBatch) -> Batch:
        rows = [[self._tokens.sequence(number) for number in self._rows[index]] for index in micro.indices]
        ids = [np.concatenate([each.ids for each in row]) for row in rows]
        learns = [np.concatenate([each.learns for each in row]) for row in rows]
        labels = [np.where(marks, row, IGNORED) for row, marks in zip(ids, learns, strict=True)]
        batch = {"input_ids": _padded(ids, self._pad_id), "labels": _padded(labels, IGNORED)}
        num_tokens = sum(map(len, ids))
        if self._packed:
            positions = [np.concatenate([np.arange(len(each.ids)) for each in row]) for row in rows]
            batch["position_ids"] = _padded(positions, 0)
            extra = {"cells": batch["input_ids"].numel()}
        else:
            batch["attention_mask"] = _padded([np.ones(len(row), np.int64) for row in ids], 0)
            extra = {}
        return {
            **batch,
            **extra,
            "index": torch.tensor(micro.indices),
            "losses": int(sum(marks.sum() for marks in learns)),
            "tokens": num_tokens,
            "scale": micro.target_scales[0] if micro.target_scales else micro.scale,
            "ends_step": micro.ends_step,
        }


class InstructionDataModule(BatchedDataModule):
    """Batches of token sequences, with a loss over the tokens to write of the whole effective batch.

    Args:
        corpus: conversations with their parts and tokens.
        pad_id: what fills up rows.
        row_length: tokens of a packed training row; None packs nothing. Judged parts never are.
        plan: how an effective batch of rows is cut.
        seed: of the packs and of the order of training rows.
        num_workers: processes that prepare batches.
    """

    def __init__(
        self,
        corpus: InstructionCorpus,
        *,
        pad_id: int,
        row_length: int | None,
        plan: BatchPlan,
        seed: int,
        num_workers: int = 0,
    ) -> None:
        super().__init__(plan=plan, seed=seed, num_workers=num_workers)
        self._tokens = corpus.tokens
        self._pad_id = pad_id
        self._packed = row_length is not None
        self._num_examples = {part: len(corpus.part(part)) for part in PARTS}
        self._sequences = {part: [each for own in corpus.sequences(part) for each in own] for part in PARTS}
        self._rows: dict[str, list[Row]] = {part: [(each,) for each in self._sequences[part]] for part in PARTS}
        if row_length is not None:
            train = self._sequences["train"]
            packs = pack(self._tokens.lengths()[train], row_length, seed)
            self._rows["train"] = [tuple(train[place] for place in row) for row in packs]

    def facts(self) -> InstructionFacts:
        """What the module must know before it is made."""
        learnt = self._tokens.num_learnt()
        rows = len(self._rows["train"])
        return InstructionFacts(
            num_examples=self._num_examples,
            num_learnt={part: int(learnt[own].sum()) for part, own in self._sequences.items()},
            rows_per_epoch=rows,
            steps_per_epoch=self._plan.num_steps(rows),
        )

    def lengths(self, part: str) -> NDArray[np.int64]:
        """Tokens of each row, (R,)."""
        return self._sums(part, self._tokens.lengths())

    def examples(self, part: str) -> SequenceDataset:
        """The rows of a part."""
        packed = self._packed and part == "train"
        return SequenceDataset(self._tokens, self._rows[part], self._pad_id, packed=packed)

    def known_targets(self) -> NDArray[np.int64]:
        """The tokens to write in each training row, (R, 1): their losses are what an effective batch is the mean of."""
        return self._sums("train", self._tokens.num_learnt())[:, None]

    def _training_sample(self) -> NDArray[np.int64]:
        """Training rows with at least as many sequences as there are for validation; always the same ones."""
        order = np.random.default_rng(self._seed).permutation(len(self._rows["train"]))
        sequences = np.cumsum([len(self._rows["train"][row]) for row in order])
        count = int(np.searchsorted(sequences, len(self._rows["val"]))) + 1
        return np.sort(order[:count])

    def _sums(self, part: str, values: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.array([values[list(row)].sum() for row in self._rows[part]], dtype=np.int64)


def _padded(rows: Sequence[NDArray[np.generic]], fill: int) -> torch.Tensor:
    padded = np.full((len(rows), max(map(len, rows))), fill, dtype=np.int64)
    for number, row in enumerate(rows):
        padded[number, : len(row)] = row
    return torch.from_numpy(padded)
