"""The answer to every judged question, as `predictions/<part>.parquet`.

Shapes: Q questions of a part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from lightning import Callback, LightningModule, Trainer

from doctune.corpus.answers import answer_all, no_answer_threshold, write_answers
from doctune.corpus.squad import Question
from doctune.decode.answers import joined
from doctune.scoring.squad import Version
from doctune.training.collectives import gathered
from doctune.training.modules.question_answering import FoundSpans, QuestionAnsweringModule


class AnswerWriter(Callback):
    """Writes the answers that `trainer.validate` and `trainer.test` find in the order of the questions.

    Validation inside `fit` is not written: only what the best checkpoint says is. Of several processes each has found
    its share, and the main one writes them together. For SQuAD 2.0 the threshold of giving no answer is chosen on the
    validation questions, and the test questions are judged with it.

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

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the validation part."""
        if trainer.state.fn == "validate":
            self._finish("val", pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the test part."""
        self._finish("test", pl_module)

    def _finish(self, part: str, module: LightningModule) -> None:
        assert isinstance(module, QuestionAnsweringModule), "no other has answers"
        shares = gathered(module.found)
        if shares:  # the main process has them
            self.write(part, [found for share in shares for found in share])

    def write(self, part: str, found: Sequence[FoundSpans]) -> None:
        """Write the questions in their order; with the validation part the threshold is chosen."""
        spans, owners = zip(*found, strict=True)
        judged = self._questions[part], joined(spans), np.concatenate(owners)
        if part == "val":
            if self._version == "2.0":
                self._threshold = no_answer_threshold(*judged)
            self._remember(self._threshold)
        write_answers(answer_all(*judged, self._threshold), self._folder / f"{part}.parquet", self._version)
