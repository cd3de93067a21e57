"""Files with one label each -> batches of token ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from tokenizers import Tokenizer
from torch.utils.data import DataLoader, Dataset

from doctune.corpus.division import LabelledDocument
from doctune.corpus.prepare import Corpus
from doctune.corpus.tokens import Tokens, tokenise
from doctune.labels import Labels
from doctune.training.data.batches import LengthAwareBatches, MicroBatch, in_length_order

Batch = dict[str, Any]


@dataclass(frozen=True)
class Facts:
    """What the data tells the module: labels in id order, training documents per label, optimiser steps per epoch."""

    labels: Labels
    class_counts: tuple[int, ...]
    steps_per_epoch: int


class TokenDataset(Dataset[Batch]):
    """Documents of one part; asked for a `MicroBatch` it gives a padded batch.

    A batch has input_ids and attention_mask (B, T), labels (B,), index (B,), the document's place in the part, and
    scale, see `MicroBatch`.
    """

    def __init__(self, tokens: Tokens, label_ids: Sequence[int], pad_id: int) -> None:
        self._tokens = tokens
        self._label_ids = torch.tensor(label_ids, dtype=torch.long)
        self._pad_id = pad_id

    def __len__(self) -> int:
        return len(self._tokens)

    def __getitems__(self, micro: MicroBatch) -> Batch:
        windows = [self._tokens[index] for index in micro.indices]
        longest = max(len(window) for window in windows)
        ids = np.full((len(windows), longest), self._pad_id, dtype=np.int64)
        mask = np.zeros((len(windows), longest), dtype=np.int64)
        for row, window in enumerate(windows):
            ids[row, : len(window)] = window
            mask[row, : len(window)] = 1
        index = torch.tensor(micro.indices)
        return {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(mask),
            "labels": self._label_ids[index],
            "index": index,
            "scale": micro.scale,
        }


class FileContentDataModule(LightningDataModule):
    """Batches of a prepared corpus.

    Args:
        corpus: documents with their parts, and the store of their texts.
        tokenizer: the model's.
        cache: where tokens are kept.
        max_length: window length in tokens.
        micro, accumulation: see `LengthAwareBatches`.
        seed: of the order of training documents.
        num_workers: processes that prepare batches.
    """

    def __init__(
        self,
        corpus: Corpus,
        tokenizer: Tokenizer,
        *,
        pad_id: int,
        cache: Path,
        max_length: int,
        micro: int,
        accumulation: int,
        seed: int,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self._corpus = corpus
        self._tokenizer = tokenizer
        self._pad_id = pad_id
        self._cache = cache
        self._max_length = max_length
        self._micro, self._accumulation, self._seed = micro, accumulation, seed
        self._num_workers = num_workers
        self._tokens: dict[str, Tokens] = {}

    def setup(self, stage: str | None = None) -> None:
        """Tokenise all parts, once."""
        for part in ("train", "val", "test"):
            if part not in self._tokens:
                self._tokens[part] = self._tokenise(self._corpus.part(part))

    def facts(self) -> Facts:
        """What the module must know before it is made."""
        self.setup()
        train = self._corpus.label_ids(self._corpus.part("train"))
        counts = np.bincount(train, minlength=len(self._corpus.labels))
        return Facts(self._corpus.labels, tuple(counts.tolist()), self._training_batches().num_steps())

    def train_dataloader(self) -> DataLoader[Batch]:
        """Length-aware batches; Lightning sets the epoch through the sampler."""
        return self._loader("train", self._training_batches())

    def val_dataloader(self) -> DataLoader[Batch]:
        """The documents that choose."""
        return self._loader("val", self._evaluation_batches("val"))

    def test_dataloader(self) -> DataLoader[Batch]:
        """The documents that judge."""
        return self._loader("test", self._evaluation_batches("test"))

    def _tokenise(self, documents: Sequence[LabelledDocument]) -> Tokens:
        contents = [document.content for document in documents]
        store, texts = self._corpus.store.folder.name, self._corpus.texts(documents)
        return tokenise(self._cache, self._tokenizer, self._max_length, store, contents, texts)

    def _training_batches(self) -> LengthAwareBatches:
        lengths = self._tokens["train"].lengths()
        return LengthAwareBatches(lengths, micro=self._micro, accumulation=self._accumulation, seed=self._seed)

    def _evaluation_batches(self, part: str) -> list[MicroBatch]:
        return in_length_order(self._tokens[part].lengths(), self._micro)

    def _loader(self, part: str, batches: Iterable[MicroBatch]) -> DataLoader[Batch]:
        dataset = TokenDataset(self._tokens[part], self._corpus.label_ids(self._corpus.part(part)), self._pad_id)
        return DataLoader(
            dataset,
            batch_sampler=batches,  # type: ignore[arg-type]  # any iterable serves; the stub wants lists of indices
            collate_fn=_as_it_is,  # __getitems__ has made a batch already
            num_workers=self._num_workers,
            persistent_workers=self._num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )


def _as_it_is(batch: Any) -> Any:
    return batch
