"""The files of a run that learnt several targets, read and checked.

Shapes: N texts of a part that know a target, L labels of the target.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doctune.corpus.targets import KINDS, TargetSpec
from doctune.errors import ArtifactError
from doctune.labels import Labels
from doctune.reports.records import RunFiles, existing, read_files, read_json, read_table

Sets = NDArray[np.bool_]  # (N, L), whether each label applies


@dataclass(frozen=True)
class TargetPart:
    """What the model said of one target in one part, of the texts that know the target.

    A text with one label has one label that applies. `paths` say where each text stands, such as "train.tsv:12".
    """

    ids: tuple[str, ...]
    paths: tuple[str, ...]
    texts: tuple[str, ...]
    truth: Sets
    predicted: Sets
    probabilities: NDArray[np.float32]  # (N, L)

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class TargetRecords:
    """One target: its parts, None where no text knows it, and what each baseline said of the test part, (N, L)."""

    spec: TargetSpec
    val: TargetPart | None
    test: TargetPart | None
    baselines: dict[str, dict[str, Any]]
    baseline_sets: dict[str, Sets]
    train_counts: dict[str, int]

    def part(self, name: str) -> TargetPart | None:
        """Of "val" or "test"."""
        return {"val": self.val, "test": self.test}[name]


@dataclass(frozen=True)
class MultiTaskRecords(RunFiles):
    """A run's files, and its targets in the order of the heads."""

    targets: tuple[TargetRecords, ...]


def read_targets_run(run: Path) -> MultiTaskRecords:
    """Read the files of a finished run.

    Raises:
        ArtifactError: a file is missing, damaged, or does not belong to the others; the message names it.
    """
    files = read_files(run)
    targets = tuple(_target(run, spec, files) for spec in read_specs(run, files.audit))
    return MultiTaskRecords(**vars(files), targets=targets)


def read_specs(run: Path, audit: Mapping[str, Any]) -> tuple[TargetSpec, ...]:
    """The targets of a run in the order of the heads; `audit` is its `data/audit.json`.

    Raises:
        ArtifactError: `data/labels.json` is missing or damaged, or the audit does not know a target.
    """
    labels: dict[str, list[str]] = read_json(run, "data/labels.json", dict)
    described = audit.get("targets") or {}
    return tuple(TargetSpec(name, _kind(run, name, described), Labels(tuple(names))) for name, names in labels.items())


def _kind(run: Path, name: str, described: Mapping[str, Any]) -> str:
    kind = (described.get(name) or {}).get("kind")
    if kind not in KINDS:
        raise ArtifactError(f"{run / 'data/audit.json'} does not say of which kind the target {name!r} is.")
    return str(kind)


def _target(run: Path, spec: TargetSpec, files: RunFiles) -> TargetRecords:
    test = read_part(existing(run, "predictions/test.parquet"), spec)
    baselines = files.baselines.get(spec.name) or {}
    return TargetRecords(
        spec=spec,
        val=read_part(existing(run, "predictions/val.parquet"), spec),
        test=test,
        baselines=baselines,
        baseline_sets=_baseline_sets(run / "predictions/baselines_test.parquet", spec, [*baselines], test),
        train_counts=files.audit["targets"][spec.name]["label_counts"]["train"],
    )


def read_part(path: Path, spec: TargetSpec) -> TargetPart | None:
    """One target of `val.parquet` or `test.parquet`; None where no text knows it.

    Raises:
        ArtifactError: the file cannot be read, lacks a column, or holds a label that the target does not have.
    """
    columns = {name: f"{spec.name}/{name}" for name in ("truth", "prediction", "probabilities")}
    table = read_table(path, ["id", "path", "text", *columns.values()])
    known = table.filter(table[columns["truth"]].is_valid())
    if not len(known):
        return None
    return TargetPart(
        ids=tuple(known["id"].to_pylist()),
        paths=tuple(known["path"].to_pylist()),
        texts=tuple(known["text"].to_pylist()),
        truth=_sets(path, columns["truth"], known[columns["truth"]].to_pylist(), spec.labels),
        predicted=_sets(path, columns["prediction"], known[columns["prediction"]].to_pylist(), spec.labels),
        probabilities=np.asarray(known[columns["probabilities"]].to_pylist(), dtype=np.float32),
    )


def _baseline_sets(path: Path, spec: TargetSpec, names: list[str], test: TargetPart | None) -> dict[str, Sets]:
    """What the baselines said of the texts of `test`, in its order."""
    if test is None or not path.exists() or not names:
        return {}
    columns = {name: f"{spec.name}/{name}" for name in names}
    table = read_table(path, ["id", *columns.values()])
    row_of = {name: row for row, name in enumerate(table["id"].to_pylist())}
    if not set(test.ids) <= set(row_of):
        raise ArtifactError(f"{path} does not hold the same texts as test.parquet beside it: one of them is stale.")
    order = [row_of[name] for name in test.ids]
    return {
        name: _sets(path, column, table[column].to_pylist(), spec.labels)[order] for name, column in columns.items()
    }


def _sets(path: Path, column: str, rows: list[list[str]], labels: Labels) -> Sets:
    found = np.zeros((len(rows), len(labels)), dtype=bool)
    known = {name: number for number, name in enumerate(labels.names)}
    for row, names in enumerate(rows):
        for name in names:
            if name not in known:
                raise ArtifactError(
                    f"{path}, column {column}, row {row + 1}: {name!r} is none of the {len(labels)} labels of the "
                    "run's data/labels.json."
                )
            found[row, known[name]] = True
    return found
