"""The windows of questions on disk: cut once per tokenizer, settings and questions, then memory-mapped.

Shapes: Q questions, W windows of all of them, T tokens of a window.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from doctune.corpus.arrays import GrowingArray
from doctune.corpus.squad import Question
from doctune.corpus.store import mark_used
from doctune.corpus.tokens import definition
from doctune.files import written_whole
from doctune.text.questions import QuestionWindow, WindowSettings, question_windows

_QUESTIONS_PER_BATCH = 256
# What stands in place of a target's tokens: the window has no answer; nobody knows where it is.
NO_ANSWER, UNKNOWN = -1, -2
# name -> type and shape of a row; the first three have a row per token, the others per window.
_ARRAYS: dict[str, tuple[type, tuple[int, ...]]] = {
    "ids": (np.int32, ()),
    "types": (np.uint8, ()),
    "places": (np.int32, (2,)),
    "targets": (np.int32, (2,)),
    "questions": (np.int32, ()),
    "ends": (np.int64, ()),
}


class QuestionTokens:
    """The windows of a part's questions.

    `targets` (W, 2) are the first and last token of the answer that is trained on, or `NO_ANSWER`, or `UNKNOWN`;
    `questions` (W,) is the place of each window's question in the part.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ids, self._types, self._places, self.targets, self.questions, self._ends = (
            np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS
        )

    def __reduce__(self) -> tuple[type[QuestionTokens], tuple[Path]]:
        """A worker process maps the files again; pickling the maps would copy all of them."""
        return QuestionTokens, (self.folder,)

    def __len__(self) -> int:
        return len(self.questions)

    def window(self, number: int) -> QuestionWindow:
        """One window."""
        begin = self._ends[number - 1] if number else 0
        where = slice(begin, self._ends[number])
        return QuestionWindow(self._ids[where], self._types[where], self._places[where])

    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each window, (W,)."""
        return np.diff(self._ends, prepend=0)

    def num_windows(self) -> NDArray[np.int64]:
        """Windows of each question, (Q,)."""
        return np.bincount(self.questions)

    def num_context_tokens(self) -> NDArray[np.int64]:
        """Tokens of the context in each window, (W,)."""
        inside = np.concatenate([[0], np.cumsum(self._places[:, 0] >= 0)])
        return np.diff(inside[self._ends], prepend=0)


def tokenise_questions(
    cache: Path, tokenizer: Tokenizer, settings: WindowSettings, questions: Sequence[Question]
) -> QuestionTokens:
    """The windows of questions, from the cache where the same tokenizer has cut the same questions before."""
    folder = cache / "questions" / _key(tokenizer, settings, questions)
    if not (folder / "ends.npy").exists():  # named last: its presence means that all of it is there
        _write(folder, tokenizer, settings, questions)
    mark_used(folder)
    return QuestionTokens(folder)


def _key(tokenizer: Tokenizer, settings: WindowSettings, questions: Sequence[Question]) -> str:
    shaped_by = [asdict(settings), definition(tokenizer, settings.max_length)]
    digest = hashlib.sha256(json.dumps(shaped_by, sort_keys=True).encode())
    for question in questions:
        digest.update(question.content.encode())
    return digest.hexdigest()[:16]


def _write(folder: Path, tokenizer: Tokenizer, settings: WindowSettings, questions: Sequence[Question]) -> None:
    with ExitStack() as files:
        arrays: dict[str, GrowingArray] = {}
        for name, (dtype, row) in reversed(_ARRAYS.items()):  # they get their names in the order of `_ARRAYS`
            temporary = files.enter_context(written_whole(folder / f"{name}.npy"))
            arrays[name] = files.enter_context(GrowingArray(temporary, dtype, row))
        for number, window in _windows(tokenizer, settings, questions):
            arrays["types"].append(window.types)
            arrays["places"].append(window.places)
            arrays["targets"].append(_target(questions[number], window))
            arrays["questions"].append(number)
            arrays["ends"].append(arrays["ids"].append(window.ids))


def _windows(
    tokenizer: Tokenizer, settings: WindowSettings, questions: Sequence[Question]
) -> Iterator[tuple[int, QuestionWindow]]:
    for first in range(0, len(questions), _QUESTIONS_PER_BATCH):
        batch = questions[first : first + _QUESTIONS_PER_BATCH]
        cut = question_windows(tokenizer, [(each.text, each.context) for each in batch], settings)
        for number, windows in enumerate(cut, first):
            yield from ((number, window) for window in windows)


def _target(question: Question, window: QuestionWindow) -> tuple[int, int]:
    if question.is_impossible:
        return NO_ANSWER, NO_ANSWER
    if question.start is None:
        return UNKNOWN, UNKNOWN
    answer = question.answers[0]
    start = question.start + len(answer) - len(answer.lstrip())  # no token stands for the white space around it
    return window.target(start, start + len(answer.strip())) or (NO_ANSWER, NO_ANSWER)
