"""The answer to every judged question, as `predictions/<part>.parquet`.

Shapes: Q questions of a part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from doctune.corpus.answers import answer_all, no_answer_threshold, write_answers
from doctune.corpus.squad import Question
from doctune.decode.answers import WindowSpans
from doctune.scoring.squad import Version
from doctune.training.callbacks.judged import JudgedPartWriter


class AnswerWriter(JudgedPartWriter[list[WindowSpans]]):
    """Collects the spans of `trainer.validate` and `trainer.test` and writes answers in the order of the questions.

    Validation inside `fit` is not written. For SQuAD 2.0 the threshold of giving no answer is chosen on the validation
    questions, and the test questions are judged with it.

    Args:
        folder: where.
        questions: of the parts "val" and "test".
        version: of SQuAD.
        remember: is given the threshold, None for SQuAD 1.1.
    """

    def __init__(
        self,
        folder: Path,
        questions: Mapping[str, Sequence[Question]],
        version: Version,
        remember: Callable[[float | None], None],
    ) -> None:
        super().__init__()
        self._folder = folder
        self._questions = questions
        self._version: Version = version
        self._remember = remember
        self._threshold: float | None = None

    def collect(self, outputs: Any, batch: Any) -> None:
        """Keep the spans."""
        for place, spans in zip(batch["question"].tolist(), outputs["spans"], strict=True):
            self.kept.setdefault(place, []).append(spans)

    def together(self, shares: Sequence[dict[int, list[WindowSpans]]]) -> dict[int, list[WindowSpans]]:
        """The windows of a question may be in several shares."""
        places = {place for share in shares for place in share}
        return {place: [spans for share in shares for spans in share.get(place, [])] for place in places}

    def write(self, part: str) -> None:
        """Write the questions in their order; with the validation part the threshold is chosen."""
        if part == "val":
            if self._version == "2.0":
                self._threshold = no_answer_threshold(self._questions[part], self.kept)
            self._remember(self._threshold)
        answered = answer_all(self._questions[part], self.kept, self._threshold)
        write_answers(answered, self._folder / f"{part}.parquet", self._version)
