"""The prediction for every judged document, as `predictions/<part>.parquet`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from doctune.corpus.division import LabelledDocument
from doctune.corpus.records import columns
from doctune.decode.classification import probabilities
from doctune.files import written_whole
from doctune.labels import Labels
from doctune.training.callbacks.judged import JudgedPartWriter


class PredictionWriter(JudgedPartWriter[NDArray[np.float32]]):
    """Collects the logits of `trainer.validate` and `trainer.test` and writes them in document order.

    Validation inside `fit` is not written: only the best checkpoint's predictions are.
    """

    def __init__(self, folder: Path, labels: Labels, documents: Mapping[str, Sequence[LabelledDocument]]) -> None:
        super().__init__()
        self._folder = folder
        self._labels = labels
        self._documents = documents

    def collect(self, outputs: Any, batch: Any) -> None:
        """Keep the logits."""
        logits = outputs["logits"].float().cpu().numpy()
        for index, row in zip(batch["index"].tolist(), logits, strict=True):
            self.kept[index] = row

    def write(self, part: str) -> None:
        """Write the documents in their order."""
        documents = self._documents[part]
        logits = np.stack([self.kept[index] for index in range(len(documents))])
        chances = probabilities(logits)
        table = pa.table(
            {
                "id": [name for (name,) in columns(documents, "id")],
                "path": [path for (path,) in columns(documents, "path")],
                "truth": [label for (label,) in columns(documents, "label")],
                "prediction": [self._labels.names[index] for index in chances.argmax(axis=1)],
                "probabilities": pa.array(chances.tolist(), pa.list_(pa.float32())),
            }
        )
        with written_whole(self._folder / f"{part}.parquet") as temporary:
            pq.write_table(table, temporary)
