"""What `doctune folds` asks of the test part of a fold, whatever the task.

Whether a fold has finished, what it monitored, means and files are the same for every task; what was judged, and by
which scores, its own implementation says: `folds_labels` for classifiers, `folds_answers` for readers,
`folds_targets` for several targets, `folds_conversations` for tuned language models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from doctune.reports.suspects import Suspect

if TYPE_CHECKING:
    import pyarrow as pa


class JudgedPart(Protocol):
    """The test part of one finished fold, or those of several as one, in the order of their files."""

    noun: ClassVar[str]
    """What was judged, such as "document"."""
    said: ClassVar[str]
    """What the model said of each, such as "prediction"."""
    metric_words: ClassVar[Mapping[str, str]]
    """The names of the scores, in words."""

    @classmethod
    def read(cls, run: Path) -> Self | None:
        """That of a run folder with a `predictions/test.parquet`; None when it has no rows.

        Raises:
            ArtifactError: a file is missing or damaged; the message names it.
        """

    @classmethod
    def pool(cls, parts: Sequence[Self]) -> Self:
        """Several as one; nothing is in two of them, and none differs from another."""

    @classmethod
    def test_metric(cls, metric: str) -> str:
        """The score of a test part that compares with a monitored metric such as `val/f1_macro`."""

    @property
    def ids(self) -> tuple[str, ...]:
        """What was judged, in the order of the rows."""

    def __len__(self) -> int: ...

    def named(self, row: int) -> str:
        """How a person finds what was judged, as the subject of a sentence."""

    def difference(self, other: Self) -> str:
        """Why the parts of two folds cannot be pooled, after the names of both; nothing where they can."""

    def scores(self) -> dict[str, Any]:
        """The scores with their 95 % intervals; how many were judged stands under the plural of `noun`."""

    def per_class(self) -> list[dict[str, Any]]:
        """Every label with its scores; nothing where there are no labels."""

    def suspects(self) -> list[Suspect] | None:
        """The labels that look wrong; None where there are no labels."""

    def table(self) -> pa.Table:
        """A row for each that was judged; its first two columns say what that is."""
