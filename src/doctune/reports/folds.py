"""What the folds of a k-fold multirun say together, made from the files in their run folders.

Every document is in the test part of one fold, and that fold's model neither trained on it nor was chosen by it (an
inner validation part chose the checkpoint). So the pooled test predictions, called out-of-fold, judge all documents.
Where questions are answered, the same holds of every question. What a test part is and scores, `folds_parts` says.
"""

from __future__ import annotations

import contextlib
import csv
import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock

from doctune.errors import ArtifactError
from doctune.files import write_json, write_text, written_whole
from doctune.reports import folds_html, plots
from doctune.reports.facts import finite, history_key
from doctune.reports.folds_answers import AnswerPart
from doctune.reports.folds_conversations import ConversationPart
from doctune.reports.folds_labels import LabelPart
from doctune.reports.folds_page import summarize_folds
from doctune.reports.folds_parts import JudgedPart
from doctune.reports.folds_targets import TargetsPart, spread
from doctune.reports.locate import STATUS_FILE
from doctune.reports.records import CLASSIFICATION, INSTRUCTIONS, MULTI_TASK, QUESTION_ANSWERING, read_json, read_task
from doctune.reports.status import process_of, read_status
from doctune.reports.suspects import Suspect, can_find_suspects
from doctune.reports.verdict import metric_words

FOLDER = "kfold"
RUNS = "*/environment.json"
RESULTS_FILE = "kfold_results.json"
FILES = {
    "index.html": "the report to look at",
    "summary.txt": "the same as plain text, for pasting",
    RESULTS_FILE: "the same for programs",
    "oof.parquet": "every document with its out-of-fold prediction",
    "suspect_labels.csv": "the labels that look wrong",
    "val_loss.png": "the picture of the losses",
    "scores.png": "the picture of the scores",
}
PARTS: dict[str, type[JudgedPart]] = {
    CLASSIFICATION: LabelPart,
    QUESTION_ANSWERING: AnswerPart,
    MULTI_TASK: TargetsPart,
    INSTRUCTIONS: ConversationPart,
}


@dataclass(frozen=True)
class Fold:
    """One fold as its run folder tells it.

    `status` is a phase of `status.json`, "died" for a process that is gone without a word, or "unknown". `test` is that
    of a finished fold, else None; `history` is empty before the first epoch has ended. `checks` are the validations
    within epochs, too, and empty for older runs.
    """

    number: int
    folder: Path
    config: dict[str, Any]
    status: str
    environment: dict[str, Any]
    history: list[dict[str, Any]]
    checks: list[dict[str, Any]]
    test: JudgedPart | None

    @property
    def is_finished(self) -> bool:
        """Whether its scores count."""
        return self.status == "finished"

    @property
    def task(self) -> str | None:
        """The name of its task; None before its data has been read, and of older classifiers."""
        return self.environment.get("task")


def write_folds(directory: Path) -> Path:
    """Write `kfold/` of a multirun folder and return the path of its `summary.txt`.

    Folds that are missing, unfinished or failed are told of; mean, best fold and out-of-fold scores are those of the
    finished ones. Files of an earlier call that no longer hold are removed. Calls for one folder wait for each other,
    so that of folds that end together the last one writes what all of them say; equal folds give equal results.

    Raises:
        ArtifactError: there is no fold, a file of a finished one is missing or damaged, or the folds do not belong to
            one split; the message names them.
    """
    has_runs = any(directory.glob(RUNS))
    with FileLock(directory / ".kfold.lock") if has_runs else contextlib.nullcontext():
        return _write_folds(directory)


def _write_folds(directory: Path) -> Path:
    folds = read_folds(directory)
    finished = [fold for fold in folds if fold.is_finished]
    oof = pool(finished)
    is_complete = len(finished) == folds[0].config["split"]["folds"]
    suspects = oof.suspects() if oof and is_complete and can_find_suspects() else None
    results = finite(_results(folds, oof, suspects))
    target = directory / FOLDER
    write_json(target / RESULTS_FILE, results)
    written = {"index.html", "summary.txt", RESULTS_FILE}
    if oof:
        _write_oof(oof, finished, target / "oof.parquet")
        written.add("oof.parquet")
    if suspects is not None:
        _write_suspects(suspects, target / "suspect_labels.csv")
        written.add("suspect_labels.csv")
    pictures = _write_plots(folds, results, target)
    written.update(pictures)
    for name in set(FILES).difference(written):
        (target / name).unlink(missing_ok=True)
    files = {name: words for name, words in _files(folds).items() if name in written}
    write_text(target / "index.html", folds_html.page(results, suspects, directory, pictures, files))
    write_text(target / "summary.txt", summarize_folds(results, suspects, directory, list(files)))
    return target / "summary.txt"


