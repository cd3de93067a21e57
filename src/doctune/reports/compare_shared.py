"""What a comparison asks of the documents or questions that all runs have in common, whatever the task.

`compare_labels` answers for classifiers, `compare_answers` for readers, `compare_targets` for runs with several
targets, `compare_conversations` for tuned language models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from doctune.reports import phrases, reader, verdict
from doctune.reports.numbers import counted
from doctune.reports.records import CLASSIFICATION, INSTRUCTIONS, MULTI_TASK, QUESTION_ANSWERING
from doctune.scoring.intervals import Difference
from doctune.scoring.paired import McNemar

MAX_NAMED = 5


@dataclass(frozen=True)
class Task:
    """How the runs of a task are compared, and in which words.

    `noun` is what is judged and `says` what a run does with it; `truth` names what two runs may be judged by, `test`
    what McNemar's test is of, and `right` when it counts as right. Where a text has several targets, the sign test, of
    which McNemar's is that of right and wrong, takes its place. Of the `scores`, all of which are shown, the first
    is judged where the runs monitored none or different ones; `judged_metric` says which one a monitored metric names.
    `count_head`, `test_head` and `exact_test` are what that test and its counts are called in tables and below them.
    `lower_is_better` holds of the judged metric, a loss; then the gap is told beside the verdict, since a loss is what
    training lowers even where nothing is learnt.
    """

    noun: str
    says: str
    truth: str
    test: str
    right: str
    scores: tuple[str, ...]
    judged_metric: Callable[[str], str | None]
    count_head: str = "only one right"
    test_head: str = "McNemar"
    exact_test: str = "McNemar's exact test"
    lower_is_better: bool = False


TASKS = {
    CLASSIFICATION: Task(
        noun="document",
        says="label",
        truth="another true label",
        test="McNemar",
        right="had right",
        scores=("f1_macro", "accuracy", "log_loss"),
        judged_metric=verdict.judged_metric,
    ),
    QUESTION_ANSWERING: Task(
        noun="question",
        says="answer",
        truth="other reference answers",
        test="McNemar on exact match",
        right="answered exactly",
        scores=("f1", "exact_match"),
        judged_metric=reader.judged_metric,
    ),
    MULTI_TASK: Task(
        noun="text",
        says="label",
        truth="other true labels",
        test="sign test",
        right="labelled better, by the F1 of the labels of a text",
        scores=("f1_macro",),
        judged_metric=lambda _: "f1_macro",
        count_head="one better",
        test_head="sign test",
        exact_test="the exact sign test",
    ),
    INSTRUCTIONS: Task(
        noun="conversation",
        says="complete",
        truth="another answer",
        test="sign test",
        right="foretold with the lower loss",
        scores=("loss", "perplexity", "f1", "exact_match"),
        judged_metric=lambda _: "loss",
        count_head="one better",
        test_head="sign test",
        exact_test="the exact sign test",
        lower_is_better=True,
    ),
}


class Shared(Protocol):
    """What every run said of the documents or questions that all have."""

    @property
    def runs(self) -> tuple[str, ...]:
        """The names of the runs, in the order given."""

    def __len__(self) -> int: ...

    def score(self, run: str, metric: str) -> float:
        """What a run scores on them."""

    def mcnemar(self, run: str, other: str) -> McNemar:
        """How many only one of two runs had right."""

    def difference(self, run: str, other: str, metric: str) -> Difference:
        """By how much a run scores higher than another one."""

    def is_same(self, run: str, other: str) -> bool:
        """Whether two runs say the same of each."""

    def notes(self) -> list[str]:
        """What a reader must know before trusting the tests."""


def task_of(report: Mapping[str, Any]) -> Task:
    """That of a comparison; those of classifiers do not name theirs."""
    return TASKS[report.get("task", CLASSIFICATION)]


def shared_ids(truths: Mapping[str, Mapping[str, object]], task: Task) -> list[str] | str:
    """What all runs judged, in the order of the first one, or a sentence that says why that cannot be compared.

    Args:
        truths: name of a run -> id -> what is true of it; nothing for a run without a test part.
        task: of all of them.
    """
    untested = [name for name, truth in truths.items() if not truth]
    if untested:
        return f"No significance test: {listed(untested)} {_have(untested)} no test {task.noun}s."
    (first, true), *others = truths.items()
    ids = [each for each in true if all(each in other for _, other in others)]
    if len(ids) < 2:
        return (
            f"No significance test: the runs have {counted(len(ids), f'test {task.noun}')} in common, and two are the "
            "least; they were judged on different splits."
        )
    for name, other in others:
        differing = sum(other[each] != true[each] for each in ids)
        if differing:
            return (
                f"No significance test: {differing:,} of {len(ids):,} shared test {task.noun}s have {task.truth} in "
                f"{name} than in {first}."
            )
    return ids


def listed(names: Sequence[str]) -> str:
    """A, B and C; of many the first five."""
    shown = list(names[:MAX_NAMED]) + ([f"{len(names) - MAX_NAMED} more"] if len(names) > MAX_NAMED else [])
    return phrases.listed(shown)


def _have(names: Sequence[str]) -> str:
    return "has" if len(names) == 1 else "have"
