"""What readers said to the test questions that all of them have.

Shapes: N shared questions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from doctune.reports.compare_shared import TASKS, shared_ids
from doctune.reports.numbers import counted
from doctune.reports.reader import FEW_ARTICLES
from doctune.reports.reader_records import GivenAnswer, ReaderRecords
from doctune.reports.records import QUESTION_ANSWERING
from doctune.scoring.intervals import Difference, bootstrap_mean_interval
from doctune.scoring.paired import McNemar, mcnemar


@dataclass(frozen=True)
class SharedAnswers:
    """Each run's answers to the same N questions, in one order; see `Shared`."""

    given: dict[str, list[GivenAnswer]]

    @property
    def runs(self) -> tuple[str, ...]:
        """The names of the runs."""
        return tuple(self.given)

    def __len__(self) -> int:
        return len(self.given[self.runs[0]])

    def score(self, run: str, metric: str) -> float:
        """The mean of a score over the questions."""
        return math.fsum(self._values(run, metric)) / len(self)

    def mcnemar(self, run: str, other: str) -> McNemar:
        """How many questions only one of two runs answered exactly."""
        one, another = (self._values(name, "exact_match").astype(np.int64) for name in (run, other))
        return mcnemar(np.ones_like(one), one, another)

    def difference(self, run: str, other: str, metric: str) -> Difference:
        """By how much a run scores higher than another one: the mean of the differences, which is resampled."""
        differences = self._values(run, metric) - self._values(other, metric)
        low, high = bootstrap_mean_interval(differences)
        return Difference(math.fsum(differences) / len(differences), low, high)

    def is_same(self, run: str, other: str) -> bool:
        """Whether two runs give the same answer to every question."""
        pairs = zip(self.given[run], self.given[other], strict=True)
        return all(one.judged.prediction == another.judged.prediction for one, another in pairs)

    def notes(self) -> list[str]:
        """That questions of one article go together, where there are few articles."""
        articles = len({answer.article for answer in self.given[self.runs[0]]})
        if articles >= FEW_ARTICLES:
            return []
        return [
            f"The {len(self):,} shared questions are about {counted(articles, 'article')}. Questions of one article "
            "are not independent of each other, so the intervals are too narrow and p is too small."
        ]

    def _values(self, run: str, metric: str) -> NDArray[np.float64]:
        """One score of each question `(N,)`."""
        return np.asarray([getattr(answer.judged, metric) for answer in self.given[run]], dtype=np.float64)


def share_answers(records: Mapping[str, ReaderRecords]) -> SharedAnswers | str:
    """What all runs answered, or a sentence that says why that cannot be compared; name of a run -> its files."""
    (first, one), *others = records.items()
    for name, other in others:
        if other.version != one.version:
            return (
                f"No significance test: {first} is judged by the rules of SQuAD {one.version} and {name} by those of "
                f"{other.version}."
            )
    rows = {name: _rows(each) for name, each in records.items()}
    truths = {
        run: {name: sorted(set(answer.judged.references)) for name, answer in of_run.items()}
        for run, of_run in rows.items()
    }
    ids = shared_ids(truths, TASKS[QUESTION_ANSWERING])
    if isinstance(ids, str):
        return ids
    return SharedAnswers({run: [of_run[name] for name in ids] for run, of_run in rows.items()})


def _rows(records: ReaderRecords) -> dict[str, GivenAnswer]:
    """Question id -> what was answered."""
    return {} if records.test is None else {answer.judged.id: answer for answer in records.test.given}
