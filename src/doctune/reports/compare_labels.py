"""What classifiers said of the test documents that all of them have.

Shapes: N shared documents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from doctune.reports.compare_shared import TASKS, shared_ids
from doctune.reports.records import CLASSIFICATION, RunRecords
from doctune.scoring import intervals, paired
from doctune.scoring.classification import STATISTICS, confusion_matrix


@dataclass(frozen=True)
class SharedLabels:
    """Truth `(N,)` and each run's predictions `(N,)`, in labels of all runs; see `Shared`."""

    num_labels: int
    truth: NDArray[np.int64]
    predicted: dict[str, NDArray[np.int64]]

    @property
    def runs(self) -> tuple[str, ...]:
        """The names of the runs."""
        return tuple(self.predicted)

    def __len__(self) -> int:
        return len(self.truth)

    def score(self, run: str, metric: str) -> float:
        """A statistic of the run's confusion matrix."""
        return float(STATISTICS[metric](confusion_matrix(self.truth, self.predicted[run], self.num_labels)))

    def mcnemar(self, run: str, other: str) -> paired.McNemar:
        """How many documents only one of two runs had right."""
        return paired.mcnemar(self.truth, self.predicted[run], self.predicted[other])

    def difference(self, run: str, other: str, metric: str) -> intervals.Difference:
        """By how much a run scores higher than another one."""
        return intervals.paired_difference(
            self.truth, self.predicted[run], self.predicted[other], self.num_labels, STATISTICS[metric]
        )

    def is_same(self, run: str, other: str) -> bool:
        """Whether two runs label all documents alike."""
        return bool(np.array_equal(self.predicted[run], self.predicted[other]))

    def notes(self) -> list[str]:
        """Nothing: copies of a document are in one part."""
        return []


def share_labels(records: Mapping[str, RunRecords]) -> SharedLabels | str:
    """What all runs have predicted, or a sentence that says why that cannot be compared; name of a run -> its files."""
    rows = {name: _rows(each) for name, each in records.items()}
    truths = {name: {document: truth for document, (truth, _) in of_run.items()} for name, of_run in rows.items()}
    ids = shared_ids(truths, TASKS[CLASSIFICATION])
    if isinstance(ids, str):
        return ids
    names = sorted({label for each in records.values() for label in each.labels.names})
    id_of = {name: place for place, name in enumerate(names)}

    def column(of_run: dict[str, tuple[str, str]], side: int) -> NDArray[np.int64]:
        return np.asarray([id_of[of_run[document][side]] for document in ids], dtype=np.int64)

    predicted = {name: column(of_run, 1) for name, of_run in rows.items()}
    return SharedLabels(len(id_of), column(next(iter(rows.values())), 0), predicted)


def _rows(records: RunRecords) -> dict[str, tuple[str, str]]:
    """Document id -> true and predicted label."""
    test, names = records.test, records.labels.names
    if test is None:
        return {}
    pairs = zip(test.truth.tolist(), test.predicted.tolist(), strict=True)
    return {document: (names[truth], names[told]) for document, (truth, told) in zip(test.ids, pairs, strict=True)}
