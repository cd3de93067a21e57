"""The test part of a classifier's fold: documents and their labels.

Shapes: N documents, L labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from doctune.labels import Labels
from doctune.reports.part_scores import score_part
from doctune.reports.records import Predictions, read_predictions
from doctune.reports.suspects import MIN_ACCURACY, Suspect, find_suspects
from doctune.reports.verdict import METRIC_WORDS, judged_metric
from doctune.scoring.classification import class_scores, confusion_matrix

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class LabelPart:
    """The predictions and the names of the L labels; see `JudgedPart`."""

    noun: ClassVar[str] = "document"
    said: ClassVar[str] = "prediction"
    metric_words: ClassVar[Mapping[str, str]] = METRIC_WORDS

    labels: Labels
    predictions: Predictions

    @classmethod
    def read(cls, run: Path) -> Self | None:
        """That of a run folder; None when it has no rows."""
        labels = Labels.load(run / "data/labels.json")
        predictions = read_predictions(run / "predictions/test.parquet", labels)
        return None if predictions is None else cls(labels, predictions)

    @classmethod
    def pool(cls, parts: Sequence[Self]) -> Self:
        """Several as one."""
        tests = [part.predictions for part in parts]
        pooled = Predictions(
            ids=tuple(document for test in tests for document in test.ids),
            paths=tuple(path for test in tests for path in test.paths),
            truth=np.concatenate([test.truth for test in tests]),
            predicted=np.concatenate([test.predicted for test in tests]),
            probabilities=np.concatenate([test.probabilities for test in tests]),
        )
        return cls(parts[0].labels, pooled)

    @classmethod
    def test_metric(cls, metric: str) -> str:
        """The same as the monitored one, or macro F1 without any."""
        return "log_loss" if metric == "val/loss" else judged_metric(metric) or "f1_macro"

    @property
    def ids(self) -> tuple[str, ...]:
        """Those of the documents."""
        return self.predictions.ids

    def __len__(self) -> int:
        return len(self.predictions)

    def named(self, row: int) -> str:
        """The path of the document."""
        return self.predictions.paths[row]

    def difference(self, other: Self) -> str:
        """That the labels are others."""
        if self.labels == other.labels:
            return ""
        return (
            "have different labels (see their data/labels.json), so their predictions cannot be pooled. Make the folds "
            "from one manifest."
        )

    def scores(self) -> dict[str, Any]:
        """Those of the classifier's report."""
        return score_part(self.predictions, self.predictions.probabilities.shape[1]) or {}

    def per_class(self) -> list[dict[str, Any]]:
        """Every label with its scores, in id order."""
        confusion = confusion_matrix(self.predictions.truth, self.predictions.predicted, len(self.labels))
        columns = asdict(class_scores(confusion))
        return [
            {"label": label, **{name: values[place].item() for name, values in columns.items()}}
            for place, label in enumerate(self.labels.names)
        ]

    def suspects(self) -> list[Suspect] | None:
        """The labels that look wrong to models that have not seen the documents; None where those know too little."""
        if np.mean(self.predictions.predicted == self.predictions.truth) < MIN_ACCURACY:
            return None
        return find_suspects(self.predictions, self.labels.names)

    def table(self) -> pa.Table:
        """Each document with its labels by name, and its probabilities."""
        import pyarrow as pa

        names, test = np.asarray(self.labels.names, dtype=object), self.predictions
        return pa.table(
            {
                "id": pa.array(test.ids, pa.string()),
                "path": pa.array(test.paths, pa.string()),
                "truth": pa.array(names[test.truth], pa.string()),
                "prediction": pa.array(names[test.predicted], pa.string()),
                "probabilities": pa.array(list(test.probabilities), pa.list_(pa.float32())),
            }
        )
