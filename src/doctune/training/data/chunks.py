"""Long documents with one label each -> batches of their chunks, or of a frozen encoder's vectors of them.

Shapes: N documents of a part, B documents of a batch, C chunks of all of them together, T tokens, D hidden.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch.utils.data import DataLoader, Dataset

from doctune.corpus.chunk_tokens import ChunkTokens, DocumentChunks, cut_documents
from doctune.corpus.file_corpus import Corpus
from doctune.nets.hierarchy import computed_tokens
from doctune.text.chunks import ChunkSettings
from doctune.training.data.batched import PARTS, Batch, BatchedDataModule
from doctune.training.data.batches import BatchPlan, MicroBatch
from doctune.training.data.file_content import Facts, Reading, class_sampling, facts_of, rest_of_batch
from doctune.training.data.sampling import ClassSampling
from doctune.training.data.views import RandomViews

# The name of all documents together, beside the parts.
EVERYTHING = "everything"


class ChunkDataset(Dataset[Batch]):
    """Documents of one part; asked for a `MicroBatch` it gives a batch of their chunks.

    A batch has input_ids and attention_mask (C, T), the chunks of a document together and in order, chunk_counts (B,),
    rows (C,), where the chunks are in the cache, cells, the tokens that the net computes for it, and what
    `TokenDataset` says: labels, index, tokens, scale and ends_step.
    """

    def __init__(
        self,
        chunks: DocumentChunks,
        label_ids: NDArray[np.int64],
        pad_id: int,
        chunks_per_pass: int,
        views: RandomViews | None = None,
    ) -> None:
        self._chunks = chunks
        self._label_ids = torch.tensor(label_ids, dtype=torch.long)
        self._pad_id = pad_id
        self._chunks_per_pass = chunks_per_pass
        self._views = views

    def __len__(self) -> int:
        return len(self._chunks)

    def __getitems__(self, micro: MicroBatch) -> Batch:
        shown = [chunk for place in range(len(micro.indices)) for chunk in self._shown(micro, place)]
        lengths = [len(chunk) for chunk in shown]
        ids = np.full((len(shown), max(lengths)), self._pad_id, dtype=np.int64)
        for row, chunk in enumerate(shown):
            ids[row, : len(chunk)] = chunk
        mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
        return {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(mask.astype(np.int64)),
            "chunk_counts": torch.from_numpy(self._chunks.num_chunks[list(micro.indices)]),
            "rows": torch.tensor([row for index in micro.indices for row in self._chunks[index]]),
            "tokens": sum(lengths),
            "cells": computed_tokens(lengths, self._chunks_per_pass),
            **rest_of_batch(micro, self._label_ids),
        }

    def _shown(self, micro: MicroBatch, place: int) -> list[NDArray[np.int32]]:
        """The chunks of the document at a place of the batch."""
        chunks = [self._chunks.tokens.chunk(row) for row in self._chunks[micro.indices[place]]]
        if self._views is None or micro.seed is None:
            return chunks
        rng = np.random.default_rng((*micro.seed, micro.indices[place], micro.repeats[place]))
        return [self._views.hide(chunk, rng) for chunk in chunks]


class VectorDataset(Dataset[Batch]):
    """Documents of one part as a frozen encoder has read them: vectors (C, D) instead of token ids."""

    def __init__(self, vectors: NDArray[np.float32], chunks: DocumentChunks, label_ids: NDArray[np.int64]) -> None:
        self._vectors = vectors
        self._chunks = chunks
        self._lengths = chunks.lengths()
        self._label_ids = torch.tensor(label_ids, dtype=torch.long)

    def __len__(self) -> int:
        return len(self._chunks)

    def __getitems__(self, micro: MicroBatch) -> Batch:
        indices = list(micro.indices)
        rows = [row for index in indices for row in self._chunks[index]]
        return {
            "vectors": torch.from_numpy(np.asarray(self._vectors[rows])),
            "chunk_counts": torch.from_numpy(self._chunks.num_chunks[indices]),
            "tokens": int(self._lengths[indices].sum()),
            **rest_of_batch(micro, self._label_ids),
        }


class ChunkDataModule(BatchedDataModule):
    """Batches of whole documents, cut into chunks.

    The documents of all parts are cut, and read by a frozen encoder, together, so that the folds of a run share that.

    Args:
        corpus: documents with their parts, and the store of their texts.
        tokenizer: the model's.
        pad_id: the token that fills batches up.
        cache: where chunks are kept.
        settings: how texts are cut.
        chunks_per_pass: chunks that the net computes at once; only for the account of its padding.
        plan: how an effective batch of documents is cut.
        seed: of the order of training documents.
        sampling: method and strength, see `epoch_counts`.
        views: what training sees of a chunk; None: all of it.
        first_chunks: show at most so many of the chunks; None: all.
        num_workers: processes that prepare batches.
    """

    def __init__(
        self,
        corpus: Corpus,
        tokenizer: Tokenizer,
        *,
        pad_id: int,
        cache: Path,
        settings: ChunkSettings,
        chunks_per_pass: int,
        plan: BatchPlan,
        seed: int,
        sampling: tuple[str, float] = ("none", 1.0),
        views: RandomViews | None = None,
        first_chunks: int | None = None,
        num_workers: int = 0,
    ) -> None:
        super().__init__(plan=plan, seed=seed, num_workers=num_workers)
        self._corpus = corpus
        self._tokenizer = tokenizer
        self._pad_id = pad_id
        self._cache = cache
        self._settings = settings
        self._chunks_per_pass = chunks_per_pass
        self._sampling = sampling
        self._views = views
        self._first_chunks = first_chunks
        self._tokens: ChunkTokens | None = None
        self._chunks: dict[str, DocumentChunks] = {}
        self._vectors: Mapping[str, NDArray[np.float32]] = {}

    def setup(self, stage: str | None = None) -> None:
        """Cut all documents, once."""
        if self._chunks:
            return
        documents = self._corpus.documents
        contents, texts = documents.values("content"), self._corpus.texts(documents)
        store = self._corpus.store.folder.name
        self._tokens = cut_documents(self._cache, self._tokenizer, self._settings, store, contents, texts)
        places = {part: documents.places("part", part) for part in PARTS} | {EVERYTHING: np.arange(len(documents))}
        self._chunks = {
            part: DocumentChunks(self._tokens, chosen, self._first_chunks) for part, chosen in places.items()
        }

    def facts(self) -> Facts:
        """What the module must know before it is made."""
        self.setup()
        return facts_of(self._corpus, self._sampling, self._plan)

    def tokens(self) -> ChunkTokens:
        """The chunks of all documents."""
        self.setup()
        assert self._tokens is not None, "setup cuts"
        return self._tokens

    def chunks(self, part: str) -> DocumentChunks:
        """The chunks of a part's documents."""
        self.setup()
        return self._chunks[part]

    def readings(self) -> Mapping[str, Reading]:
        """What a frozen encoder reads: the chunks of all documents."""
        tokens = self.tokens()
        return {EVERYTHING: Reading(tokens.folder.name, len(tokens.lengths))}

    def read_from(self, vectors: Mapping[str, NDArray[np.float32]]) -> None:
        """Give a frozen encoder's vectors of all chunks in place of token ids from now on."""
        self._vectors = vectors

    def lengths(self, part: str) -> NDArray[np.int64]:
        """Tokens of all chunks of each document, (N,)."""
        return self._chunks[part].lengths()

    def examples(self, part: str) -> ChunkDataset | VectorDataset:
        """The documents of a part."""
        documents = self._corpus.documents if part == EVERYTHING else self._corpus.part(part)
        label_ids = self._corpus.label_ids(documents)
        if self._vectors:
            return VectorDataset(self._vectors[EVERYTHING], self._chunks[part], label_ids)
        views = self._views if part == "train" else None
        return ChunkDataset(self._chunks[part], label_ids, self._pad_id, self._chunks_per_pass, views)

    def predict_dataloader(self) -> list[DataLoader[Batch]]:
        """All documents, whatever their part, in the order of `readings`."""
        return [self._evaluation_loader(EVERYTHING)]

    def sampling(self) -> ClassSampling | None:
        """How often an epoch shows the documents of each class."""
        return class_sampling(self._corpus, self._sampling)
