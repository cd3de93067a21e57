"""What a cascade is made of: stages, which answer texts with a label and how sure they are, or say why they do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from doctune.inference.engine import Engine


@dataclass(frozen=True)
class StageAnswer:
    """What one stage says of one text: a label with its score (0 to 1), or the reason why it has none.

    `probabilities` are in label order; None where a stage knows its own label's only.
    """

    label: str | None
    score: float
    probabilities: tuple[float, ...] | None = None
    reason: str = ""


def no_answer(reason: str) -> StageAnswer:
    """The answer of a stage that has none."""
    return StageAnswer(None, 0.0, reason=reason)


class Stage(Protocol):
    """Anything with a name that answers texts."""

    @property
    def name(self) -> str:
        """What answers and reasons call it."""

    def predict(self, texts: Sequence[str]) -> list[StageAnswer]:
        """One answer per text, in order; what goes wrong outside this program is a reason, not an error."""


class TransformerStage:
    """The run's own model, with calibrated scores."""

    name = "transformer"

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def predict(self, texts: Sequence[str]) -> list[StageAnswer]:
        """One answer per text, in order."""
        return [StageAnswer(each.label, each.score, each.probabilities) for each in self._engine.predict(texts)]
