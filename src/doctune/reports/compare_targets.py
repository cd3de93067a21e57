"""What runs with several targets said of the test texts that all of them have.

Shapes: N shared texts, L labels of a target in any of the runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doctune.corpus.targets import TargetSpec
from doctune.reports.compare_shared import TASKS, listed, shared_ids
from doctune.reports.records import MULTI_TASK
from doctune.reports.target_records import MultiTaskRecords, Sets, TargetPart
from doctune.reports.target_scores import all_ids
from doctune.scoring.intervals import Difference
from doctune.scoring.paired import McNemar, sign_test
from doctune.scoring.targets import JudgedTarget, mean_f1_macro, paired_difference

Truth = tuple[tuple[str, ...] | None, ...]  # the labels of a text by target, None where it does not know one


@dataclass(frozen=True)
class SharedTargets:
    """Each run's labels of the same N texts, in one order, for the targets that all runs have; see `Shared`.

    Attributes:
        targets: their names.
        said: run -> what it said of each of them; the truth is the same.
        left_out: the targets that not all runs have.
        tested: run -> how many of its test texts know one of the targets.
    """

    targets: tuple[str, ...]
    said: dict[str, tuple[JudgedTarget, ...]]
    left_out: tuple[str, ...]
    tested: dict[str, int]

    @property
    def runs(self) -> tuple[str, ...]:
        """The names of the runs."""
        return tuple(self.said)

    def __len__(self) -> int:
        return len(self.said[self.runs[0]][0].known)

    def score(self, run: str, metric: str) -> float:
        """The mean macro F1 of the targets, the one score that they have in common."""
        return mean_f1_macro(self.said[run])

    def mcnemar(self, run: str, other: str) -> McNemar:
        """How many texts one of two runs labels better, by `_quality`: hardly any text has all of its labels right."""
        return sign_test(self._quality(run), self._quality(other))

    def difference(self, run: str, other: str, metric: str) -> Difference:
        """By how much the mean macro F1 of a run is higher than that of another one."""
        return paired_difference(self.said[run], self.said[other])

    def differences(self, run: str, other: str) -> dict[str, dict[str, float]]:
        """The same of the macro F1 of each target, as plain values."""
        pairs = zip(self.targets, self.said[run], self.said[other], strict=True)
        found = {name: paired_difference([one], [another]) for name, one, another in pairs}
        return {name: {"difference": each.value, "low": each.low, "high": each.high} for name, each in found.items()}

    def is_same(self, run: str, other: str) -> bool:
        """Whether two runs say the same labels of all texts."""
        pairs = zip(self.said[run], self.said[other], strict=True)
        return all(np.array_equal(one.said, another.said) for one, another in pairs)

    def notes(self) -> list[str]:
        """What the scores are of."""
        which = f"the mean over {listed(self.targets)}" if len(self.targets) > 1 else f"that of {self.targets[0]}"
        notes = [f"Macro F1, where no target is named, is {which}."]
        if len(self.targets) > 1:
            notes.append("The intervals of single targets are not corrected for there being several.")
        if self.left_out:
            notes.append(f"Not tested, since not all runs have it: {listed(self.left_out)}.")
        return notes

    def _quality(self, run: str) -> NDArray[np.float64]:
        """The F1 of the labels of each text, the sum over the targets that it knows, (N,)."""
        return np.sum([np.where(each.known, _f1_of_texts(each), 0.0) for each in self.said[run]], axis=0)


def _f1_of_texts(target: JudgedTarget) -> NDArray[np.float64]:
    """2 |true and said| / (|true| + |said|) of each text, (N,): 0 or 1 with one label; 1 where none is true or said."""
    hits = (target.truth & target.said).sum(axis=1)
    both = target.truth.sum(axis=1) + target.said.sum(axis=1)
    return np.divide(2 * hits, both, out=np.ones(len(both)), where=both > 0)


def share_targets(records: Mapping[str, MultiTaskRecords]) -> SharedTargets | str:
    """What all runs have labelled, or a sentence that says why that cannot be compared; name of a run -> its files."""
    kinds = [{target.spec.name: target.spec.kind for target in each.targets} for each in records.values()]
    names = [name for name, kind in kinds[0].items() if all(each.get(name) == kind for each in kinds)]
    left_out = sorted({name for each in kinds for name in each} - set(names))
    if not names:
        return f"No significance test: {listed([*records])} have no target of one kind in common."
    parts = {run: _tests(each, names) for run, each in records.items()}
    known = [name for name in names if all(name in of_run for of_run in parts.values())]
    truths = {run: _truths(of_run, known) for run, of_run in parts.items()}
    ids = shared_ids(truths, TASKS[MULTI_TASK])
    if isinstance(ids, str):
        return ids
    of_first = next(iter(parts.values()))
    judged = [name for name in known if not set(ids).isdisjoint(of_first[name][1].ids)]
    said = {run: tuple(_align(parts, run, name, ids) for name in judged) for run in records}
    unjudged = (*left_out, *(name for name in names if name not in judged))
    return SharedTargets(tuple(judged), said, unjudged, {run: len(truth) for run, truth in truths.items()})


Tests = dict[str, tuple[TargetSpec, TargetPart]]  # of one run: target -> its test part


def _tests(records: MultiTaskRecords, names: Sequence[str]) -> Tests:
    """Of those targets that a test text knows."""
    found = {target.spec.name: (target.spec, target.test) for target in records.targets if target.test is not None}
    return {name: found[name] for name in names if name in found}


def _truths(tests: Tests, names: Sequence[str]) -> dict[str, Truth]:
    """Text id -> its true labels."""
    columns = []
    for name in names:
        spec, part = tests[name]
        columns.append({each: _names(spec, row) for each, row in zip(part.ids, part.truth, strict=True)})
    return {each: tuple(column.get(each) for column in columns) for each in all_ids([tests[name][1] for name in names])}


def _names(spec: TargetSpec, applies: NDArray[np.bool_]) -> tuple[str, ...]:
    """Sorted, since the order of the labels is a run's own."""
    return tuple(sorted(spec.labels.names[label] for label in np.flatnonzero(applies)))


def _align(parts: Mapping[str, Tests], run: str, name: str, ids: Sequence[str]) -> JudgedTarget:
    """What a run said of a target in the texts of `ids`, in the labels of all runs."""
    labels = sorted({label for of_run in parts.values() for label in of_run[name][0].labels.names})
    spec, part = parts[run][name]
    row_of = {text: row for row, text in enumerate(part.ids)}
    known = np.asarray([text in row_of for text in ids])
    rows = [row_of[text] for text in ids if text in row_of]
    columns = np.asarray([labels.index(label) for label in spec.labels.names])

    def spread(sets: Sets) -> Sets:
        found = np.zeros((len(ids), len(labels)), dtype=bool)
        found[np.ix_(np.flatnonzero(known), columns)] = sets[rows]
        return found

    return JudgedTarget(spread(part.truth), spread(part.predicted), known, spec.is_multi)


def plain_targets(report: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The scores of each target in `report.json`, by part."""
    return {
        name: {part: found.get(part) for part in ("test", "val")}
        for name, found in (report.get("targets") or {}).items()
    }
