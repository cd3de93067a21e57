"""A question and its context -> overlapping windows of token ids with the place of every token in the context.

Training and inference cut their windows here, so that they agree. Shapes: T tokens of a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

# The most special tokens around a pair of texts: RoBERTa's <s> question </s></s> context </s>.
_SPECIAL_TOKENS = 4


@dataclass(frozen=True)
class WindowSettings:
    """How questions and contexts are cut.

    Attributes:
        max_length: tokens of a window, question and special tokens included.
        doc_stride: tokens of the context that neighbouring windows share.
        max_question_length: a longer question is cut after so many tokens.
        question_first: False where the tokenizer pads on the left: the context comes first then, as XLNet was trained.
    """

    max_length: int = 384
    doc_stride: int = 128
    max_question_length: int = 64
    question_first: bool = True

    def problem(self) -> str | None:
        """Why windows cannot be cut like this; None where they can."""
        room = self.max_length - self.max_question_length - _SPECIAL_TOKENS
        if room < 1:
            return (
                f"data.max_length={self.max_length} leaves no room for a context beside questions of up to "
                f"data.max_question_length={self.max_question_length} tokens: raise it above "
                f"{self.max_question_length + _SPECIAL_TOKENS}, or lower data.max_question_length."
            )
        if self.doc_stride < room:
            return None
        return (
            f"data.doc_stride={self.doc_stride} leaves windows no room to move on: with data.max_length="
            f"{self.max_length} and questions of up to data.max_question_length={self.max_question_length} tokens it "
            f"must be below {room}."
        )


@dataclass(frozen=True)
class QuestionWindow:
    """Token ids and types (T,), and for each token the characters of the context that it stands for, (T, 2).

    Tokens that are not of the context have the place (-1, -1).
    """

    ids: NDArray[np.int32]
    types: NDArray[np.uint8]
    places: NDArray[np.int32]

    def target(self, start: int, end: int) -> tuple[int, int] | None:
        """The first and the last token of an answer at these characters; None where it is not whole in the window."""
        inside = self.places[:, 0] >= 0
        first, last = self.places[inside, 0].min(initial=end), self.places[inside, 1].max(initial=start)
        touching = np.flatnonzero(inside & (self.places[:, 1] > start) & (self.places[:, 0] < end))
        if start < first or end > last or not len(touching):
            return None
        return int(touching[0]), int(touching[-1])


def question_windows(
    tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]], settings: WindowSettings
) -> list[list[QuestionWindow]]:
    """The windows of each (question, context), at least one. Uses all cores.

    The tokenizer's own truncation and padding are replaced.
    """
    questions = _shortened(tokenizer, [question for question, _ in pairs], settings.max_question_length)
    cut = "only_second" if settings.question_first else "only_first"
    tokenizer.no_padding()
    tokenizer.enable_truncation(settings.max_length, stride=settings.doc_stride, strategy=cut)
    contexts = [context for _, context in pairs]
    ordered = (questions, contexts) if settings.question_first else (contexts, questions)
    encodings = tokenizer.encode_batch([*zip(*ordered, strict=True)])
    sequence = 1 if settings.question_first else 0
    return [[_window(each, sequence) for each in (encoding, *encoding.overflowing)] for encoding in encodings]


def num_cut_questions(tokenizer: Tokenizer, questions: Sequence[str], max_question_length: int) -> int:
    """How many questions are longer than a window may show."""
    kept = _shortened(tokenizer, questions, max_question_length)
    return sum(short != question.strip() for short, question in zip(kept, questions, strict=True))


def _shortened(tokenizer: Tokenizer, questions: Sequence[str], max_tokens: int) -> list[str]:
    """Questions without the white space around them, and without what comes after their first `max_tokens` tokens."""
    tokenizer.no_padding()
    tokenizer.no_truncation()
    stripped = [question.strip() for question in questions]
    encodings = tokenizer.encode_batch(stripped, add_special_tokens=False)
    return [question[: _end(encoding, max_tokens)] for question, encoding in zip(stripped, encodings, strict=True)]


def _end(encoding: Encoding, max_tokens: int) -> int | None:
    """The character after the last one whose tokens are all among the first `max_tokens`; None where all of them are.

    A character of several tokens is not cut, for it would have all of them again when the rest is tokenised.
    """
    if len(encoding.ids) <= max_tokens:
        return None
    next_start = encoding.offsets[max_tokens][0]
    return max((end for _, end in encoding.offsets[:max_tokens] if end <= next_start), default=0)


def _window(encoding: Encoding, context: int) -> QuestionWindow:
    places = np.array(encoding.offsets, dtype=np.int32).reshape(-1, 2)
    outside = [sequence != context for sequence in encoding.sequence_ids]
    places[outside] = -1
    return QuestionWindow(np.array(encoding.ids, np.int32), np.array(encoding.type_ids, np.uint8), places)
