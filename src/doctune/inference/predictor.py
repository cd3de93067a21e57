"""Labels for texts, from an exported `model/` folder alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doctune.decode.classification import predictions
from doctune.documents import Prediction
from doctune.errors import ArtifactError
from doctune.inference.artifact import Artifact, load_artifact, load_tokenizer
from doctune.inference.long_documents import LongDocumentNet
from doctune.text.windows import head_windows

TASKS = ("classification", "hierarchical_classification")
# Texts that are sorted by length together: bounds memory and keeps padding low.
_TEXTS_PER_SORT = 512


class Predictor:
    """A classifier ready to use.

    Args:
        artifact: settings of the model folder.
        batch_size: texts per forward pass.

    Raises:
        ArtifactError: the folder's weights or tokenizer cannot be loaded.
    """

    def __init__(self, artifact: Artifact, batch_size: int = 16) -> None:
        if artifact.task not in TASKS:
            raise ArtifactError(
                f"{artifact.folder} was trained for {artifact.task}; `doctune predict` needs a classifier."
            )
        self.artifact = artifact
        self._batch_size = batch_size
        self._tokenizer = load_tokenizer(artifact.folder)
        self._long = LongDocumentNet(artifact, self._tokenizer) if artifact.chunks else None
        self._net: Any = None if artifact.chunks else _net(artifact.folder)

    def predict(self, texts: Iterable[str]) -> Iterator[Prediction]:
        """One prediction per text, in order; reads ahead a bounded number of texts."""
        iterator = iter(texts)
        while chunk := list(islice(iterator, _TEXTS_PER_SORT)):
            yield from predictions(self._logits(chunk), self.artifact.labels)

    def _logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if self._long is not None:
            return self._long.logits(texts)
        windows = head_windows(self._tokenizer, texts, self.artifact.max_length)
        order = sorted(range(len(windows)), key=lambda index: len(windows[index]))
        logits = np.empty((len(windows), len(self.artifact.labels)), dtype=np.float32)
        for start in range(0, len(order), self._batch_size):
            batch = order[start : start + self._batch_size]
            logits[batch] = self._forward([windows[index] for index in batch])
        return logits

    def _forward(self, windows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        import torch

        longest = max(len(window) for window in windows)
        pad = self._net.config.pad_token_id or 0
        ids = torch.tensor([[*window, *[pad] * (longest - len(window))] for window in windows])
        mask = torch.tensor([[1] * len(window) + [0] * (longest - len(window)) for window in windows])
        with torch.inference_mode():
            logits: NDArray[np.float32] = self._net(input_ids=ids, attention_mask=mask).logits.float().numpy()
        return logits


def load(run: str | Path, batch_size: int = 16) -> Predictor:
    """The predictor of a run folder or of its `model/` folder.

    Raises:
        ArtifactError: there is no usable model.
    """
    return Predictor(load_artifact(Path(run)), batch_size)


def _net(folder: Path):  # type: ignore[no-untyped-def]  # noqa: ANN202  (a torch type would import torch)
    try:
        from transformers import AutoModelForSequenceClassification
        from transformers.utils import logging as transformers_logging
    except ModuleNotFoundError as error:
        raise ArtifactError(f"Prediction needs {error.name}: pip install 'doctune[train]'.") from error
    transformers_logging.disable_progress_bar()
    try:
        return AutoModelForSequenceClassification.from_pretrained(folder, dtype="float32", local_files_only=True).eval()
    except (OSError, ValueError) as error:
        raise ArtifactError(f"The model in {folder} cannot be loaded: {str(error).splitlines()[0]}") from error
