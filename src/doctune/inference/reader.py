"""Answers from texts, from an exported `model/` folder alone.

A text is read in overlapping windows, a batch at a time, and of each window only its few best spans are kept: memory
does not grow with the text beyond those and the text itself.

Shapes: B windows of a batch, T tokens, S spans of a window.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doctune.decode.answers import ScoredSpan, WindowSpans, joined, merge_spans
from doctune.decode.spans_numpy import best_spans
from doctune.documents import Answer, Document
from doctune.inference.artifact import Artifact, load_tokenizer
from doctune.inference.batches import padded
from doctune.inference.nets import Net
from doctune.text.questions import QuestionWindow, question_windows
from doctune.text.sentences import sentence_around

# Windows are cut from so many characters at once, and so many more that the next piece repeats.
PIECE_CHARS = 100_000
# No token is taken to be longer: WordPiece reads longer words as one unknown token.
_CHARS_PER_TOKEN = 100
# How far a blank is looked for at which to cut; where there is none, a word is cut.
_MAX_WORD_CHARS = 1000


class Reader:
    """An extractive reader ready to be asked.

    Args:
        artifact: settings of the model folder; `reading` among them.
        net: takes token ids and gives `start_logits` and `end_logits`.
        batch_size: windows per forward pass.

    Raises:
        ArtifactError: its tokenizer cannot be loaded.
    """

    def __init__(self, artifact: Artifact, net: Net, batch_size: int = 8) -> None:
        assert artifact.reading is not None, "only a reader comes here"
        self._reading = artifact.reading
        self._batch_size = batch_size
        self._tokenizer, self._special = load_tokenizer(artifact.folder)
        self._net = net

    def answer_all(
        self, questions: Sequence[str], documents: Iterable[Document], n_best: int = 1, threshold: float | None = None
    ) -> list[list[Answer]]:
        """The best answers to each question from all documents together, the best first; none where there is none.

        Documents are taken one at a time and none is kept. Candidates are the best spans of every window, as many as in
        training, so `n_best` changes no probability; they compete across documents by their scores (logits).

        Args:
            questions: what is asked.
            documents: those without text have no answer.
            n_best: answers to a question, at most.
            threshold: probability below which an answer is not given. None leaves it to the model: one that was trained
                to give no answer gives none where that is likely enough by the threshold chosen in training, any other
                one always answers.
        """
        searches = [_Search(n_best) for _ in questions]
        for document in documents:
            for question, search in zip(questions, searches, strict=True):
                if document.text:
                    search.add(document, joined(list(self._spans(question, document.text))))
        return [search.answers(self._reading.no_answer_threshold, threshold) for search in searches]

    def _spans(self, question: str, text: str) -> Iterator[WindowSpans]:
        """The best spans of the windows of a text, batch by batch."""
        windows = self.windows(question, text)
        while batch := list(islice(windows, self._batch_size)):
            pieces, cuts = zip(*batch, strict=True)
            yield _without_blanks(_moved(self._read(cuts), np.array(pieces)[:, None]), text)

    def windows(self, question: str, text: str) -> Iterator[tuple[int, QuestionWindow]]:
        """The windows of a text, each with the place in the text from which its own places count."""
        overlap = _CHARS_PER_TOKEN * self._reading.spans.max_answer_length
        for start, piece in cut(text, overlap):
            for window in question_windows(self._tokenizer, [(question, piece)], self._reading.windows)[0]:
                yield start, window

    def _read(self, windows: Sequence[QuestionWindow]) -> WindowSpans:
        places = self._padded([window.places for window in windows], -1)  # (B, T, 2)
        cls = self._padded([self._is_cls(window) for window in windows], 0).argmax(axis=1)  # (B,)
        found = self._net(
            {
                "input_ids": self._padded([window.ids for window in windows], self._special.pad),
                "attention_mask": self._padded([np.ones_like(window.ids) for window in windows], 0),
                "token_type_ids": self._padded([window.types for window in windows], 0),
            }
        )
        return best_spans(found["start_logits"], found["end_logits"], places, cls, self._reading.spans)

    def _is_cls(self, window: QuestionWindow) -> NDArray[np.bool_]:
        """Which tokens (T,) can stand for no answer: CLS tokens, or the first one where the model has none."""
        cls = self._special.cls
        return window.ids == cls if cls is not None else np.arange(len(window.ids)) == 0

    def _padded(self, rows: Sequence[NDArray[Any]], fill: int) -> NDArray[np.int64]:
        return padded(rows, fill, left=not self._reading.windows.question_first)  # as its tokenizer pads


class _Search:
    """The candidates for the answer to one question, from one document after another.

    Documents are thought of as laid end to end, so that their spans are merged and weighed like those of one text.
    """

    def __init__(self, n_best: int) -> None:
        self._n_best = n_best
        self._windows: list[WindowSpans] = []
        self._answers: dict[tuple[int, int], Answer] = {}
        self._length = 0

    def add(self, document: Document, windows: WindowSpans) -> None:
        """Take in a document; the best answers of all are among the best of each."""
        for span in merge_spans(windows, self._n_best):
            self._answers[span.start + self._length, span.end + self._length] = _answer(document, span)
        self._windows.append(_moved(windows, self._length))
        self._length += len(document.text)

    def answers(self, no_answer_threshold: float | None, threshold: float | None) -> list[Answer]:
        """What is to be given, see `Reader.answer_all`."""
        if not self._windows:
            return []
        windows = joined(self._windows)
        best = merge_spans(windows, self._n_best, allows_no_answer=no_answer_threshold is not None)
        if threshold is not None:
            best = [span for span in best if span.probability >= threshold]
        elif no_answer_threshold is not None and best:
            difference = float(windows.null_scores.min()) - best[0].score
            best = best if difference <= no_answer_threshold else []
        return [replace(self._answers[span.start, span.end], score=span.probability) for span in best]


def cut(text: str, overlap: int) -> Iterator[tuple[int, str]]:
    """A text in pieces, each with its place, cut at blanks; one piece where it is not much longer than PIECE_CHARS.

    A span of at most `overlap` characters is whole in at least one piece.
    """
    start = 0
    while len(text) - start > PIECE_CHARS + overlap:
        end = _blank_before(text, start + PIECE_CHARS + overlap)
        yield start, text[start:end]
        start = _blank_before(text, end - overlap)
    yield start, text[start:]


def _blank_before(text: str, place: int) -> int:
    """The last blank up to `place`, so that a word there is left whole; `place` itself within a very long word."""
    for near in range(place, place - _MAX_WORD_CHARS, -1):
        if text[near].isspace():
            return near
    return place


def _moved(spans: WindowSpans, by: int | NDArray[np.int64]) -> WindowSpans:
    """The same spans, counted from `by` characters earlier; one number for all windows, or one each, (W, 1)."""
    return spans._replace(starts=spans.starts.astype(np.int64) + by, ends=spans.ends.astype(np.int64) + by)


def _without_blanks(spans: WindowSpans, text: str) -> WindowSpans:
    """The same without spans that show nothing, such as a line break that is a token."""
    places = zip(spans.starts.ravel().tolist(), spans.ends.ravel().tolist(), strict=True)
    is_blank = np.array([not text[start:end].strip() for start, end in places]).reshape(spans.scores.shape)
    return spans._replace(scores=np.where(is_blank, -np.inf, spans.scores))


def _answer(document: Document, span: ScoredSpan) -> Answer:
    begin, finish = sentence_around(document.text, span.start, span.end)
    return Answer(
        text=document.text[span.start : span.end],
        score=span.probability,
        start=span.start,
        end=span.end,
        sentence=document.text[begin:finish],
        sentence_start=begin,
        path=document.path,
        page=document.page_at(span.start),
    )
