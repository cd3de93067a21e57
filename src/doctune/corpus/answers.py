"""Spans of windows -> the answer to each question of a part, and the file that keeps them.

Shapes: Q questions, W windows, N spans of all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doctune.corpus.squad import Question
from doctune.decode.answers import MergedSpans, WindowSpans, choose_no_answer_threshold, merge_questions
from doctune.files import written_whole
from doctune.scoring.squad import Version, score_answers, token_f1

N_BEST = 5


@dataclass(frozen=True)
class Answers:
    """What answers the questions of a part, in their order.

    Attributes:
        questions: (Q,).
        spans: that may answer them.
        num_windows: of each question, (Q,).
        is_given: False where no answer is the answer, (Q,).
    """

    questions: Sequence[Question]
    spans: MergedSpans
    num_windows: NDArray[np.int64]
    is_given: NDArray[np.bool_]

    @property
    def given(self) -> NDArray[np.integer[Any]]:
        """The spans that are answers, one for each question that has one."""
        return self.spans.firsts[:-1][self.is_given]

    @cached_property
    def texts(self) -> list[str]:
        """The answers, "" for none."""
        starts, ends = self.spans.starts[self.given], self.spans.ends[self.given]
        places = iter(zip(starts.tolist(), ends.tolist(), strict=True))
        return [
            question.context[slice(*next(places))] if is_given else ""
            for question, is_given in zip(self.questions, self.is_given.tolist(), strict=True)
        ]


def answer_all(
    questions: Sequence[Question], windows: WindowSpans, owners: NDArray[np.int64], threshold: float | None
) -> Answers:
    """The answers to questions, in their order.

    Args:
        questions: (Q,).
        windows: of all questions, in any order.
        owners: the question of each window, (W,).
        threshold: no answer is given where the score of none is so much above the best span's; None always answers.
    """
    spans = merge_questions(windows, owners, len(questions), allows_no_answer=threshold is not None)
    is_given = np.diff(spans.firsts) > 0
    if threshold is not None:
        is_given &= _null_minus_best(spans) <= threshold
    return Answers(questions, spans, np.bincount(owners, minlength=len(questions)), is_given)


def no_answer_threshold(questions: Sequence[Question], windows: WindowSpans, owners: NDArray[np.int64]) -> float:
    """The threshold that gives these questions the highest F1."""
    answers = answer_all(questions, windows, owners, threshold=None)
    return choose_no_answer_threshold(
        _null_minus_best(answers.spans),
        np.array([not question.is_impossible for question in questions]),
        np.array([token_f1(text, each.answers, "2.0") for text, each in zip(answers.texts, questions, strict=True)]),
    )


@contextmanager
def _small_pages() -> Iterator[None]:
    """Arrow's own allocator asks for huge pages, and to clear them takes longer than to write a file of answers."""
    import pyarrow as pa

    usual = pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    finally:
        pa.set_memory_pool(usual)


@_small_pages()
def write_answers(answers: Answers, path: Path, version: Version) -> None:
    """Write one row per question: the question itself, its answer, scores, and the best spans."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    questions, spans = answers.questions, answers.spans
    predictions = {each.id: text for each, text in zip(questions, answers.texts, strict=True)}
    scores = score_answers(predictions, {each.id: each.answers for each in questions}, version)

    def of_answer(values: NDArray[Any], type_: pa.DataType) -> pa.Array:
        column = np.zeros(len(questions), values.dtype)
        column[answers.is_given] = values[answers.given]
        return pa.array(column, type_, mask=~answers.is_given)

    probabilities = np.array(spans.null_probabilities)
    probabilities[answers.is_given] = spans.probabilities[answers.given]
    table = pa.table(
        {
            "id": pa.array([each.id for each in questions], pa.string()),
            "article": pa.array([each.article for each in questions], pa.string()),
            "question": pa.array([each.text for each in questions], pa.string()),
            "context": pa.array([each.context for each in questions], pa.string()),
            "references": pa.array([each.answers for each in questions], pa.list_(pa.string())),
            "reference_start": pa.array([each.start for each in questions], pa.int32()),
            "prediction": pa.array(answers.texts, pa.string()),
            "start": of_answer(spans.starts, pa.int32()),
            "end": of_answer(spans.ends, pa.int32()),
            "score": of_answer(spans.scores, pa.float32()),
            "probability": pa.array(probabilities, pa.float32()),
            "null_score": pa.array(spans.null_scores, pa.float32()),
            "windows": pa.array(answers.num_windows, pa.int32()),
            "n_best": _n_best(questions, spans),
            "exact_match": pa.array(scores.exact_match, pa.float32()),
            "f1": pa.array(scores.f1, pa.float32()),
        }
    )
    with written_whole(path) as temporary:
        pq.write_table(table, temporary, use_dictionary=["article", "context"])  # the columns that repeat themselves


def _n_best(questions: Sequence[Question], spans: MergedSpans) -> Any:
    """The best spans of each question, as a column of lists."""
    import pyarrow as pa

    counts = np.diff(spans.firsts)
    owners = np.repeat(np.arange(len(questions)), counts)
    kept = np.arange(len(owners)) - spans.firsts[owners] < N_BEST
    starts, ends = spans.starts[kept], spans.ends[kept]
    places = zip(owners[kept].tolist(), starts.tolist(), ends.tolist(), strict=True)
    columns = {
        "text": pa.array([questions[owner].context[start:end] for owner, start, end in places], pa.string()),
        "start": pa.array(starts, pa.int32()),
        "end": pa.array(ends, pa.int32()),
        "score": pa.array(spans.scores[kept], pa.float32()),
        "probability": pa.array(spans.probabilities[kept], pa.float32()),
    }
    offsets = np.concatenate([[0], np.cumsum(np.minimum(counts, N_BEST))])
    return pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()), pa.StructArray.from_arrays([*columns.values()], names=[*columns])
    )


def _null_minus_best(spans: MergedSpans) -> NDArray[np.float64]:
    """The score of giving no answer above that of the best span, inf where there is none, (Q,)."""
    found = np.diff(spans.firsts) > 0
    differences = np.full(len(found), np.inf)
    differences[found] = spans.null_scores[found] - spans.scores[spans.firsts[:-1][found]]
    return differences
