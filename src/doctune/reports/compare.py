"""Finished runs side by side: their settings, scores and cost, and whether one is better than the others.

Every run is compared with the best one on the test documents that all have in common. It is worse if two tests agree:
the 95 % interval of the difference of the judged metric (`intervals.paired_difference`) lies above 0, and McNemar's
test on right and wrong (`scoring.paired`, corrected by Holm for several runs) finds p < 0.05 in the same direction.

Shapes: N shared documents.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doctune.errors import ArtifactError
from doctune.reports.gates import Gate, apply_gates
from doctune.reports.locate import STATUS_FILE, find_run
from doctune.reports.numbers import counted
from doctune.reports.records import RunRecords, read_run
from doctune.reports.status import read_raw
from doctune.reports.verdict import METRIC_WORDS, MIN_DOCUMENTS, judged_metric
from doctune.scoring.classification import STATISTICS, confusion_matrix
from doctune.scoring.intervals import paired_difference
from doctune.scoring.paired import holm, mcnemar

SCHEMA = 1
SIGNIFICANT = 0.05
MAX_NAMED = 5
COPIED = ("test", "val", "gap", "training_seconds", "parameters", "epochs", "best_epoch", "monitor")
NOT_KNOWABLE = (
    "Whether any of these runs was picked for its test score cannot be read from its files; if one was, that score "
    "flatters."
)


@dataclass(frozen=True)
class LeftOut:
    """A run of a multirun folder that has nothing to compare, and why."""

    folder: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.folder} ({self.reason})"


@dataclass(frozen=True)
class ComparedRun:
    """One column: `name` is the shortest end of its path that no other run has, `report` its `report.json`."""

    name: str
    records: RunRecords
    report: dict[str, Any]

    @property
    def settings(self) -> dict[str, Any]:
        """Dotted keys -> values of the configuration; empty where none was kept."""
        return _flat(self.records.environment.get("config") or self.records.config)


@dataclass(frozen=True)
class Shared:
    """The test documents that all runs have: truth `(N,)` and each run's predictions `(N,)`, in labels of all runs."""

    num_labels: int
    truth: NDArray[np.int64]
    predicted: dict[str, NDArray[np.int64]]


def find_runs(given: Sequence[str | Path]) -> tuple[list[Path], list[LeftOut]]:
    """The finished runs that are meant, each once, in the order given, and the unfinished ones of multirun folders.

    Args:
        given: run folders, their `model/` folders, or multirun folders, which stand for the runs in them.

    Raises:
        ArtifactError: one is neither, a run that was named has not finished, or fewer than two runs remain.
    """
    finished: dict[Path, Path] = {}
    left_out = []
    for path in map(Path, given):
        inside = _runs_inside(path)
        for run in inside or [find_run(path)]:
            reason = _why_unfinished(run)
            if reason and not inside:
                raise ArtifactError(f"{run} cannot be compared: {reason}. `doctune status {run}` says more.")
            if reason:
                left_out.append(LeftOut(run, reason))
            else:
                finished.setdefault(run.resolve(), run)
    if len(finished) < 2:
        without = f" Left out: {', '.join(map(str, left_out))}." if left_out else ""
        raise ArtifactError(
            f"A comparison needs at least two finished runs, and {' '.join(map(str, given))} gives {len(finished)}: "
            f"name another run or a multirun folder.{without}"
        )
    return list(finished.values()), left_out


def read_compared(runs: Sequence[Path]) -> list[ComparedRun]:
    """Read the files of finished runs.

    Raises:
        ArtifactError: a file is missing or damaged; the message names it.
    """
    names = shortest_names([run.resolve() for run in runs])
    return [ComparedRun(name, read_run(run), _read_report(run)) for name, run in zip(names, runs, strict=True)]


def shortest_names(paths: Sequence[Path]) -> list[str]:
    """For each of different absolute paths the shortest end that no other one has."""
    return [_shortest_tail(path, paths) for path in paths]


def compare(
    runs: Sequence[ComparedRun], left_out: Sequence[LeftOut] = (), gates: Sequence[Gate] = ()
) -> dict[str, Any]:
    """All that is said of the runs, in plain values for JSON.

    Raises:
        ConfigError: a gate names a metric that there is not.
    """
    metric = _common_metric(runs)
    shared, refusal = _shared_documents(runs)
    comparisons = [] if shared is None else _against_best(shared, metric)
    documents = 0 if shared is None else len(shared.truth)
    return {
        "schema": SCHEMA,
        "verdict": refusal or _sentence(comparisons, documents, metric),
        "metric": metric,
        "best": comparisons[0]["best"] if comparisons else None,
        "shared_documents": documents,
        "comparisons": comparisons,
        "runs": [
            {"name": run.name, "folder": str(run.records.folder), **{key: run.report.get(key) for key in COPIED}}
            for run in runs
        ],
        "settings": differing_settings([run.settings for run in runs]),
        "gates": [found.to_dict() for found in apply_gates(gates, {run.name: run.report for run in runs})],
        "notes": _notes(runs, comparisons, documents, left_out),
        "left_out": [{"folder": str(each.folder), "reason": each.reason} for each in left_out],
    }


