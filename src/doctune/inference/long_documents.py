"""Logits of whole documents, cut into chunks as they were for training.

Shapes: N texts, C chunks of some of them, T tokens, L labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from doctune.errors import ArtifactError
from doctune.inference.artifact import Artifact
from doctune.text.chunks import ChunkedText, chunk

# Chunks of several documents that are computed together: the encoder reads those of similar length at once.
_CHUNKS_TOGETHER = 64


class LongDocumentNet:
    """A hierarchical classifier, ready to use.

    Args:
        artifact: settings of the model folder; `chunks` among them.
        tokenizer: the model's.

    Raises:
        ArtifactError: the folder's weights cannot be loaded.
    """

    def __init__(self, artifact: Artifact, tokenizer: Tokenizer) -> None:
        try:
            from doctune.nets.hierarchy import HierarchicalClassifier
        except ModuleNotFoundError as error:
            raise ArtifactError(f"Prediction needs {error.name}: pip install 'doctune[train]'.") from error
        assert artifact.chunks is not None, "only a classifier of long documents comes here"
        self._settings = artifact.chunks
        self._tokenizer = tokenizer
        self._net = HierarchicalClassifier.from_folder(artifact.folder)

    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Logits (N, L), in order."""
        cut = chunk(self._tokenizer, texts, **asdict(self._settings))
        found = [self._forward(documents) for documents in _together(cut)]
        return np.concatenate([np.empty((0, len(self._net.labels)), np.float32), *found])

    def _forward(self, documents: Sequence[ChunkedText]) -> NDArray[np.float32]:
        import torch

        chunks = [piece.ids for document in documents for piece in document.chunks]
        longest = max(len(ids) for ids in chunks)
        pad = self._net.config.pad_token_id or 0
        ids = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in chunks])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in chunks])
        counts = torch.tensor([len(document.chunks) for document in documents])
        with torch.inference_mode():
            logits: NDArray[np.float32] = self._net(ids, mask, counts).logits.float().numpy()
        return logits


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
