"""What the folds of a k-fold multirun say together, made from the files in their run folders.

Every document is in the test part of one fold, and that fold's model neither trained on it nor was chosen by it (an
inner validation part chose the checkpoint). So the pooled test predictions, called out-of-fold, judge all documents.

Shapes: N documents of all finished folds, L labels.
"""

from __future__ import annotations

import contextlib
import csv
import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from doctune.errors import ArtifactError
from doctune.files import write_json, write_text, written_whole
from doctune.labels import Labels
from doctune.reports import plots
from doctune.reports.folds_page import summarize_folds
from doctune.reports.locate import STATUS_FILE
from doctune.reports.records import Predictions, read_json, read_predictions
from doctune.reports.run import finite, history_key, score_part
from doctune.reports.status import process_of, read_status
from doctune.reports.suspects import Suspect, can_find_suspects, find_suspects
from doctune.reports.verdict import METRIC_WORDS, judged_metric

FOLDER = "kfold"
RUNS = "*/environment.json"
RESULTS_FILE = "kfold_results.json"
FILES = ("summary.txt", RESULTS_FILE, "oof.parquet", "suspect_labels.csv", "val_loss.png", "scores.png")


@dataclass(frozen=True)
class Fold:
    """One fold as its run folder tells it.

    `status` is a phase of `status.json`, "died" for a process that is gone without a word, or "unknown". `labels` and
    `test` are those of a finished fold, else None; `history` is empty before the first validation.
    """

    number: int
    folder: Path
    config: dict[str, Any]
    status: str
    environment: dict[str, Any]
    history: list[dict[str, Any]]
    labels: Labels | None
    test: Predictions | None

    @property
    def is_finished(self) -> bool:
        """Whether its scores count."""
        return self.status == "finished"


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
    oof = _pool(finished)
    is_complete = len(finished) == folds[0].config["split"]["folds"]
    suspects = find_suspects(oof, _labels(finished)) if oof and is_complete and can_find_suspects() else None
    results = finite(_results(folds, oof, suspects))
    target = directory / FOLDER
    write_json(target / RESULTS_FILE, results)
    written = ["summary.txt", RESULTS_FILE]
    if oof:
        _write_oof(oof, finished, target / "oof.parquet")
        written.append("oof.parquet")
    if suspects is not None:
        _write_suspects(suspects, target / "suspect_labels.csv")
        written.append("suspect_labels.csv")
    written += _write_plots(folds, results, target)
    for name in set(FILES).difference(written):
        (target / name).unlink(missing_ok=True)
    write_text(target / "summary.txt", summarize_folds(results, suspects, directory, written))
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
    labels, test = _read_test(run) if status == "finished" else (None, None)
    has_history = (run / "training_history.json").is_file()
    history = read_json(run, "training_history.json", list) if has_history else []
    return Fold(int(split["fold"]), run, config, status, environment, history, labels, test)


def _read_test(run: Path) -> tuple[Labels, Predictions]:
    path = run / "predictions/test.parquet"
    if not path.is_file():
        raise ArtifactError(f"{run} is finished, but its predictions/test.parquet is missing: make the fold again.")
    labels = Labels.load(run / "data/labels.json")
    test = read_predictions(path, labels)
    if test is None:
        raise ArtifactError(f"{path} holds no document: this fold judges nothing. Make folds with fewer split.folds=.")
    return labels, test


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
    for fold in folds[1:]:
        for key in (("split", "folds"), ("monitor", "metric"), ("monitor", "mode")):
            one, other = first.config[key[0]][key[1]], fold.config[key[0]][key[1]]
            if one != other:
                raise ArtifactError(
                    f"{directory}: the folds differ in {'.'.join(key)}, {one} in {first.folder.name} and {other} in "
                    f"{fold.folder.name}, so there is no mean of them. Keep folds made with one configuration."
                )
    labelled = [fold for fold in folds if fold.labels is not None]
    for fold in labelled[1:]:
        if fold.labels != labelled[0].labels:
            raise ArtifactError(
                f"{directory}: {labelled[0].folder.name} and {fold.folder.name} have different labels (see their "
                "data/labels.json), so their predictions cannot be pooled. Make the folds from one manifest."
            )


def _pool(finished: Sequence[Fold]) -> Predictions | None:
    """The test predictions of all finished folds in the order of the folds; None without any.

    Raises:
        ArtifactError: a document is in two folds.
    """
    tests = [fold.test for fold in finished if fold.test is not None]
    if not tests:
        return None
    fold_of: dict[str, Fold] = {}
    for fold, test in zip(finished, tests, strict=True):
        for document, path in zip(test.ids, test.paths, strict=True):
            before = fold_of.setdefault(document, fold)
            if before is not fold:
                raise ArtifactError(
                    f"{path} is in the test part of both {before.folder.name} and {fold.folder.name}: folds that "
                    "overlap belong to different splits. Keep those made from the same documents and split.seed."
                )
        if len(set(test.ids)) < len(test):
            raise ArtifactError(f"{fold.folder / 'predictions/test.parquet'} holds a document twice: make it again.")
    return Predictions(
        ids=tuple(document for test in tests for document in test.ids),
        paths=tuple(path for test in tests for path in test.paths),
        truth=np.concatenate([test.truth for test in tests]),
        predicted=np.concatenate([test.predicted for test in tests]),
        probabilities=np.concatenate([test.probabilities for test in tests]),
    )


