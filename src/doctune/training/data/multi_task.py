"""Texts with several targets -> batches of token ids, or of a frozen encoder's vectors.

Shapes: N texts of a part, B texts of a batch, T tokens, D hidden, K targets, L labels of a target.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import Dataset

from doctune.corpus.target_corpus import TargetCorpus
from doctune.corpus.targets import TargetSpec, is_known, label_counts
from doctune.corpus.tokens import Tokens, tokenise
from doctune.training.data.batched import PARTS, Batch, BatchedDataModule
from doctune.training.data.batches import BatchPlan, MicroBatch
from doctune.training.data.file_content import Reading, padded_windows, shown_windows
from doctune.training.data.views import RandomViews

# What shaped the texts, in the key of their tokens: they stand in the tables as they are.
_SOURCE = "texts"


@dataclass(frozen=True)
class TargetCounts:
    """What is known of one target in one part: texts with each label, (L,), and texts that know the target at all."""

    labels: tuple[int, ...]
    known: int


@dataclass(frozen=True)
class TargetFacts:
    """What the data tells the module and the guards: the targets in the order of the heads, and counts by part."""

    targets: tuple[TargetSpec, ...]
    counts: Mapping[str, tuple[TargetCounts, ...]]
    num_train: int
    steps_per_epoch: int

    @property
    def examples_per_epoch(self) -> int:
        """Texts that an epoch shows."""
        return self.num_train


class PartTargets:
    """What is known of the texts of one part.

    Args:
        truths: what `targets.truth` gives for each target, (N,) or (N, L).
    """

    def __init__(self, truths: Sequence[NDArray[np.int64]]) -> None:
        self._truths = [torch.from_numpy(truth) for truth in truths]

    def batch(self, micro: MicroBatch) -> Batch:
        """targets, a (B,) or (B, L) of each, target_scales (K,), and what `Examples` says of every batch."""
        index = torch.tensor(micro.indices)
        targets: tuple[Tensor, ...] = tuple(truth[index] for truth in self._truths)
        return {
            "targets": targets,
            "target_scales": torch.tensor(micro.target_scales),
            "index": index,
            "scale": micro.scale,
            "ends_step": micro.ends_step,
        }


class TextDataset(Dataset[Batch]):
    """Texts of one part; asked for a `MicroBatch` it gives a padded batch: input_ids and attention_mask (B, T), tokens,
    the number of real ones, and what `PartTargets.batch` has."""

    def __init__(self, tokens: Tokens, targets: PartTargets, pad_id: int, views: RandomViews | None = None) -> None:
        self._tokens = tokens
        self._targets = targets
        self._pad_id = pad_id
        self._views = views

    def __len__(self) -> int:
        return len(self._tokens)

    def __getitems__(self, micro: MicroBatch) -> Batch:
        windows = shown_windows(self._tokens, micro, self._views)
        return padded_windows(windows, self._pad_id) | self._targets.batch(micro)


class VectorDataset(Dataset[Batch]):
    """Texts of one part as a frozen encoder has read them: vectors (B, D) instead of token ids."""

    def __init__(self, vectors: NDArray[np.float32], lengths: NDArray[np.int64], targets: PartTargets) -> None:
        self._vectors = vectors
        self._lengths = lengths
        self._targets = targets

    def __len__(self) -> int:
        return len(self._vectors)

    def __getitems__(self, micro: MicroBatch) -> Batch:
        rows = list(micro.indices)
        vectors = torch.from_numpy(np.asarray(self._vectors[rows]))
        return {"vectors": vectors, "tokens": int(self._lengths[rows].sum())} | self._targets.batch(micro)


class MultiTaskDataModule(BatchedDataModule):
    """Batches of texts with several targets.

    Args:
        corpus: texts with their parts and targets.
        tokenizer: the model's.
        pad_id: the token that fills batches up.
        cache: where tokens are kept.
        max_length: window length in tokens.
        plan: how an effective batch is cut.
        seed: of the order of training texts.
        views: what training sees of a text; None: its first window.
        windows: how many leading windows of training texts there are for it.
        num_workers: processes that prepare batches.
    """

    def __init__(
        self,
        corpus: TargetCorpus,
        tokenizer: Tokenizer,
        *,
        pad_id: int,
        cache: Path,
        max_length: int,
        plan: BatchPlan,
        seed: int,
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
        self._views, self._windows = views, windows
        self._tokens: dict[str, Tokens] = {}
        self._vectors: Mapping[str, NDArray[np.float32]] = {}

    def setup(self, stage: str | None = None) -> None:
        """Tokenise all parts, once."""
        for part in PARTS:
            if part not in self._tokens:
                self._tokens[part] = self._tokenise(part)

    def facts(self) -> TargetFacts:
        """What the module must know before it is made."""
        num_train = len(self._corpus.part("train"))
        counts = {part: self._counts(part) for part in PARTS}
        return TargetFacts(self._corpus.targets, counts, num_train, self._plan.num_steps(num_train))

    def readings(self) -> Mapping[str, Reading]:
        """What a frozen encoder reads, in the order of `predict_dataloader`: the first window of each text."""
        self.setup()
        return {part: Reading(self._tokens[part].folder.name, len(self._tokens[part])) for part in PARTS}

    def read_from(self, vectors: Mapping[str, NDArray[np.float32]]) -> None:
        """Give a frozen encoder's vectors, (N, D) per part, in place of token ids from now on."""
        self._vectors = vectors

    def lengths(self, part: str) -> NDArray[np.int64]:
        """Tokens in the first window of each text, (N,)."""
        return self._tokens[part].lengths()

    def examples(self, part: str) -> TextDataset | VectorDataset:
        """The texts of a part."""
        targets = PartTargets(self._truths(part))
        if part in self._vectors:
            return VectorDataset(self._vectors[part], self._tokens[part].lengths(), targets)
        return TextDataset(self._tokens[part], targets, self._pad_id, self._views)

    def known_targets(self) -> NDArray[np.bool_]:
        """Which targets are known of each training text, (N, K)."""
        return np.stack([is_known(truth) for truth in self._truths("train")], axis=1)

    def _truths(self, part: str) -> list[NDArray[np.int64]]:
        return [self._corpus.truth(target, part) for target in self._corpus.targets]

    def _counts(self, part: str) -> tuple[TargetCounts, ...]:
        texts = self._corpus.part(part)
        return tuple(
            TargetCounts(label_counts(target, texts), sum(target.name in text.targets for text in texts))
            for target in self._corpus.targets
        )

    def _tokenise(self, part: str) -> Tokens:
        contents = [document.content for document in self._corpus.part_documents(part)]
        texts = [text.text for text in self._corpus.part(part)]
        windows = self._windows if part == "train" else 1
        return tokenise(self._cache, self._tokenizer, self._max_length, _SOURCE, contents, texts, windows)
