"""Files with one label each -> batches of token ids, or of a frozen encoder's outputs.

Shapes: N documents of a part, B documents of a batch, T tokens, F features, D hidden, L labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch.utils.data import Dataset

from doctune.corpus.file_corpus import Corpus
from doctune.corpus.tokens import Tokens, tokenise
from doctune.labels import Labels
from doctune.training.data.batched import PARTS, Batch, BatchedDataModule
from doctune.training.data.batches import BatchPlan, MicroBatch
from doctune.training.data.sampling import ClassSampling, epoch_counts
from doctune.training.data.views import RandomViews


@dataclass(frozen=True)
class Facts:
    """What the data tells the module and the guards: labels in id order, documents per label, steps per epoch.

    `shown_counts` are the training documents that an epoch shows of each label, which sampling may change.
    """

    labels: Labels
    train_counts: tuple[int, ...]
    val_counts: tuple[int, ...]
    shown_counts: tuple[int, ...]
    steps_per_epoch: int

    @property
    def examples_per_epoch(self) -> int:
        """Documents that an epoch shows."""
        return sum(self.shown_counts)


class TokenDataset(Dataset[Batch]):
    """Documents of one part; asked for a `MicroBatch` it gives a padded batch.

    A batch has input_ids and attention_mask (B, T), labels (B,), index (B,), the document's place in the part, tokens,
    the number of real ones, and scale and ends_step, see `MicroBatch`.
    """

    def __init__(
        self, tokens: Tokens, label_ids: NDArray[np.int64], pad_id: int, views: RandomViews | None = None
    ) -> None:
        self._tokens = tokens
        self._label_ids = torch.tensor(label_ids, dtype=torch.long)
        self._pad_id = pad_id
        self._views = views

    def __len__(self) -> int:
        return len(self._tokens)

    def __getitems__(self, micro: MicroBatch) -> Batch:
        windows = shown_windows(self._tokens, micro, self._views)
        return padded_windows(windows, self._pad_id) | rest_of_batch(micro, self._label_ids)


class FeatureDataset(Dataset[Batch]):
    """Documents of one part as a frozen encoder has read them: features (B, F, D) instead of token ids."""

    def __init__(self, features: NDArray[np.float32], lengths: NDArray[np.int64], label_ids: NDArray[np.int64]) -> None:
        self._features = features
        self._lengths = lengths
        self._label_ids = torch.tensor(label_ids, dtype=torch.long)

    def __len__(self) -> int:
        return len(self._features)

    def __getitems__(self, micro: MicroBatch) -> Batch:
        rows = list(micro.indices)
        return {
            "features": torch.from_numpy(np.asarray(self._features[rows])),
            "tokens": int(self._lengths[rows].sum()),
            **rest_of_batch(micro, self._label_ids),
        }


def shown_windows(tokens: Tokens, micro: MicroBatch, views: RandomViews | None) -> list[NDArray[np.int32]]:
    """The token ids of each document of a micro-batch, as training or evaluation sees it."""
    if views is None or micro.seed is None:
        return [tokens[index] for index in micro.indices]
    shown = zip(micro.indices, micro.repeats, strict=True)
    return [views.window(tokens, index, micro.seed, repeat) for index, repeat in shown]


def padded_windows(windows: Sequence[NDArray[np.int32]], pad_id: int) -> Batch:
    """input_ids and attention_mask (B, T) of B windows, padded at the end to the longest, and tokens, the real ones."""
    longest = max(len(window) for window in windows)
    ids = np.full((len(windows), longest), pad_id, dtype=np.int64)
    mask = np.zeros((len(windows), longest), dtype=np.int64)
    for row, window in enumerate(windows):
        ids[row, : len(window)] = window
        mask[row, : len(window)] = 1
    return {
        "input_ids": torch.from_numpy(ids),
        "attention_mask": torch.from_numpy(mask),
        "tokens": int(mask.sum()),
    }


def rest_of_batch(micro: MicroBatch, label_ids: torch.Tensor) -> Batch:
    """What every batch of labelled documents has, see `TokenDataset`; label_ids (N,) are those of the part."""
    index = torch.tensor(micro.indices)
    return {"labels": label_ids[index], "index": index, "scale": micro.scale, "ends_step": micro.ends_step}


@dataclass(frozen=True)
class Reading:
    """What one loader of `predict_dataloader` gives a frozen encoder to read: the name of its tokens in the cache, and
    the number of rows that are stored of it."""

    tokens: str
    num_rows: int


def label_counts(corpus: Corpus, part: str) -> tuple[int, ...]:
    """Documents of a part per label, (L,)."""
    ids = corpus.label_ids(corpus.part(part))
    return tuple(np.bincount(ids, minlength=len(corpus.labels)).tolist())


def facts_of(corpus: Corpus, sampling: tuple[str, float], plan: BatchPlan) -> Facts:
    """What a module must know before it is made."""
    train, val = (label_counts(corpus, part) for part in ("train", "val"))
    shown = epoch_counts(train, *sampling)
    return Facts(corpus.labels, train, val, shown, plan.num_steps(sum(shown)))


def class_sampling(corpus: Corpus, sampling: tuple[str, float]) -> ClassSampling | None:
    """How often an epoch shows the documents of each class; None: each document once."""
    if sampling[0] == "none":
        return None
    return ClassSampling(corpus.label_ids(corpus.part("train")), epoch_counts(label_counts(corpus, "train"), *sampling))


class FileContentDataModule(BatchedDataModule):
    """Batches of a prepared corpus.

    Args:
        corpus: documents with their parts, and the store of their texts.
        tokenizer: the model's.
        pad_id: the token that fills batches up.
        cache: where tokens are kept.
        max_length: window length in tokens.
        plan: how an effective batch is cut.
        seed: of the order of training documents.
        sampling: method and strength, see `epoch_counts`.
        views: what training sees of a document; None: its first window.
        windows: how many leading windows of training documents there are for it.
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
        plan: BatchPlan,
        seed: int,
        sampling: tuple[str, float] = ("none", 1.0),
        views: RandomViews | None = None,
        windows: int = 1,
        num_workers: int = 0,
    ) -> None:
        super().__init__(plan=plan, seed=seed, num_workers=num_workers)
        self._corpus = corpus
        self._tokenizer = tokenizer
        self._pad_id = pad_id
        self._cache = cache
        self._max_length = max_length
        self._sampling = sampling
        self._views, self._windows = views, windows
        self._tokens: dict[str, Tokens] = {}
        self._features: Mapping[str, NDArray[np.float32]] = {}

    def setup(self, stage: str | None = None) -> None:
        """Tokenise all parts, once."""
        for part in PARTS:
            if part not in self._tokens:
                self._tokens[part] = self._tokenise(part)

    def facts(self) -> Facts:
        """What the module must know before it is made."""
        self.setup()
        return facts_of(self._corpus, self._sampling, self._plan)

    def tokens(self, part: str) -> Tokens:
        """The token ids of a part."""
        self.setup()
        return self._tokens[part]

    def readings(self) -> Mapping[str, Reading]:
        """What a frozen encoder reads, in the order of `predict_dataloader`: the first window of each document."""
        self.setup()
        return {part: Reading(self._tokens[part].folder.name, len(self._tokens[part])) for part in PARTS}

    def read_from(self, features: Mapping[str, NDArray[np.float32]]) -> None:
        """Give a frozen encoder's outputs, (N, F, D) per part, in place of token ids from now on."""
        self._features = features

    def lengths(self, part: str) -> NDArray[np.int64]:
        """Tokens in the first window of each document, (N,)."""
        return self._tokens[part].lengths()

    def examples(self, part: str) -> TokenDataset | FeatureDataset:
        """The documents of a part."""
        label_ids = self._corpus.label_ids(self._corpus.part(part))
        if part in self._features:
            return FeatureDataset(self._features[part], self._tokens[part].lengths(), label_ids)
        return TokenDataset(self._tokens[part], label_ids, self._pad_id, self._views)

    def sampling(self) -> ClassSampling | None:
        """How often an epoch shows the documents of each class."""
        return class_sampling(self._corpus, self._sampling)

    def _tokenise(self, part: str) -> Tokens:
        documents = self._corpus.part(part)
        store, contents = self._corpus.store.folder.name, documents.values("content")
        texts = self._corpus.texts(documents)
        windows = self._windows if part == "train" else 1
        return tokenise(self._cache, self._tokenizer, self._max_length, store, contents, texts, windows)