def differing_settings(settings: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Key -> its value in every run, for the keys whose values differ; None where a run does not have the key.

    A run that kept no configuration at all makes no key differ.
    """
    keys = sorted({key for each in settings for key in each})
    columns = {key: [each.get(key) for each in settings] for key in keys}
    known = [place for place, each in enumerate(settings) if each]
    return {key: values for key, values in columns.items() if any(values[place] != values[known[0]] for place in known)}


# --- which runs --------------------------------------------------------------------------------------------------


def _runs_inside(folder: Path) -> list[Path]:
    """The runs directly in a folder that is none itself, 2 before 10; those that never began among them."""
    if (folder / STATUS_FILE).is_file() or not folder.is_dir():
        return []
    inside = [path for path in folder.iterdir() if (path / STATUS_FILE).is_file() or (path / ".hydra").is_dir()]
    if not any((path / STATUS_FILE).is_file() for path in inside):
        return []
    return sorted(inside, key=_natural)


def _natural(path: Path) -> list[tuple[int, str]]:
    return [(len(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", path.name)]


def _why_unfinished(run: Path) -> str | None:
    if not (run / STATUS_FILE).is_file():
        return "it never began"
    phase = read_raw(run)["phase"]
    if phase != "finished":
        return f"it has not finished (phase: {phase})"
    return None if (run / "report/report.json").is_file() else "it has no report/report.json"


def _shortest_tail(path: Path, paths: Sequence[Path]) -> str:
    for length in range(1, len(path.parts)):
        tail = path.parts[-length:]
        if sum(other.parts[-length:] == tail for other in paths) == 1:
            return "/".join(tail)
    return str(path)


def _read_report(run: Path) -> dict[str, Any]:
    path = run / "report/report.json"
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read as JSON: {error}.") from error
    if not isinstance(report, dict):
        raise ArtifactError(f"{path} must hold a JSON object.")
    return report


def _flat(config: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= _flat(value, f"{above}{key}.") if isinstance(value, Mapping) else {f"{above}{key}": value}
    return flat


# --- which is better ---------------------------------------------------------------------------------------------


def _monitored(run: ComparedRun) -> str:
    return str((run.report.get("monitor") or {}).get("metric", ""))


def _common_metric(runs: Sequence[ComparedRun]) -> str:
    """What all runs monitored, where a confusion matrix gives it; else macro F1."""
    judged = {judged_metric(_monitored(run)) for run in runs}
    return (judged.pop() or "f1_macro") if len(judged) == 1 else "f1_macro"


def _shared_documents(runs: Sequence[ComparedRun]) -> tuple[Shared | None, str]:
    """What all runs have predicted, or a sentence that says why that cannot be compared."""
    untested = [run.name for run in runs if run.records.test is None]
    if untested:
        return None, f"No significance test: {_listed(untested)} {_have(untested)} no test documents."
    rows = [_rows(run.records) for run in runs]
    ids = [document for document in rows[0] if all(document in others for others in rows[1:])]
    if len(ids) < 2:
        return None, (
            f"No significance test: the runs have {counted(len(ids), 'test document')} in common, and two are the "
            "least; they were judged on different splits."
        )
    for run, others in zip(runs[1:], rows[1:], strict=True):
        relabelled = sum(others[document][0] != rows[0][document][0] for document in ids)
        if relabelled:
            return None, (
                f"No significance test: {relabelled:,} of {len(ids):,} shared test documents have another true label "
                f"in {run.name} than in {runs[0].name}."
            )
    id_of = {
        name: place for place, name in enumerate(sorted({name for run in runs for name in run.records.labels.names}))
    }

    def column(of_run: dict[str, tuple[str, str]], side: int) -> NDArray[np.int64]:
        return np.asarray([id_of[of_run[document][side]] for document in ids], dtype=np.int64)

    predicted = {run.name: column(of_run, 1) for run, of_run in zip(runs, rows, strict=True)}
    return Shared(len(id_of), column(rows[0], 0), predicted), ""


def _rows(records: RunRecords) -> dict[str, tuple[str, str]]:
    """Document id -> true and predicted label."""
    test, names = records.test, records.labels.names
    if test is None:
        return {}
    pairs = zip(test.truth.tolist(), test.predicted.tolist(), strict=True)
    return {document: (names[truth], names[told]) for document, (truth, told) in zip(test.ids, pairs, strict=True)}


def _against_best(shared: Shared, metric: str) -> list[dict[str, Any]]:
    """The best run on the shared documents against every other one, the closest first."""
    scores = {
        name: float(STATISTICS[metric](confusion_matrix(shared.truth, predicted, shared.num_labels)))
        for name, predicted in shared.predicted.items()
    }
    best, *others = sorted(scores, key=lambda name: -scores[name])
    tests = [mcnemar(shared.truth, shared.predicted[best], shared.predicted[name]) for name in others]
    comparisons = []
    for name, test, p_holm in zip(others, tests, holm([test.p for test in tests]), strict=True):
        difference = paired_difference(
            shared.truth, shared.predicted[best], shared.predicted[name], shared.num_labels, STATISTICS[metric]
        )
        agreements = difference.low > 0, p_holm < SIGNIFICANT and test.only_a > test.only_b
        comparisons.append(
            {
                "best": best,
                "other": name,
                "difference": difference.value,
                "low": difference.low,
                "high": difference.high,
                "only_best_right": test.only_a,
                "only_other_right": test.only_b,
                "same_labels": bool(np.array_equal(shared.predicted[best], shared.predicted[name])),
                "p": test.p,
                "p_holm": p_holm,
                "tests_disagree": agreements[0] != agreements[1],
                "status": _status(len(shared.truth), *agreements),
            }
        )
    return comparisons


def _status(documents: int, *is_better: bool) -> str:
    if documents < MIN_DOCUMENTS:
        return "too_few"
    return "better" if all(is_better) else "unclear"


# --- in words ----------------------------------------------------------------------------------------------------


def _sentence(comparisons: Sequence[dict[str, Any]], documents: int, metric: str) -> str:
    closest = comparisons[0]
    best, other = closest["best"], closest["other"]
    p = f"McNemar {p_words(closest['p_holm'])}{' after Holm' if len(comparisons) > 1 else ''}"
    interval = f"{closest['difference']:+.3f} ({closest['low']:+.3f} to {closest['high']:+.3f})"
    same = f"on the same {documents:,} documents ({p})"
    worse = [each["other"] for each in comparisons if each["status"] == "better"]
    alike = [each["other"] for each in comparisons if each["status"] != "better"]
    word = METRIC_WORDS[metric]
    if documents < MIN_DOCUMENTS:
        apart = _listed([best, *alike])
        return (
            f"{apart} cannot be told apart: {documents} documents are too few to judge (at least {MIN_DOCUMENTS}); "
            f"{word} {interval} for {best} over {other} {same}."
        )
    if len(comparisons) == 1:
        if closest["same_labels"]:
            return f"{best} and {other} cannot be told apart: they label the same {documents:,} documents alike."
        if worse:
            return f"{best} is better than {other}: {word} {interval} {same}."
        return f"{best} and {other} cannot be told apart: {word} {interval} for {best} {same}."
    said = f"is better than {_listed(worse)}" if worse else ""
    unsaid = f"cannot be told apart from {_listed(alike)}" if alike else ""
    return f"{best} {', but '.join(part for part in (said, unsaid) if part)}: {word} {interval} over {other} {same}."


def p_words(p: float) -> str:
    """p = 0.031, p < 0.001."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _notes(
    runs: Sequence[ComparedRun], comparisons: Sequence[dict[str, Any]], documents: int, left_out: Sequence[LeftOut]
) -> list[str]:
    notes = []
    if left_out:
        notes.append(f"Left out: {', '.join(map(str, left_out))}.")
    counts = {run.name: len(run.records.test or ()) for run in runs}
    if documents and max(counts.values()) > documents:
        notes.append(
            f"The runs were judged on different splits: they share {counted(documents, 'test document')} of "
            f"{_listed([f'{count:,} ({name})' for name, count in counts.items()])}. The scores in the table are of all "
            "documents of each run; the test is on the shared ones."
        )
    if len({_monitored(run) for run in runs}) > 1:
        notes.append(f"The runs monitored different metrics ({_listed(sorted({_monitored(run) for run in runs}))}).")
    bare = [run.name for run in runs if not run.settings]
    if bare:
        notes.append(f"{_listed(bare)} kept no configuration, so nothing is known of what differs.")
    if len(comparisons) > 1:
        notes.append(
            f"{comparisons[0]['best']}, the best on these documents, is tested against each of the others: the p "
            "values are Holm's, corrected for there being several; the intervals are not."
        )
    disagreeing = [each["other"] for each in comparisons if each["tests_disagree"]]
    if disagreeing:
        notes.append(
            f"Against {_listed(disagreeing)} the interval and McNemar's test disagree: better is said only where both "
            "find it."
        )
    return [*notes, NOT_KNOWABLE]


def _listed(names: Sequence[str]) -> str:
    """A, B and C; of many the first five."""
    shown = list(names[:MAX_NAMED]) + ([f"{len(names) - MAX_NAMED} more"] if len(names) > MAX_NAMED else [])
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _have(names: Sequence[str]) -> str:
    return "has" if len(names) == 1 else "have"
