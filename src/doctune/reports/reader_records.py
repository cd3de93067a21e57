"""The plain files of a question-answering run, read and checked: all that its report knows of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from doctune.errors import ArtifactError
from doctune.reports.records import RunFiles, existing, read_files, read_json, read_table, require_run, rows_of
from doctune.scoring.answer_errors import JudgedAnswer
from doctune.scoring.squad import AnswerScores, Version, score_answers

ANSWER_COLUMNS = (
    "id",
    "article",
    "question",
    "context",
    "references",
    "reference_start",
    "prediction",
    "start",
    "end",
    "probability",
    "null_score",
    "windows",
    "n_best",
)
TEXTS = ("id", "article", "question", "context", "references", "prediction", "windows")  # none of them is ever null


@dataclass(frozen=True)
class GivenAnswer:
    """One question and what the model said: its answer, judged, and the best ones that it chose from.

    `null_score` is the logit of no answer; `n_best` has text, start, end, score and probability of each.
    """

    judged: JudgedAnswer
    article: str
    probability: float | None
    null_score: float | None
    n_best: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Answers:
    """The answers to one part's questions and their scores, both in the order of the file."""

    given: tuple[GivenAnswer, ...]
    scores: AnswerScores

    def __len__(self) -> int:
        return len(self.given)

    def references(self) -> dict[str, tuple[str, ...]]:
        """The reference answers of each question by its id."""
        return {answer.judged.id: answer.judged.references for answer in self.given}


@dataclass(frozen=True)
class ReaderRecords(RunFiles):
    """The run of a question-answering reader as its files tell it.

    `val` and `test` are None for a part without questions; `baseline_answers` maps a baseline's name to its answers to
    the test questions, in the order of `test`.
    """

    version: Version
    val: Answers | None
    test: Answers | None
    baseline_answers: dict[str, list[str]]


def read_reader_run(run: Path) -> ReaderRecords:
    """Read the files of a reader's finished run.

    Raises:
        ArtifactError: a file is missing, damaged, or does not belong to the others; the message names it.
    """
    require_run(run)
    files = read_files(run)
    version = _version(files.environment, run)
    test = read_answers(existing(run, "predictions/test.parquet"), version)
    return ReaderRecords(
        **vars(files),
        version=version,
        val=read_answers(existing(run, "predictions/val.parquet"), version),
        test=test,
        baseline_answers=_read_baseline_answers(run / "predictions/baselines_test.parquet", test),
    )


def read_version(run: Path) -> Version:
    """By which rules the answers of a run are judged.

    Raises:
        ArtifactError: its `environment.json` is missing or damaged, or names none that is known.
    """
    return _version(read_json(run, "environment.json", dict), run)


def read_answers(path: Path, version: Version) -> Answers | None:
    """Read `val.parquet` or `test.parquet` and score its answers; None when it has no rows.

    Raises:
        ArtifactError: it cannot be read, lacks a column, or has a row that is no answer to a question.
    """
    rows = read_table(path, ANSWER_COLUMNS).select(ANSWER_COLUMNS).to_pylist()
    if not rows:
        return None
    for number, row in enumerate(rows, start=1):
        _check(row, version, f"{path}, row {number}")
    references = {row["id"]: row["references"] for row in rows}
    if len(references) < len(rows):
        raise ArtifactError(f"{path} has {len(rows)} rows, but only {len(references)} ids: some question stands twice.")
    scores = score_answers({row["id"]: row["prediction"] for row in rows}, references, version)
    pairs = zip(scores.exact_match.tolist(), scores.f1.tolist(), strict=True)
    given = [_given(row, exact, f1) for row, (exact, f1) in zip(rows, pairs, strict=True)]
    return Answers(tuple(given), scores)


def join_answers(parts: Sequence[Answers]) -> Answers:
    """The answers of several parts, none of which has a question of another, as those of one."""
    scores = [part.scores for part in parts]
    joined = AnswerScores(
        ids=tuple(name for each in scores for name in each.ids),
        exact_match=np.concatenate([each.exact_match for each in scores]),
        f1=np.concatenate([each.f1 for each in scores]),
        has_answer=np.concatenate([each.has_answer for each in scores]),
        unanswered=tuple(name for each in scores for name in each.unanswered),
    )
    return Answers(tuple(answer for part in parts for answer in part.given), joined)


def _version(environment: Mapping[str, Any], run: Path) -> Version:
    version = environment.get("version")
    if version == "1.1":
        return "1.1"
    if version == "2.0":
        return "2.0"
    raise ArtifactError(
        f"{run / 'environment.json'}: the version of the questions is {version!r}; known are 1.1 and 2.0, "
        "which has questions without an answer."
    )


def _check(row: Mapping[str, Any], version: Version, place: str) -> None:
    absent = [name for name in TEXTS if row[name] is None]
    if absent:
        raise ArtifactError(f"{place} has no {absent[0]}.")
    if version == "1.1" and not row["references"]:
        raise ArtifactError(
            f"{place}: question {row['id']!r} has no reference, but the run's version is 1.1, which knows no "
            "unanswerable question."
        )
    if row["windows"] < 1:
        raise ArtifactError(f"{place}: windows is {row['windows']}, but a context takes at least 1.")
    _check_places(row, place)


def _check_places(row: Mapping[str, Any], place: str) -> None:
    """Places are characters of the context; an answer has both of its ends or neither."""
    start, end, length = row["start"], row["end"], len(row["context"])
    is_place = start is None and end is None
    if start is not None and end is not None:
        is_place = 0 <= start <= end <= length
    if not is_place:
        raise ArtifactError(f"{place}: {start} to {end} is no place in a context of {length:,} characters.")
    reference = row["reference_start"]
    if reference is not None and not 0 <= reference <= length:
        raise ArtifactError(f"{place}: reference_start is {reference}, but the context has {length:,} characters.")


def _given(row: Mapping[str, Any], exact_match: float, f1: float) -> GivenAnswer:
    judged = JudgedAnswer(
        id=row["id"],
        question=row["question"],
        context=row["context"],
        references=tuple(row["references"]),
        reference_start=row["reference_start"],
        prediction=row["prediction"],
        start=row["start"],
        end=row["end"],
        num_windows=row["windows"],
        exact_match=exact_match,
        f1=f1,
    )
    return GivenAnswer(judged, row["article"], row["probability"], row["null_score"], tuple(row["n_best"] or ()))


def _read_baseline_answers(path: Path, test: Answers | None) -> dict[str, list[str]]:
    if test is None or not path.exists():
        return {}
    columns: dict[str, Sequence[str | None]] = read_table(path, ("id",)).to_pydict()
    order = rows_of(test.scores.ids, [str(name) for name in columns.pop("id")], path, "questions")
    return {name: [answers[row] or "" for row in order] for name, answers in columns.items()}
