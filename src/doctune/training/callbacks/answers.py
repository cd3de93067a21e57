"""The answer to every judged question, as `predictions/<part>.parquet`.

Shapes: Q questions of a part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from doctune.corpus.answers import answer_all, no_answer_threshold, write_answers
from doctune.corpus.squad import Question
from doctune.decode.answers import WindowSpans
from doctune.scoring.squad import Version


class AnswerWriter(Callback):
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
        self._folder = folder
        self._questions = questions
        self._version: Version = version
        self._remember = remember
        self._threshold: float | None = None
        self._spans: dict[int, list[WindowSpans]] = {}

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the spans of `trainer.validate`; the second loader has training questions."""
        if trainer.state.fn == "validate" and dataloader_idx == 0:
            self._collect(outputs, batch)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Keep the spans of `trainer.test`."""
        self._collect(outputs, batch)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write `val.parquet`."""
        if trainer.state.fn == "validate":
            if self._version == "2.0":
                self._threshold = no_answer_threshold(self._questions["val"], self._spans)
            self._remember(self._threshold)
            self._write("val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write `test.parquet`."""
        self._write("test")

    def _collect(self, outputs: Any, batch: Any) -> None:
        for place, spans in zip(batch["question"].tolist(), outputs["spans"], strict=True):
            self._spans.setdefault(place, []).append(spans)

    def _write(self, part: str) -> None:
        answered = answer_all(self._questions[part], self._spans, self._threshold)
        self._spans = {}
        write_answers(answered, self._folder / f"{part}.parquet", self._version)
