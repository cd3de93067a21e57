"""The plain files of a run folder, read and checked: all that a report knows of a run.

Shapes: N documents of a part, L labels.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from numpy.typing import NDArray

from doctune.errors import ArtifactError
from doctune.labels import Labels

if TYPE_CHECKING:
    import pyarrow as pa

CLASSIFICATION, QUESTION_ANSWERING, MULTI_TASK = "classification", "question_answering", "multi_task"
INSTRUCTIONS = "instruction_tuning"
TASKS = (CLASSIFICATION, QUESTION_ANSWERING, MULTI_TASK, INSTRUCTIONS)
ATTENTION_COLUMNS = ("id", "chunk", "weight", "text")
PREDICTION_COLUMNS = ("id", "path", "truth", "prediction", "probabilities")


@dataclass(frozen=True)
class Predictions:
    """What the model said of one part's documents, in the order of the file."""

    ids: tuple[str, ...]
    paths: tuple[str, ...]
    truth: NDArray[np.int64]  # (N,)
    predicted: NDArray[np.int64]  # (N,)
    probabilities: NDArray[np.float32]  # (N, L)

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class RunFiles:
    """What the files of every run tell, whatever its task.

    `baselines` is empty where none was fitted. `config` is what Hydra composed and `overrides` what was typed for it;
    both are empty where Hydra did not start it.
    """

    folder: Path
    audit: dict[str, Any]
    history: list[dict[str, Any]]
    baselines: dict[str, dict[str, Any]]
    environment: dict[str, Any]
    config: dict[str, Any]
    overrides: list[str]


@dataclass(frozen=True)
class ChunkWeight:
    """A chunk of a document, from 0: how much it counted, of sum 1 per document, and the beginning of its text."""

    number: int
    weight: float
    text: str


@dataclass(frozen=True)
class RunRecords(RunFiles):
    """A classifier's run as its files tell it.

    `val` and `test` are None for a part without documents; `baseline_ids` maps a baseline's name to its label ids
    `(N,)` for the test documents, in the order of `test`. `attention` maps a part to the chunks of its documents by
    their ids, where the model reads chunks.
    """

    labels: Labels
    val: Predictions | None
    test: Predictions | None
    baseline_ids: dict[str, NDArray[np.int64]]
    attention: dict[str, dict[str, list[ChunkWeight]]] = field(default_factory=dict)


def read_task(run: Path) -> str:
    """The task of a run, one of `TASKS`; runs that do not name theirs are classifiers.

    Raises:
        ArtifactError: the folder is none of a run, or its task is not known.
    """
    require_run(run)
    task = read_json(run, "environment.json", dict).get("task") or CLASSIFICATION
    if task not in TASKS:
        raise ArtifactError(f"{run / 'environment.json'}: the task {task!r} has no report; known: {', '.join(TASKS)}.")
    return str(task)


def read_run(run: Path) -> RunRecords:
    """Read the files of a classifier's finished run.

    Raises:
        ArtifactError: a file is missing, damaged, or does not belong to the others; the message names it.
    """
    require_run(run)
    labels = Labels.load(existing(run, "data/labels.json"))
    test = read_predictions(existing(run, "predictions/test.parquet"), labels)
    return RunRecords(
        **vars(read_files(run)),
        labels=labels,
        val=read_predictions(existing(run, "predictions/val.parquet"), labels),
        test=test,
        baseline_ids=_read_baseline_ids(run / "predictions/baselines_test.parquet", labels, test),
        attention={part: read_attention(run / f"predictions/{part}_attention.parquet") for part in ("val", "test")},
    )


def read_attention(path: Path) -> dict[str, list[ChunkWeight]]:
    """The chunks of each document by its id, in the document's order; empty where a run has no chunks.

    Raises:
        ArtifactError: the file cannot be read.
    """
    chunks: dict[str, list[ChunkWeight]] = {}
    if path.exists():
        for row in read_table(path, ATTENTION_COLUMNS).select(ATTENTION_COLUMNS).to_pylist():
            chunks.setdefault(row["id"], []).append(ChunkWeight(row["chunk"], row["weight"], row["text"]))
    return chunks


def require_run(run: Path) -> None:
    """Check that there is a folder.

    Raises:
        ArtifactError: there is none.
    """
    if not run.is_dir():
        raise ArtifactError(
            f"{run} is not a run folder. Give the folder that training wrote, such as outputs/DATE/TIME."
        )


def read_files(run: Path) -> RunFiles:
    """Read the files that every run has.

    Raises:
        ArtifactError: one is missing or damaged; the message names it.
    """
    return RunFiles(
        folder=run,
        audit=read_json(run, "data/audit.json", dict),
        history=_read_history(run),
        baselines=read_json(run, "data/baselines.json", dict) if (run / "data/baselines.json").exists() else {},
        environment=read_json(run, "environment.json", dict),
        config=_read_yaml(run / ".hydra/config.yaml", dict),
        overrides=_read_yaml(run / ".hydra/overrides.yaml", list),
    )