def read_folds(directory: Path) -> list[Fold]:
    """The folds that have begun, by number; which fold a folder is, its configuration says.

    Raises:
        ArtifactError: see `write_folds`.
    """
    if not directory.is_dir():
        raise ArtifactError(f"{directory}: there is no such folder. Multiruns are under multirun/DATE/TIME.")
    found = [_read_fold(path.parent) for path in sorted(directory.glob(RUNS))]
    folds = sorted((fold for fold in found if fold is not None), key=lambda fold: fold.number)
    if not folds:
        is_fold = (directory / "environment.json").is_file() and _read_fold(directory) is not None
        hint = f" It is one fold itself: give {directory.resolve().parent.name}, the folder above." if is_fold else ""
        raise ArtifactError(
            f"{directory} holds no fold: none of its folders has an environment.json of a run with split=kfold.{hint} "
            "A multirun of folds is made with: python train.py sweep=kfold split.folds=5"
        )
    _require_one_split(directory, folds)
    return folds


def _read_fold(run: Path) -> Fold | None:
    """None for a run of another kind."""
    environment = read_json(run, "environment.json", dict)
    config = environment.get("config") or {}
    split = config.get("split") or {}
    if split.get("kind") != "kfold" or split.get("fold") is None:
        return None
    status = _status(run)
    test = _read_test(run) if status == "finished" else None
    history, checks = (_read_rows(run, f"training_{name}.json") for name in ("history", "metrics"))
    return Fold(int(split["fold"]), run, config, status, environment, history, checks, test)


