"""Finished runs side by side: their settings, scores and cost, and whether one is better than the others.

A k-fold multirun is one run here; see `compare_folds`.

Every run is compared with the best one on the test documents, or questions, that all have in common. It is worse if two
tests agree: the 95 % bootstrap interval of the difference of the judged metric over them lies above 0, and McNemar's
test on right and wrong (`scoring.paired`, corrected by Holm for several runs) finds p < 0.05 in the same direction. An
answer is right that is an exact match. Texts with several targets and conversations are not right or wrong:
`only_best_right` counts those that the best run labels or foretells better, and the test is the sign test. What differs
between tasks, `compare_shared` says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from doctune.errors import ArtifactError
from doctune.reports import phrases
from doctune.reports.compare_answers import share_answers
from doctune.reports.compare_conversations import share_conversations
from doctune.reports.compare_folds import PooledFolds, is_kfold, read_pooled
from doctune.reports.compare_labels import share_labels
from doctune.reports.compare_shared import TASKS, Shared, Task, listed
from doctune.reports.compare_targets import SharedTargets, plain_targets, share_targets
from doctune.reports.gates import Gate, apply_gates
from doctune.reports.instruction_records import InstructionRecords, read_instruction_run
from doctune.reports.locate import STATUS_FILE, find_run
from doctune.reports.numbers import counted, gap_words
from doctune.reports.reader_records import ReaderRecords, read_reader_run
from doctune.reports.records import (
    CLASSIFICATION,
    INSTRUCTIONS,
    MULTI_TASK,
    QUESTION_ANSWERING,
    RunRecords,
    read_run,
    read_task,
)
from doctune.reports.status import read_raw
from doctune.reports.target_records import MultiTaskRecords, read_targets_run
from doctune.reports.verdict import ALL_METRIC_WORDS, MIN_DOCUMENTS
from doctune.scoring.paired import holm

SCHEMA = 1
SIGNIFICANT = 0.05
COPIED = ("test", "val", "gap", "training_seconds", "parameters", "epochs", "best_epoch", "monitor")
NOT_KNOWABLE = (
    "Whether any of these runs was picked for its test score cannot be read from its files; if one was, that score "
    "flatters."
)


Records = RunRecords | ReaderRecords | MultiTaskRecords | InstructionRecords
READERS: dict[str, Callable[[Path], Records]] = {
    CLASSIFICATION: read_run,
    QUESTION_ANSWERING: read_reader_run,
    MULTI_TASK: read_targets_run,
    INSTRUCTIONS: read_instruction_run,
}


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
    records: Records
    report: dict[str, Any]
    folds: PooledFolds | None = None
    """None for a run that is no k-fold multirun."""

    @property
    def settings(self) -> dict[str, Any]:
        """Dotted keys -> values of the configuration; empty where none was kept."""
        return _flat(self.records.environment.get("config") or self.records.config)

    @property
    def task(self) -> str:
        """The name of what it does."""
        if isinstance(self.records, InstructionRecords):
            return INSTRUCTIONS
        if isinstance(self.records, MultiTaskRecords):
            return MULTI_TASK
        return QUESTION_ANSWERING if isinstance(self.records, ReaderRecords) else CLASSIFICATION


def find_runs(given: Sequence[str | Path]) -> tuple[list[Path], list[LeftOut]]:
    """The finished runs that are meant, each once, in the order given, and the unfinished ones of multirun folders.

    Args:
        given: run folders, their `model/` folders, or multirun folders. Those of a k-fold multirun are runs
            themselves; others stand for the runs in them.

    Raises:
        ArtifactError: one is neither, a run that was named has not finished, or fewer than two runs remain.
    """
    finished: dict[Path, Path] = {}
    left_out = []
    for path in map(Path, given):
        inside = _runs_inside(path)
        for run in [path] if is_kfold(path) else inside or [find_run(path)]:
            reason = _why_unfinished(run)
            if reason and not inside:
                raise ArtifactError(f"{run} cannot be compared: {reason}. `doctune status {run}` says more.")
            if reason:
                left_out.append(LeftOut(run, reason))
            else:
                finished.setdefault(run.resolve(), run)
    if len(finished) < 2:
        without = f" Left out: {', '.join(map(str, left_out))}." if left_out else ""
        kfold = [
            f" A k-fold multirun is one run; `doctune folds {run}` shows its folds."
            for run in finished.values()
            if is_kfold(run)
        ]
        raise ArtifactError(
            f"A comparison needs at least two finished runs, and {' '.join(map(str, given))} gives {len(finished)}: "
            f"name another run or a multirun folder.{''.join(kfold)}{without}"
        )
    return list(finished.values()), left_out


def read_compared(runs: Sequence[Path]) -> list[ComparedRun]:
    """Read the files of finished runs.

    Raises:
        ArtifactError: a file is missing or damaged, or the runs are of different tasks; the message names them.
    """
    names = shortest_names([run.resolve() for run in runs])
    read = [_read_compared(name, run) for name, run in zip(names, runs, strict=True)]
    _require_one_task(read)
    return read


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
    name = runs[0].task
    task = TASKS[name]
    metric = _common_metric(runs, task)
    shared = _shared(runs)
    comparisons = [] if isinstance(shared, str) else _against_best(shared, metric, task)
    count = 0 if isinstance(shared, str) else len(shared)
    return {
        "schema": SCHEMA,
        **({} if name == CLASSIFICATION else {"task": name}),
        "verdict": _verdict(runs, shared if isinstance(shared, str) else _sentence(comparisons, count, metric, task)),
        "metric": metric,
        "best": comparisons[0]["best"] if comparisons else None,
        f"shared_{task.noun}s": count,
        "comparisons": comparisons,
        "runs": [
            {
                "name": run.name,
                "folder": str(run.records.folder),
                **{key: run.report.get(key) for key in COPIED},
                **({"targets": plain_targets(run.report)} if name == MULTI_TASK else {}),
                "folds": run.folds and {"num_folds": run.folds.num_folds, "missing": list(run.folds.missing)},
            }
            for run in runs
        ],
        "settings": differing_settings([run.settings for run in runs]),
        "gates": [found.to_dict() for found in apply_gates(gates, {run.name: run.report for run in runs})],
        "notes": _notes(runs, comparisons, shared, left_out),
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
    folds = _runs_inside(run)
    if folds:
        return "none of its folds has finished" if all(map(_why_unfinished, folds)) else None
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


def _read_compared(name: str, run: Path) -> ComparedRun:
    if is_kfold(run):
        folds = read_pooled(run)
        return ComparedRun(name, folds.records, folds.report, folds)
    return ComparedRun(name, READERS[read_task(run)](run), _read_report(run))


def _require_one_task(runs: Sequence[ComparedRun]) -> None:
    names = {task: of_task for task in TASKS if (of_task := [run.name for run in runs if run.task == task])}
    if len(names) == 1:
        return
    do = [
        f"{listed(of_task)} {TASKS[task].says}{'s' if len(of_task) == 1 else ''} {TASKS[task].noun}s"
        for task, of_task in names.items()
    ]
    raise ArtifactError(f"{phrases.listed(do)}, so they have no score in common: compare runs of one task.")


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


def _common_metric(runs: Sequence[ComparedRun], task: Task) -> str:
    """What all runs monitored, where test parts have it; else the main score of the task."""
    judged = {task.judged_metric(_monitored(run)) for run in runs}
    return (judged.pop() or task.scores[0]) if len(judged) == 1 else task.scores[0]


def _shared(runs: Sequence[ComparedRun]) -> Shared | str:
    """What all runs, which are of one task, have judged, or a sentence that says why that cannot be compared."""
    multi_task = {run.name: run.records for run in runs if isinstance(run.records, MultiTaskRecords)}
    if multi_task:
        return share_targets(multi_task)
    tuned = {run.name: run.records for run in runs if isinstance(run.records, InstructionRecords)}
    if tuned:
        return share_conversations(tuned)
    readers = {run.name: run.records for run in runs if isinstance(run.records, ReaderRecords)}
    if readers:
        return share_answers(readers)
    return share_labels({run.name: run.records for run in runs if isinstance(run.records, RunRecords)})


def _against_best(shared: Shared, metric: str, task: Task) -> list[dict[str, Any]]:
    """The best run on what is shared against every other one, the closest first."""
    scores = {name: shared.score(name, metric) for name in shared.runs}
    best, *others = sorted(scores, key=lambda name: scores[name], reverse=not task.lower_is_better)
    tests = [shared.mcnemar(best, name) for name in others]
    comparisons = []
    for name, test, p_holm in zip(others, tests, holm([test.p for test in tests]), strict=True):
        difference = shared.difference(best, name, metric)
        is_apart = difference.high < 0 if task.lower_is_better else difference.low > 0
        agreements = is_apart, p_holm < SIGNIFICANT and test.only_a > test.only_b
        comparisons.append(
            {
                "best": best,
                "other": name,
                "difference": difference.value,
                "low": difference.low,
                "high": difference.high,
                "only_best_right": test.only_a,
                "only_other_right": test.only_b,
                f"same_{task.says}s": shared.is_same(best, name),
                "p": test.p,
                "p_holm": p_holm,
                "tests_disagree": agreements[0] != agreements[1],
                "status": _status(len(shared), *agreements),
                **({"targets": shared.differences(best, name)} if isinstance(shared, SharedTargets) else {}),
            }
        )
    return comparisons


def _status(count: int, *is_better: bool) -> str:
    if count < MIN_DOCUMENTS:
        return "too_few"
    return "better" if all(is_better) else "unclear"


# --- in words ----------------------------------------------------------------------------------------------------


def _sentence(comparisons: Sequence[dict[str, Any]], count: int, metric: str, task: Task) -> str:
    closest = comparisons[0]
    best, other = closest["best"], closest["other"]
    p = f"{task.test} {p_words(closest['p_holm'])}{' after Holm' if len(comparisons) > 1 else ''}"
    interval = f"{closest['difference']:+.3f} ({closest['low']:+.3f} to {closest['high']:+.3f})"
    same = f"on the same {count:,} {task.noun}s ({p})"
    worse = [each["other"] for each in comparisons if each["status"] == "better"]
    alike = [each["other"] for each in comparisons if each["status"] != "better"]
    word = ALL_METRIC_WORDS[metric]
    if count < MIN_DOCUMENTS:
        apart = listed([best, *alike])
        return (
            f"{apart} cannot be told apart: {count} {task.noun}s are too few to judge (at least {MIN_DOCUMENTS}); "
            f"{word} {interval} for {best} over {other} {same}."
        )
    if len(comparisons) == 1:
        if closest[f"same_{task.says}s"]:
            return f"{best} and {other} cannot be told apart: they {task.says} the same {count:,} {task.noun}s alike."
        if worse:
            return f"{best} is better than {other}: {word} {interval} {same}."
        return f"{best} and {other} cannot be told apart: {word} {interval} for {best} {same}."
    said = f"is better than {listed(worse)}" if worse else ""
    unsaid = f"cannot be told apart from {listed(alike)}" if alike else ""
    return f"{best} {', but '.join(part for part in (said, unsaid) if part)}: {word} {interval} over {other} {same}."


def _verdict(runs: Sequence[ComparedRun], sentence: str) -> str:
    """What the test says; of tuned language models also the gap of each."""
    if not TASKS[runs[0].task].lower_is_better:
        return sentence
    gaps = [f"{run.name} {gap_words(run.report.get('gap'))}" for run in runs]
    return f"{sentence} Gap between validation and training loss: {listed(gaps)}."


def p_words(p: float) -> str:
    """p = 0.031, p < 0.001."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _notes(
    runs: Sequence[ComparedRun],
    comparisons: Sequence[dict[str, Any]],
    shared: Shared | str,
    left_out: Sequence[LeftOut],
) -> list[str]:
    notes, noun, count = [], TASKS[runs[0].task].noun, 0 if isinstance(shared, str) else len(shared)
    if left_out:
        notes.append(f"Left out: {', '.join(map(str, left_out))}.")
    notes += _fold_notes(runs)
    counts = _num_judged(runs, shared)
    if count and max(counts.values()) > count:
        notes.append(
            f"The runs were judged on different splits: they share {counted(count, f'test {noun}')} of "
            f"{listed([f'{of_run:,} ({name})' for name, of_run in counts.items()])}. The scores in the table are of "
            f"all {noun}s of each run; the test is on the shared ones."
        )
    if not isinstance(shared, str):
        notes += shared.notes()
    if len({_monitored(run) for run in runs}) > 1:
        notes.append(f"The runs monitored different metrics ({listed(sorted({_monitored(run) for run in runs}))}).")
    bare = [run.name for run in runs if not run.settings]
    if bare:
        notes.append(f"{listed(bare)} kept no configuration, so nothing is known of what differs.")
    if len(comparisons) > 1:
        notes.append(
            f"{comparisons[0]['best']}, the best on these {noun}s, is tested against each of the others: the p "
            "values are Holm's, corrected for there being several; the intervals are not."
        )
    disagreeing = [each["other"] for each in comparisons if each["tests_disagree"]]
    if disagreeing:
        name = "the sign test" if TASKS[runs[0].task].test == "sign test" else "McNemar's test"
        notes.append(
            f"Against {listed(disagreeing)} the interval and {name} disagree: better is said only where both find it."
        )
    return [*notes, NOT_KNOWABLE]


def _num_judged(runs: Sequence[ComparedRun], shared: Shared | str) -> dict[str, int]:
    """How many documents, questions, or texts that know a compared target, each run was judged on."""
    if isinstance(shared, SharedTargets):
        return shared.tested
    return {run.name: len(run.records.test or ()) for run in runs if not isinstance(run.records, MultiTaskRecords)}


def _fold_notes(runs: Sequence[ComparedRun]) -> list[str]:
    """What the numbers of k-fold multiruns are, and of which of them folds are missing."""
    pooled = [run.name for run in runs if run.folds]
    if not pooled:
        return []
    notes = [
        f"{listed(pooled)}: test scores are of the pooled out-of-fold predictions; validation scores and gap are "
        "means over the folds, the time is their sum, the size that of the largest."
    ]
    noun = TASKS[runs[0].task].noun
    for run in runs:
        if run.folds and run.folds.missing:
            missing = [str(number) for number in run.folds.missing]
            notes.append(
                f"{run.name} has {run.folds.num_folds - len(missing)} of {counted(run.folds.num_folds, 'fold')}: "
                f"nothing is known of the {noun}s of {'fold' if len(missing) == 1 else 'folds'} {listed(missing)}."
            )
    return notes