def read_predictions(path: Path, labels: Labels) -> Predictions | None:
    """Read `val.parquet` or `test.parquet`; None when it has no rows.

    Raises:
        ArtifactError: it cannot be read, lacks a column, or holds labels or probabilities that do not fit `labels`.
    """
    table = read_table(path, PREDICTION_COLUMNS)
    if len(table) == 0:
        return None
    return Predictions(
        ids=tuple(table["id"].to_pylist()),
        paths=tuple(table["path"].to_pylist()),
        truth=_encode(path, "truth", table["truth"].to_pylist(), labels),
        predicted=_encode(path, "prediction", table["prediction"].to_pylist(), labels),
        probabilities=_probabilities(path, table["probabilities"].combine_chunks(), labels),
    )


def _read_baseline_ids(path: Path, labels: Labels, test: Predictions | None) -> dict[str, NDArray[np.int64]]:
    if test is None or not path.exists():
        return {}
    columns = read_table(path, ("id",)).to_pydict()
    order = rows_of(test.ids, columns.pop("id"), path, "documents")
    return {name: _encode(path, name, values, labels)[order] for name, values in columns.items()}


def rows_of(ids: Sequence[str], found: Sequence[str], path: Path, noun: str) -> list[int]:
    """The row of each of the test part's `ids` in a file beside it whose ids are `found`; `noun` is what they name.

    Raises:
        ArtifactError: they are not the same.
    """
    if sorted(found) != sorted(ids):
        raise ArtifactError(f"{path} does not hold the same {noun} as test.parquet beside it: one of them is stale.")
    row_of = {name: row for row, name in enumerate(found)}
    return [row_of[name] for name in ids]


def read_table(path: Path, required: Sequence[str]) -> pa.Table:
    """A Parquet file of a run.

    Raises:
        ArtifactError: it cannot be read, or lacks a column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise ArtifactError(f"{path} cannot be read as Parquet: {error}.") from error
    missing = [name for name in required if name not in table.column_names]
    if missing:
        raise ArtifactError(f"{path} lacks the columns {', '.join(missing)}; it has {', '.join(table.column_names)}.")
    return table


def _encode(path: Path, column: str, names: Sequence[str], labels: Labels) -> NDArray[np.int64]:
    known = set(labels.names)
    unknown = next((row for row, name in enumerate(names) if name not in known), None)
    if unknown is not None:
        raise ArtifactError(
            f"{path}, column {column}, row {unknown + 1}: {names[unknown]!r} is none of the {len(labels)} labels of "
            "the run's data/labels.json."
        )
    return np.asarray(labels.encode(names), dtype=np.int64)


def _probabilities(path: Path, rows: pa.ListArray, labels: Labels) -> NDArray[np.float32]:
    """The lists as one array (N, L); read through Arrow, since a Python list of 60,000 x 60 numbers takes seconds."""
    lengths = rows.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero(lengths != len(labels))
    if wrong.size:
        row = int(wrong[0])
        raise ArtifactError(f"{path}, row {row + 1}: {lengths[row]} probabilities, but there are {len(labels)} labels.")
    numbers = rows.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    return numbers.reshape(len(rows), len(labels))


def _read_history(run: Path) -> list[dict[str, Any]]:
    history: list[dict[str, Any]] = read_json(run, "training_history.json", list)
    if not history:
        raise ArtifactError(
            f"{run / 'training_history.json'} holds no epoch: the run ended before its first validation."
        )
    return history


def read_json(run: Path, name: str, kind: type) -> Any:
    """The JSON object or list that a file of a run holds.

    Raises:
        ArtifactError: the file is missing, damaged, or holds another kind.
    """
    path = existing(run, name)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read as JSON: {error}.") from error
    if not isinstance(value, kind):
        raise ArtifactError(f"{path} must hold a JSON {'object' if kind is dict else 'list'}.")
    return value


def _read_yaml(path: Path, kind: type) -> Any:
    """What a file of Hydra holds; nothing where there is none."""
    if not path.is_file():
        return kind()
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ArtifactError(f"{path} cannot be read as YAML: {error}.") from error
    if not isinstance(value, kind):
        raise ArtifactError(f"{path} must hold a YAML {'mapping' if kind is dict else 'list'}.")
    return value


def existing(run: Path, name: str) -> Path:
    """The path of a file of a run.

    Raises:
        ArtifactError: there is no such file.
    """
    if not (run / name).is_file():
        raise ArtifactError(f"{run / name} is missing: the run did not finish, or {run} is not a run folder.")
    return run / name
