"""How well tuned language models foretell the answers of the test conversations that all of them have.

Shapes: N shared conversations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from doctune.reports.compare_shared import TASKS, listed, shared_ids
from doctune.reports.instruction_records import Conversations, InstructionRecords
from doctune.reports.records import INSTRUCTIONS
from doctune.scoring.generation import loss_difference
from doctune.scoring.intervals import Difference
from doctune.scoring.paired import McNemar, sign_test


@dataclass(frozen=True)
class SharedConversations:
    """Each run's losses `(N,)`, sums over the same `tokens` `(N,)`, and what it wrote; see `Shared`."""

    tokens: NDArray[np.int64]
    losses: dict[str, NDArray[np.float64]]
    written: dict[str, list[str | None]]

    @property
    def runs(self) -> tuple[str, ...]:
        """The names of the runs."""
        return tuple(self.losses)

    def __len__(self) -> int:
        return len(self.tokens)

    def score(self, run: str, metric: str) -> float:
        """The mean loss per token, the only metric that is judged."""
        return math.fsum(self.losses[run]) / int(self.tokens.sum())

    def mcnemar(self, run: str, other: str) -> McNemar:
        """How many conversations each of two runs foretells better, by the sign test."""
        return sign_test(-self.losses[run], -self.losses[other])

    def difference(self, run: str, other: str, metric: str) -> Difference:
        """By how much the loss per token of a run is higher than that of another one."""
        return loss_difference(self.losses[run].tolist(), self.losses[other].tolist(), self.tokens.tolist())

    def is_same(self, run: str, other: str) -> bool:
        """Whether two runs have the same losses and wrote the same."""
        return np.array_equal(self.losses[run], self.losses[other]) and self.written[run] == self.written[other]

    def notes(self) -> list[str]:
        """Nothing: copies of a conversation are in one part."""
        return []


def share_conversations(records: Mapping[str, InstructionRecords]) -> SharedConversations | str:
    """What all runs were judged on, or a sentence that says why that cannot be compared; name of a run -> its files."""
    rows = {name: _rows(each.test) for name, each in records.items()}
    truths = {name: {each: test.references[place] for each, (test, place) in rows[name].items()} for name in rows}
    ids = shared_ids(truths, TASKS[INSTRUCTIONS])
    if isinstance(ids, str):
        return ids
    columns = {name: [of_run[each] for each in ids] for name, of_run in rows.items()}
    tokens = {name: [test.tokens[place] for test, place in column] for name, column in columns.items()}
    (first, counts), *others = tokens.items()
    apart = [name for name, counted in others if counted != counts]
    if apart:
        return (
            f"No significance test: {first} and {listed(apart)} read the same answers as other tokens, so their losses "
            "per token cannot be compared. Compare runs of one tokenizer and data.max_length."
        )
    return SharedConversations(
        tokens=np.asarray(counts, dtype=np.int64),
        losses={
            name: np.asarray([test.losses[place] for test, place in column], dtype=np.float64)
            for name, column in columns.items()
        },
        written={name: [test.predictions[place] for test, place in column] for name, column in columns.items()},
    )


def _rows(test: Conversations | None) -> dict[str, tuple[Conversations, int]]:
    """Conversation id -> where it stands."""
    return {} if test is None else {name: (test, place) for place, name in enumerate(test.ids)}
