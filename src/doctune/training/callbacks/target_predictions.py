"""What is predicted of every target of every judged text, as `predictions/<part>.parquet`.

Shapes: N texts of a part, L labels of a target.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from doctune.corpus.division import LabelledDocument
from doctune.corpus.targets import LabelledText, TargetSpec, is_known, truth
from doctune.decode.multi_task import target_predictions, target_probabilities
from doctune.files import written_whole
from doctune.scoring.multilabel import tune_thresholds
from doctune.training.callbacks.judged import JudgedPartWriter

ThresholdsByTarget = dict[str, list[float]]


class TargetPredictionWriter(JudgedPartWriter[tuple[NDArray[np.float32], ...]]):
    """Collects the logits of `trainer.validate` and `trainer.test` and writes them in the order of the texts.

    Beside id, path and text there are for each target the columns `<target>/truth` and `<target>/prediction`, lists of
    label names of which the truth is null where it is missing, and `<target>/probabilities`. The thresholds of
    multi-label targets are chosen on the validation texts, and the test texts are judged with them.

    Args:
        folder: where.
        targets: in the order of the heads.
        texts: of the parts "val" and "test".
        documents: the same as documents.
        remember: is given the thresholds of the targets that have them, by name.
    """

    def __init__(
        self,
        folder: Path,
        targets: Sequence[TargetSpec],
        texts: Mapping[str, Sequence[LabelledText]],
        documents: Mapping[str, Sequence[LabelledDocument]],
        remember: Callable[[ThresholdsByTarget], None],
    ) -> None:
        super().__init__()
        self._folder = folder
        self._targets = targets
        self._texts = texts
        self._documents = documents
        self._remember = remember
        self._thresholds: ThresholdsByTarget = {}

    def collect(self, outputs: Any, batch: Any) -> None:
        """Keep the logits."""
        logits = [each.float().cpu().numpy() for each in outputs["logits"]]
        for row, index in enumerate(batch["index"].tolist()):
            self.kept[index] = tuple(each[row] for each in logits)

    def write(self, part: str) -> None:
        """Write the texts in their order; with the validation part the thresholds are chosen."""
        rows = [self.kept[index] for index in range(len(self._texts[part]))]
        logits = [np.stack(each) for each in zip(*rows, strict=True)]
        if part == "val":
            self._thresholds = chosen_thresholds(self._targets, self._texts[part], logits)
            self._remember(self._thresholds)
        columns: dict[str, Any] = {
            "id": [document.id for document in self._documents[part]],
            "path": [document.path for document in self._documents[part]],
            "text": [text.text for text in self._texts[part]],
        }
        for target, scores in zip(self._targets, logits, strict=True):
            columns |= _columns(target, self._texts[part], scores, self._thresholds.get(target.name))
        with written_whole(self._folder / f"{part}.parquet") as temporary:
            pq.write_table(pa.table(columns), temporary)


def chosen_thresholds(
    targets: Sequence[TargetSpec], texts: Sequence[LabelledText], logits: Sequence[NDArray[np.float32]]
) -> ThresholdsByTarget:
    """The thresholds (L,) of the multi-label targets that any of the texts knows, see `tune_thresholds`.

    Args:
        logits: (N, L) for each target.
    """
    chosen = {}
    for target, scores in zip(targets, logits, strict=True):
        wanted = truth(target, texts)
        known = is_known(wanted)
        if target.is_multi and known.any():
            found = tune_thresholds(wanted[known] == 1, target_probabilities(target, scores[known]))
            chosen[target.name] = found.values.tolist()
    return chosen


def _columns(
    target: TargetSpec,
    texts: Sequence[LabelledText],
    logits: NDArray[np.float32],
    thresholds: Sequence[float] | None,
) -> dict[str, pa.Array]:
    found = target_predictions(target, logits, thresholds)
    known = [text.targets.get(target.name) for text in texts]
    names = pa.list_(pa.string())
    return {
        f"{target.name}/truth": pa.array([None if labels is None else list(labels) for labels in known], names),
        f"{target.name}/prediction": pa.array([list(each.labels) for each in found], names),
        f"{target.name}/probabilities": pa.array([each.probabilities for each in found], pa.list_(pa.float32())),
    }
