"""Spans of windows -> the answer to each question of a part, and the file that keeps them.

Shapes: Q questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from doctune.corpus.squad import Question
from doctune.decode.answers import (
    ScoredSpan,
    WindowSpans,
    choose_no_answer_threshold,
    merge_spans,
    no_answer_score,
)
from doctune.files import written_whole
from doctune.scoring.squad import Version, score_answers, token_f1

N_BEST = 5
Windows = Mapping[int, Sequence[WindowSpans]]


@dataclass(frozen=True)
class Answered:
    """A question with the spans that answer it best; `is_given` is False where no answer is the answer.

    `no_answer_probability` is what all spans, not only the best, leave over.
    """

    question: Question
    best: tuple[ScoredSpan, ...]
    null_score: float
    no_answer_probability: float
    num_windows: int
    is_given: bool

    @property
    def text(self) -> str:
        """The answer, "" for none."""
        return self.question.context[self.best[0].start : self.best[0].end] if self.is_given else ""


def answer_all(questions: Sequence[Question], windows: Windows, threshold: float | None) -> list[Answered]:
    """The answers to questions, in their order.

    Args:
        questions: (Q,).
        windows: place of a question -> the spans of its windows.
        threshold: no answer is given where the score of none is so much above the best span's; None always answers.
    """
    return [_answered(question, windows[place], threshold) for place, question in enumerate(questions)]


def no_answer_threshold(questions: Sequence[Question], windows: Windows) -> float:
    """The threshold that gives these questions the highest F1."""
    answered = answer_all(questions, windows, threshold=None)
    return choose_no_answer_threshold(
        np.array([_null_minus_best(each.best, each.null_score) for each in answered]),
        np.array([not question.is_impossible for question in questions]),
        np.array([token_f1(each.text, each.question.answers, "2.0") for each in answered]),
    )


def write_answers(answered: Sequence[Answered], path: Path, version: Version) -> None:
    """Write one row per question: the question itself, its answer, scores, and the best spans."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    predictions = {each.question.id: each.text for each in answered}
    scores = score_answers(predictions, {each.question.id: each.question.answers for each in answered}, version)
    table = pa.Table.from_pylist([_row(each) for each in answered], schema=_schema())
    for name in ("exact_match", "f1"):
        table = table.append_column(name, pa.array(getattr(scores, name), pa.float32()))
    with written_whole(path) as temporary:
        pq.write_table(table, temporary)


def _answered(question: Question, windows: Sequence[WindowSpans], threshold: float | None) -> Answered:
    num_spans = sum(len(window.scores) for window in windows)
    spans = merge_spans(windows, max(num_spans, 1), allows_no_answer=threshold is not None)
    best, none = tuple(spans[:N_BEST]), max(0.0, 1 - sum(span.probability for span in spans))
    null = no_answer_score(windows)
    is_given = bool(best) and (threshold is None or _null_minus_best(best, null) <= threshold)
    return Answered(question, best, null, none, len(windows), is_given)


def _null_minus_best(best: Sequence[ScoredSpan], null: float) -> float:
    return null - best[0].score if best else np.inf


def _row(answered: Answered) -> dict[str, Any]:
    question, first = answered.question, answered.best[0] if answered.is_given else None
    return {
        "id": question.id,
        "article": question.article,
        "question": question.text,
        "context": question.context,
        "references": list(question.answers),
        "reference_start": question.start,
        "prediction": answered.text,
        "start": first.start if first else None,
        "end": first.end if first else None,
        "score": first.score if first else None,
        "probability": first.probability if first else answered.no_answer_probability,
        "null_score": answered.null_score,
        "windows": answered.num_windows,
        "n_best": [{"text": question.context[span.start : span.end], **vars(span)} for span in answered.best],
    }


def _schema() -> Any:
    import pyarrow as pa

    span = [("text", pa.string()), ("start", pa.int32()), ("end", pa.int32())]
    span += [("score", pa.float32()), ("probability", pa.float32())]
    return pa.schema(
        [
            *((name, pa.string()) for name in ("id", "article", "question", "context")),
            ("references", pa.list_(pa.string())),
            ("reference_start", pa.int32()),
            ("prediction", pa.string()),
            *((name, pa.int32()) for name in ("start", "end")),
            *((name, pa.float32()) for name in ("score", "probability", "null_score")),
            ("windows", pa.int32()),
            ("n_best", pa.list_(pa.struct(span))),
        ]
    )
