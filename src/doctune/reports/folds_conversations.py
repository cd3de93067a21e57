"""The test part of a fold that tuned a language model: conversations with their losses and completions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from doctune.reports.instruction_records import Conversations, read_conversations
from doctune.reports.suspects import Suspect
from doctune.reports.verdict import ANSWER_METRIC_WORDS, COMPLETION_METRIC_WORDS

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class ConversationPart:
    """The conversations and the files that hold them; see `JudgedPart`."""

    noun: ClassVar[str] = "conversation"
    said: ClassVar[str] = "loss and completion"
    metric_words: ClassVar[Mapping[str, str]] = COMPLETION_METRIC_WORDS | ANSWER_METRIC_WORDS

    conversations: Conversations
    files: tuple[Path, ...]

    @classmethod
    def read(cls, run: Path) -> Self | None:
        """That of a run folder, which has at least one."""
        path = run / "predictions/test.parquet"
        return cls(read_conversations(path), (path,))

    @classmethod
    def pool(cls, parts: Sequence[Self]) -> Self:
        """Several as one."""
        columns = {
            field.name: tuple(value for part in parts for value in getattr(part.conversations, field.name))
            for field in fields(Conversations)
        }
        return cls(Conversations(**columns), tuple(path for part in parts for path in part.files))

    @classmethod
    def test_metric(cls, metric: str) -> str:
        """The same as the monitored one, or the loss per token."""
        name = metric.removeprefix("val/")
        return name if name in COMPLETION_METRIC_WORDS else "loss"

    @property
    def ids(self) -> tuple[str, ...]:
        """Those of the conversations."""
        return self.conversations.ids

    def __len__(self) -> int:
        return len(self.conversations)

    def named(self, row: int) -> str:
        """Where the conversation stands."""
        return self.conversations.places[row]

    def difference(self, other: Self) -> str:
        """Nothing: losses of one configuration are of one tokenizer."""
        return ""

    def scores(self) -> dict[str, Any]:
        """Those of the report."""
        return self.conversations.scores()

    def per_class(self) -> list[dict[str, Any]]:
        """Nothing: a conversation has no class."""
        return []

    def suspects(self) -> list[Suspect] | None:
        """None: a conversation has no label that could be wrong."""
        return None

    def table(self) -> pa.Table:
        """Each conversation with all that its file tells of it."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        return pa.concat_tables([pq.read_table(path) for path in self.files])
