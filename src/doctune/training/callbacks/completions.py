"""The loss of every judged conversation and what the model answers to some, as `predictions/<part>.parquet`.

Shapes: N conversations of a part, B rows of a batch.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from lightning import LightningModule, Trainer

from doctune.corpus.instructions import Instruction
from doctune.files import written_whole
from doctune.text.chat import USER, Message
from doctune.training.callbacks.judged import JudgedPartWriter

log = logging.getLogger(__name__)

# Given the module and conversations without their last turn, what the model answers.
Answer = Callable[[LightningModule, Sequence[Sequence[Message]]], list[str]]


@dataclass(frozen=True)
class JudgedConversations:
    """The conversations of a part, their ids, and how many sequences each has in the order of the datamodule's rows."""

    examples: tuple[Instruction, ...]
    ids: tuple[str, ...]
    num_sequences: tuple[int, ...]

    def chosen(self, count: int) -> list[int]:
        """The places of `count` conversations, the same ones whatever their order."""
        by_hash = sorted(range(len(self.ids)), key=lambda place: hashlib.sha256(self.ids[place].encode()).digest())
        return sorted(by_hash[:count])


class CompletionWriter(JudgedPartWriter[tuple[float, int]]):
    """Collects the losses of `trainer.validate` and `trainer.test`, and has some prompts answered when a part is over.

    Args:
        path_of: a part -> where it is written.
        parts: of "val" and "test".
        answer: writes completions.
        num_answers: how many prompts of each part are answered.
    """

    def __init__(
        self,
        path_of: Callable[[str], Path],
        parts: Mapping[str, JudgedConversations],
        answer: Answer,
        num_answers: int,
    ) -> None:
        super().__init__()
        self._path_of = path_of
        self._parts = parts
        self._answer = answer
        self._num_answers = num_answers
        self._module: LightningModule | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Remember which module answers."""
        self._module = pl_module

    def collect(self, outputs: Any, batch: Any) -> None:
        """Keep the sums of losses, (B,), and how many tokens they are of, (B,)."""
        columns = (batch["index"], outputs["losses"], outputs["counts"])
        for place, loss, count in zip(*(column.tolist() for column in columns), strict=True):
            self.kept[place] = (loss, count)

    def write(self, part: str) -> None:
        """Write the conversations in their order: id, place, prompt, reference, loss (a sum, in nats), tokens, and a
        prediction where one was asked for."""
        judged = self._parts[part]
        owners = np.repeat(np.arange(len(judged.ids)), judged.num_sequences)
        sums = np.array([self.kept[place] for place in range(len(owners))], dtype=np.float64)
        size = len(judged.ids)
        table = pa.table(
            {
                "id": list(judged.ids),
                "place": [example.place for example in judged.examples],
                "prompt": [shown_prompt(example.messages[:-1]) for example in judged.examples],
                "reference": [example.reference for example in judged.examples],
                "loss": np.bincount(owners, sums[:, 0], minlength=size),
                "tokens": np.bincount(owners, sums[:, 1], minlength=size).astype(np.int64),
                "prediction": pa.array(self._predictions(judged), pa.string()),
            }
        )
        with written_whole(self._path_of(part)) as temporary:
            pq.write_table(table, temporary)

    def _predictions(self, judged: JudgedConversations) -> list[str | None]:
        assert self._module is not None, "a part is over, so it was set up"
        chosen = judged.chosen(self._num_answers)
        if chosen:
            log.info("The model answers %d of %d prompts.", len(chosen), len(judged.ids))
        answers = self._answer(self._module, [judged.examples[place].messages[:-1] for place in chosen])
        found = dict(zip(chosen, answers, strict=True))
        return [found.get(place) for place in range(len(judged.ids))]


def shown_prompt(messages: Sequence[Message]) -> str:
    """What stands before an answer, for people: a single question as it is, more turns with who says them."""
    if [message.role for message in messages] == [USER]:
        return messages[0].content
    return "\n".join(f"{message.role}: {message.content}" for message in messages)
