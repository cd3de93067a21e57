"""Why a model said what it said: the records that `doctune explain` shows, and how word pieces become words."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from doctune.decode.multi_task import TargetPrediction
from doctune.documents import Answer, Prediction

# Above it an attribution is computed again with more steps, and a reader of it is warned.
MAX_RELATIVE_DELTA = 0.05
# The points of the quadrature are the eigenvalues of a matrix of so many rows: more take longer than the net does.
MOST_STEPS = 2000
# A letter, digit or underscore of a script that puts blanks between words; in Thai, Lao, Burmese, Khmer, Chinese,
# Japanese and Yi a token stands for itself.
_WORD_LETTER = re.compile(
    r"(?![\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\ua4cf\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff])\w"
)


@dataclass(frozen=True)
class Piece:
    """The characters from `start` up to `end` of a text, a token or a word, and what they add to the score."""

    start: int
    end: int
    attribution: float


@dataclass(frozen=True)
class Passage:
    """A part of what the model read.

    Attributes:
        name: what it is: text, question, context, or chunk with its number.
        text: its characters.
        start: the place of the first of them in the document, or in the question.
        tokens: in order, with places in the document; special tokens are left out, since they add nothing.
        words: the same, with the tokens of a word summed.
    """

    name: str
    text: str
    start: int
    tokens: tuple[Piece, ...]
    words: tuple[Piece, ...]

    def characters(self, piece: Piece) -> str:
        """What stands where a token or a word of this passage is."""
        return self.text[piece.start - self.start : piece.end - self.start]


@dataclass(frozen=True)
class Completeness:
    """Whether attributions add up to what they explain (Sundararajan et al. 2017, section 3, axiom of completeness).

    Attributes:
        score: of the text as it is, a logit.
        baseline_score: the same with the baseline's tokens.
        total: the sum of all attributions, which should be the difference of the two.
        steps: points between baseline and text at which gradients were taken.
    """

    score: float
    baseline_score: float
    total: float
    steps: int

    @property
    def difference(self) -> float:
        """What the text adds to the score of its baseline."""
        return self.score - self.baseline_score

    @property
    def delta(self) -> float:
        """By how much the attributions miss the difference."""
        return self.total - self.difference

    @property
    def relative_delta(self) -> float | None:
        """The size of `delta` as a share of that of `difference`; None where that is 0 and `delta` is not."""
        if self.delta == 0:
            return 0.0
        return abs(self.delta / self.difference) if self.difference else None

    @property
    def holds(self) -> bool:
        """Whether they miss it by at most 5 %."""
        return self.relative_delta is not None and self.relative_delta <= MAX_RELATIVE_DELTA


@dataclass(frozen=True)
class Attribution:
    """What every word adds to one score.

    Attributes:
        scalar: which score, in words.
        probability: what the score becomes in a softmax over its rivals, or in a sigmoid where it has none.
        baseline_probability: the same with the baseline's tokens.
        completeness: whether the attributions add up.
        passages: what was read.
    """

    scalar: str
    probability: float
    baseline_probability: float
    completeness: Completeness
    passages: tuple[Passage, ...]


@dataclass(frozen=True)
class ChunkWeight:
    """How much a chunk counts in its document (the weights of all have sum 1), and where and how it begins.

    `number` counts from 1 among the chunks that were read.
    """

    number: int
    weight: float
    start: int
    end: int
    opening: str


@dataclass(frozen=True)
class Explanation:
    """Why one document has its label, or its answer.

    Attributes:
        path: of the document, or what stands for a text that was typed.
        num_chars: characters of its text, of which the model may have read the beginning only.
        outcome: what the model predicts or answers.
        subject: the label that is explained, or the question.
        attributions: one for a label, start and end for an answer, one per chunk for a long document.
        chunks: of a long document, the ones that count most first.
        notes: sentences about what is unusual.
    """

    path: str
    num_chars: int
    outcome: Prediction | TargetPrediction | Answer
    subject: str
    attributions: tuple[Attribution, ...]
    chunks: tuple[ChunkWeight, ...] = ()
    notes: tuple[str, ...] = ()


def passage(name: str, text: str, tokens: Sequence[Piece]) -> Passage:
    """The passage of a text that its tokens, at least one and in order, stand for."""
    start, end = min(token.start for token in tokens), max(token.end for token in tokens)
    return Passage(name, text[start:end], start, tuple(tokens), merge_words(text, tokens))


def merge_words(text: str, tokens: Sequence[Piece]) -> tuple[Piece, ...]:
    """The tokens of each word of a text as one piece, attributions summed.

    A word is a run of letters, digits and underscores, however the tokenizer cuts it. Everything else is a piece as the
    tokenizer has it; tokens that share characters, such as the bytes of an emoji, are one.
    """
    groups: list[list[Piece]] = []
    group_end = -1
    for token in tokens:
        if not groups or token.start >= group_end:
            groups.append([])
        groups[-1].append(token)
        group_end = max(group_end, _end_of_word(text, token))
    return tuple(_merged(group) for group in groups)


def _end_of_word(text: str, token: Piece) -> int:
    """Where the word ends in which a token ends; the token's end where that is between words."""
    end = token.end
    if end > token.start and _WORD_LETTER.match(text, end - 1):
        while end < len(text) and _WORD_LETTER.match(text, end):
            end += 1
    return end


def _merged(tokens: Sequence[Piece]) -> Piece:
    start, end = min(token.start for token in tokens), max(token.end for token in tokens)
    return Piece(start, end, math.fsum(token.attribution for token in tokens))