def _labels(finished: Sequence[Fold]) -> tuple[str, ...]:
    assert finished[0].labels is not None, "a finished fold has labels"
    return finished[0].labels.names


def _results(folds: Sequence[Fold], oof: Predictions | None, suspects: Sequence[Suspect] | None) -> dict[str, Any]:
    """The content of `kfold_results.json`; `test_metric` is the name in `oof` of what compares with `metric`."""
    config = folds[0].config
    metric, mode = config["monitor"]["metric"], config["monitor"]["mode"]
    rows = [_row(fold, metric, mode) for fold in folds]
    scored = {row["fold"]: row["monitor"] for row in rows if row["status"] == "finished" and row["monitor"] is not None}
    values = list(scored.values())
    done = {fold.number for fold in folds if fold.is_finished}
    pick = min if mode == "min" else max
    return {
        "metric": metric,
        "mode": mode,
        "test_metric": _test_metric(metric),
        "num_folds": config["split"]["folds"],
        "folds": rows,
        "mean": statistics.fmean(values) if values else None,
        "std": statistics.stdev(values) if len(values) > 1 else None,
        "min": min(values, default=None),
        "max": max(values, default=None),
        "best_fold": pick(scored, key=lambda fold: scored[fold]) if scored else None,
        "missing": [number for number in range(config["split"]["folds"]) if number not in done],
        "oof": score_part(oof, oof.probabilities.shape[1]) if oof else None,
        "suspect_labels": None if suspects is None else len(suspects),
    }


def _row(fold: Fold, metric: str, mode: str) -> dict[str, Any]:
    losses = _numbers(fold.history, "val_loss")
    scores = _numbers(fold.history, history_key(metric))
    best_epoch = (min if mode == "min" else max)(scores, key=lambda epoch: scores[epoch], default=None)
    kept = fold.environment.get("best_epoch")
    return {
        "fold": fold.number,
        "best_val_loss": min(losses.values(), default=None),
        "final_val_loss": fold.history[-1].get("val_loss") if fold.history else None,
        "monitor": None if best_epoch is None else scores[best_epoch],
        "status": fold.status,
        "best_epoch": best_epoch if kept is None else kept,
        "epochs": len(fold.history),
        "stopped": fold.environment.get("stopped"),
        "path": fold.folder.name,
        "test": score_part(fold.test, fold.test.probabilities.shape[1]) if fold.test else None,
    }


def _numbers(history: Sequence[dict[str, Any]], key: str) -> dict[int, float]:
    """Epoch -> the finite values of a history key."""
    return {row["epoch"]: row[key] for row in history if row.get(key) is not None and math.isfinite(row[key])}


def _test_metric(metric: str) -> str:
    """The score of test predictions that compares with the monitored one: the same, or macro F1 without any."""
    return "log_loss" if metric == "val/loss" else judged_metric(metric) or "f1_macro"


def _write_oof(oof: Predictions, finished: Sequence[Fold], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = np.asarray(_labels(finished), dtype=object)
    table = pa.table(
        {
            "id": pa.array(oof.ids, pa.string()),
            "path": pa.array(oof.paths, pa.string()),
            "fold": pa.array([fold.number for fold in finished for _ in range(len(fold.test or ()))], pa.int32()),
            "truth": pa.array(names[oof.truth], pa.string()),
            "prediction": pa.array(names[oof.predicted], pa.string()),
            "probabilities": pa.array(list(oof.probabilities), pa.list_(pa.float32())),
        }
    )
    with written_whole(path) as temporary:
        pq.write_table(table, temporary)


def _write_suspects(suspects: Sequence[Suspect], path: Path) -> None:
    with written_whole(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Suspect)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(suspect) for suspect in suspects)


def _write_plots(folds: Sequence[Fold], results: dict[str, Any], target: Path) -> list[str]:
    """Draw what there is, and say which files that made."""
    written = []
    histories = {fold.number: fold.history for fold in folds if fold.history}
    if histories:
        plots.save(plots.fold_losses(histories), target / "val_loss.png")
        written.append("val_loss.png")
    rows = [row for row in results["folds"] if row["status"] == "finished"]
    if rows:
        metric, test_metric = results["metric"], results["test_metric"]
        series = {
            f"validation, {METRIC_WORDS.get(metric.split('/')[-1], metric)}": [row["monitor"] for row in rows],
            f"test, {METRIC_WORDS[test_metric]}": [row["test"][test_metric] for row in rows],
        }
        plots.save(plots.fold_scores([row["fold"] for row in rows], series), target / "scores.png")
        written.append("scores.png")
    return written
