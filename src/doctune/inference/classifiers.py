"""Logits of texts, cut into windows or chunks as they were for training.

Shapes: N texts, B documents of a group, C their chunks, M chunks of the longest one, T tokens, D hidden, L labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from doctune.inference.artifact import Artifact, load_tokenizer
from doctune.inference.batches import by_length, token_batch
from doctune.inference.nets import Net, target_outputs
from doctune.text.chunks import ChunkedText, chunk
from doctune.text.windows import head_windows

# Tokens of a forward pass at most: what a layer works with then still fits a processor's caches.
_TOKENS_TOGETHER = 1024
# Chunks of several documents that are computed together: the encoder reads those of similar length at once.
_CHUNKS_TOGETHER = 64


class Classifier(Protocol):
    """What gives logits (N, L) for texts, in order."""

    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Logits (N, L)."""


class WindowClassifier:
    """Reads the first window of each text.

    Args:
        artifact: settings of the model folder.
        net: takes token ids and gives `logits`.
        batch_size: windows of a forward pass at most, which takes no more than `_TOKENS_TOGETHER` tokens.
    """

    def __init__(self, artifact: Artifact, net: Net, batch_size: int) -> None:
        self._tokenizer, self._special = load_tokenizer(artifact.folder)
        self._net = net
        self._max_length = artifact.max_length
        self._num_labels = len(artifact.labels)
        self._batch_size = batch_size

    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Logits (N, L), in order."""
        windows = head_windows(self._tokenizer, texts, self._max_length)
        logits = np.empty((len(windows), self._num_labels), np.float32)
        for places in by_length(windows, self._batch_size, _TOKENS_TOGETHER):
            batch = token_batch([windows[place] for place in places], self._special.pad)
            logits[places] = self._net(batch)["logits"]
        return logits


class TargetClassifier:
    """Reads the first window of each text, for several targets at once.

    Args:
        artifact: settings of the model folder; `targets` among them.
        net: takes token ids and gives `nets.target_outputs`.
        batch_size: windows of a forward pass at most, which takes no more than `_TOKENS_TOGETHER` tokens.
    """

    def __init__(self, artifact: Artifact, net: Net, batch_size: int) -> None:
        self._tokenizer, self._special = load_tokenizer(artifact.folder)
        self._net = net
        self._max_length = artifact.max_length
        self._num_labels = [len(target.spec.labels) for target in artifact.targets]
        self._batch_size = batch_size

    def logits(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], ...]:
        """Logits (N, L) of each target, in order."""
        windows = head_windows(self._tokenizer, texts, self._max_length)
        logits = tuple(np.empty((len(windows), count), np.float32) for count in self._num_labels)
        for places in by_length(windows, self._batch_size, _TOKENS_TOGETHER):
            found = self._net(token_batch([windows[place] for place in places], self._special.pad))
            for rows, name in zip(logits, target_outputs(len(logits)), strict=True):
                rows[places] = found[name]
        return logits


class ChunkClassifier:
    """Reads each text whole, in chunks.

    Args:
        artifact: settings of the model folder; `chunks` among them.
        nets: `encoder` takes token ids and gives `vectors`; `pooling` takes `vectors` and gives `logits`.
        batch_size: chunks of a forward pass of the encoder at most, with the same limit.
    """

    def __init__(self, artifact: Artifact, nets: Mapping[str, Net], batch_size: int) -> None:
        assert artifact.chunks is not None, "only a classifier of long documents comes here"
        self._tokenizer, self._special = load_tokenizer(artifact.folder)
        self._nets = nets
        self._settings = artifact.chunks
        self._num_labels = len(artifact.labels)
        self._batch_size = batch_size

    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Logits (N, L), in order."""
        cut = chunk(self._tokenizer, texts, **asdict(self._settings))
        found = [self._read(documents) for documents in _together(cut)]
        return np.concatenate([np.empty((0, self._num_labels), np.float32), *found])

    def _read(self, documents: Sequence[ChunkedText]) -> NDArray[np.float32]:
        """Logits (B, L)."""
        counts = np.array([len(document.chunks) for document in documents])
        is_real = np.arange(counts.max())[None, :] < counts[:, None]  # (B, M)
        chunks = [piece.ids for document in documents for piece in document.chunks]
        vectors = self._encode(chunks)
        padded = np.zeros((*is_real.shape, vectors.shape[1]), np.float32)
        padded[is_real] = vectors  # (B, M, D)
        return self._nets["pooling"]({"vectors": padded, "is_real": is_real})["logits"]

    def _encode(self, chunks: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Vectors (C, D), in order."""
        found: dict[int, NDArray[np.float32]] = {}
        for places in by_length(chunks, self._batch_size, _TOKENS_TOGETHER):
            batch = token_batch([chunks[place] for place in places], self._special.pad)
            found.update(zip(places, self._nets["encoder"](batch)["vectors"], strict=True))
        return np.stack([found[place] for place in range(len(chunks))])


def _together(documents: Iterable[ChunkedText]) -> Iterator[list[ChunkedText]]:
    """Neighbouring documents of a bounded number of chunks, up to the last one's."""
    group: list[ChunkedText] = []
    for document in documents:
        group.append(document)
        if sum(len(each.chunks) for each in group) >= _CHUNKS_TOGETHER:
            yield group
            group = []
    if group:
        yield group