def _read_rows(run: Path, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_json(run, name, list) if (run / name).is_file() else []
    return rows


def _read_test(run: Path) -> JudgedPart:
    path, kind = run / "predictions/test.parquet", PARTS[read_task(run)]
    if not path.is_file():
        raise ArtifactError(f"{run} is finished, but its predictions/test.parquet is missing: make the fold again.")
    test = kind.read(run)
    if test is None:
        raise ArtifactError(
            f"{path} holds no {kind.noun}: this fold judges nothing. Make folds with fewer split.folds=."
        )
    return test


def _status(run: Path) -> str:
    if not (run / STATUS_FILE).is_file():
        return "unknown"
    status = read_status(run)
    return "died" if not status.has_ended and process_of(status) == "gone" else status.phase


def _require_one_split(directory: Path, folds: Sequence[Fold]) -> None:
    """Refuse folds whose scores cannot be averaged."""
    first = folds[0]
    for before, fold in itertools.pairwise(folds):
        if before.number == fold.number:
            raise ArtifactError(
                f"{directory} holds fold {fold.number} twice, in {before.folder.name} and {fold.folder.name}: one "
                "k-fold multirun has each fold once. Move one of them to another folder."
            )
    judged = [(fold, fold.test) for fold in folds if fold.test is not None]
    for fold, test in judged[1:]:
        before, other = judged[0]
        if type(test) is not type(other):
            raise ArtifactError(
                f"{directory}: {before.folder.name} judges {other.noun}s and {fold.folder.name} {test.noun}s, so there "
                "is no mean of them. Keep folds made with one configuration."
            )
    for fold in folds[1:]:
        for key in (("split", "folds"), ("monitor", "metric"), ("monitor", "mode")):
            one, another = first.config[key[0]][key[1]], fold.config[key[0]][key[1]]
            if one != another:
                raise ArtifactError(
                    f"{directory}: the folds differ in {'.'.join(key)}, {one} in {first.folder.name} and {another} in "
                    f"{fold.folder.name}, so there is no mean of them. Keep folds made with one configuration."
                )
    for fold, test in judged[1:]:
        before, other = judged[0]
        if reason := other.difference(test):
            raise ArtifactError(f"{directory}: {before.folder.name} and {fold.folder.name} {reason}")


def pool(finished: Sequence[Fold]) -> JudgedPart | None:
    """The test parts of all finished folds, which are of one kind, in the order of the folds; None without any.

    Raises:
        ArtifactError: a document or question is in two folds.
    """
    tests = [fold.test for fold in finished if fold.test is not None]
    if not tests:
        return None
    fold_of: dict[str, Fold] = {}
    for fold, test in zip(finished, tests, strict=True):
        for row, name in enumerate(test.ids):
            before = fold_of.setdefault(name, fold)
            if before is not fold:
                raise ArtifactError(
                    f"{test.named(row)} is in the test part of both {before.folder.name} and {fold.folder.name}: folds "
                    f"that overlap belong to different splits. Keep those made from the same {test.noun}s and "
                    "split.seed."
                )
        if len(set(test.ids)) < len(test):
            path = fold.folder / "predictions/test.parquet"
            raise ArtifactError(f"{path} holds a {test.noun} twice: make it again.")
    return type(tests[0]).pool(tests)


def _task(folds: Sequence[Fold]) -> str:
    """That of the finished folds, or else of one that names its own; the one of older classifiers where none does."""
    ordered = sorted(folds, key=lambda fold: not fold.is_finished)
    known = [fold.task or CLASSIFICATION for fold in ordered if fold.is_finished or fold.task]
    return known[0] if known and known[0] in PARTS else CLASSIFICATION


def _results(folds: Sequence[Fold], oof: JudgedPart | None, suspects: Sequence[Suspect] | None) -> dict[str, Any]:
    """The content of `kfold_results.json`; `test_metric` is the name in `oof` of what compares with `metric`.

    As in `report.json`, classifiers do not name their task.
    """
    config, task = folds[0].config, _task(folds)
    metric, mode = config["monitor"]["metric"], config["monitor"]["mode"]
    rows = [_row(fold, metric, mode) for fold in folds]
    scored = {row["fold"]: row["monitor"] for row in rows if row["status"] == "finished" and row["monitor"] is not None}
    values = list(scored.values())
    finished = [fold for fold in folds if fold.is_finished]
    done = {fold.number for fold in finished}
    pick = min if mode == "min" else max
    return {
        **({} if task == CLASSIFICATION else {"task": task}),
        "metric": metric,
        "mode": mode,
        "test_metric": PARTS[task].test_metric(metric),
        "num_folds": config["split"]["folds"],
        "folds": rows,
        "mean": statistics.fmean(values) if values else None,
        "std": statistics.stdev(values) if len(values) > 1 else None,
        "min": min(values, default=None),
        "max": max(values, default=None),
        "best_fold": pick(scored, key=lambda fold: scored[fold]) if scored else None,
        "missing": [number for number in range(config["split"]["folds"]) if number not in done],
        "oof": oof.scores() if oof else None,
        "per_class": oof.per_class() if oof else [],
        **(_targets(oof, rows, finished) if isinstance(oof, TargetsPart) else {}),
        "suspect_labels": None if suspects is None else len(suspects),
    }


def _targets(oof: TargetsPart, rows: Sequence[dict[str, Any]], finished: Sequence[Fold]) -> dict[str, Any]:
    done = [row for row in rows if row["status"] == "finished"]
    return spread(oof, done, [fold.history for fold in finished])


def _row(fold: Fold, metric: str, mode: str) -> dict[str, Any]:
    losses = _numbers(fold.history, "val_loss")
    scores = _numbers(fold.history, history_key(metric))
    best_epoch = (min if mode == "min" else max)(scores, key=lambda epoch: scores[epoch], default=None)
    kept = fold.environment.get("best_epoch")
    lowest = min([*losses.values(), *(row["val_loss"] for row in fold.checks)], default=None)
    best = None if best_epoch is None else scores[best_epoch]
    return {
        "fold": fold.number,
        "best_val_loss": lowest,
        "final_val_loss": fold.history[-1].get("val_loss") if fold.history else None,
        "monitor": lowest if metric == "val/loss" else best,
        "status": fold.status,
        "best_epoch": best_epoch if kept is None else kept,
        "epochs": len(fold.history),
        "stopped": fold.environment.get("stopped"),
        "path": fold.folder.name,
        "test": fold.test.scores() if fold.test else None,
    }


def _numbers(history: Sequence[dict[str, Any]], key: str) -> dict[int, float]:
    """Epoch -> the finite values of a history key."""
    return {row["epoch"]: row[key] for row in history if row.get(key) is not None and math.isfinite(row[key])}


def _files(folds: Sequence[Fold]) -> dict[str, str]:
    """`FILES` in the words of the task."""
    part = PARTS[_task(folds)]
    return FILES | {"oof.parquet": f"every {part.noun} with its out-of-fold {part.said}"}


def _write_oof(oof: JudgedPart, finished: Sequence[Fold], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    numbers = [fold.number for fold in finished for _ in range(len(fold.test or ()))]
    table = oof.table().add_column(2, pa.field("fold", pa.int32()), [pa.array(numbers, pa.int32())])
    with written_whole(path) as temporary:
        pq.write_table(table, temporary)


def _write_suspects(suspects: Sequence[Suspect], path: Path) -> None:
    with written_whole(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Suspect)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(suspect) for suspect in suspects)


def _write_plots(folds: Sequence[Fold], results: dict[str, Any], target: Path) -> dict[str, str]:
    """Draw what there is: the name of each file that was written, and the same picture as an SVG element."""
    drawn = {}
    histories = {fold.number: fold.history for fold in folds if fold.history}
    if histories:
        drawn["val_loss.png"] = partial(plots.fold_losses, histories), "Validation loss of each fold"
    rows = [row for row in results["folds"] if row["status"] == "finished"]
    if rows:
        scores = partial(plots.fold_scores, [row["fold"] for row in rows], _series(rows, results))
        drawn["scores.png"] = scores, "Scores of each fold"
    for name, (draw, _) in drawn.items():
        plots.save(draw(), target / name)
    return {name: plots.svg(draw(), words) for name, (draw, words) in drawn.items()}


def _series(rows: Sequence[dict[str, Any]], results: dict[str, Any]) -> dict[str, list[float | None]]:
    """Name in the legend -> score per fold: the monitored one, and that of the test part.

    A test part of answers or of several targets keeps no loss, and a loss and a score share no axis: scores of the test
    part alone stand for them.
    """
    metric, test_metric = results["metric"], results["test_metric"]
    tested = {f"test, {metric_words(test_metric)}": [row["test"].get(test_metric) for row in rows]}
    if metric == "val/loss" and test_metric == "f1":
        return tested | {"test, exact match": [row["test"]["exact_match"] for row in rows]}
    if metric == "val/loss" and test_metric == "f1_macro":
        return tested
    return {
        f"validation, {metric_words(metric)}": [row["monitor"] for row in rows],
        **tested,
    }
