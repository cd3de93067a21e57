"""The test part of a reader's fold: questions and their answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from doctune.reports.reader import judged_metric, score_part
from doctune.reports.reader_records import Answers, join_answers, read_answers, read_version
from doctune.reports.suspects import Suspect
from doctune.reports.verdict import ANSWER_METRIC_WORDS
from doctune.scoring.squad import Version

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class AnswerPart:
    """The answers, the files that hold them, and by which rules they are judged; see `JudgedPart`."""

    noun: ClassVar[str] = "question"
    said: ClassVar[str] = "answer"
    metric_words: ClassVar[Mapping[str, str]] = ANSWER_METRIC_WORDS

    version: Version
    answers: Answers
    files: tuple[Path, ...]

    @classmethod
    def read(cls, run: Path) -> Self | None:
        """That of a run folder; None when it has no rows."""
        version, path = read_version(run), run / "predictions/test.parquet"
        answers = read_answers(path, version)
        return None if answers is None else cls(version, answers, (path,))

    @classmethod
    def pool(cls, parts: Sequence[Self]) -> Self:
        """Several as one."""
        files = tuple(path for part in parts for path in part.files)
        return cls(parts[0].version, join_answers([part.answers for part in parts]), files)

    @classmethod
    def test_metric(cls, metric: str) -> str:
        """The same as the monitored one, or F1: a test part keeps no loss."""
        return judged_metric(metric) or "f1"

    @property
    def ids(self) -> tuple[str, ...]:
        """Those of the questions."""
        return self.answers.scores.ids

    def __len__(self) -> int:
        return len(self.answers)

    def named(self, row: int) -> str:
        """The id of the question and its article."""
        answer = self.answers.given[row]
        return f"Question {answer.judged.id!r} (article {answer.article!r})"

    def difference(self, other: Self) -> str:
        """That the rules are others."""
        if self.version == other.version:
            return ""
        return (
            f"are judged by different rules, those of SQuAD {self.version} and {other.version} (see version in their "
            "environment.json), so their answers cannot be pooled. Make the folds from one file of questions."
        )

    def scores(self) -> dict[str, Any]:
        """Those of the reader's report, and how many articles the questions are about."""
        articles = len({answer.article for answer in self.answers.given})
        return (score_part(self.answers, self.version) or {}) | {"articles": articles}

    def per_class(self) -> list[dict[str, Any]]:
        """Nothing: an answer has no class."""
        return []

    def suspects(self) -> list[Suspect] | None:
        """None: an answer has no label that could be wrong."""
        return None

    def table(self) -> pa.Table:
        """Each question with all that its file tells of it."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        return pa.concat_tables([pq.read_table(path) for path in self.files], promote_options="default")
