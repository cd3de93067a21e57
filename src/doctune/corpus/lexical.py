"""The lexical baseline of question answering: no model, only counted words.

The sentence of the context that shares the rarest words with the question holds the answer. The answer is, of the runs
of rare words in it that the question does not have, the one that is rarest altogether, of at most 3 words. A word is
rare in the measure of its inverse document frequency over the sentences of all contexts; a run ends at punctuation and
at words that stand in more than 1 sentence of 50.

Chosen on 30 training articles of SQuAD 1.1 (6,603 questions), then measured on 8 articles of its development set
(2,080), F1 and exact match in %:

| answer                                                 | training   | development |
|--------------------------------------------------------|------------|-------------|
| the sentence                                           | 19.5 / 0.3 | 19.2 / 0.1  |
| its longest run of at most 5 words not in the question | 17.4 / 2.5 | 17.2 / 2.5  |
| its rarest run of at most 3 words (this one)           | 19.8 / 9.2 | 18.8 / 9.6  |

With the words of the training contexts counted too it reaches 20.0 / 10.4 on the development set.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from doctune.corpus.squad import Question

_WORD = re.compile(r"\w+(?:[.,'’-]\w+)*")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]*[A-Z0-9])|\n+")
_MAX_WORDS = 3
_FREQUENT = 0.02


class _Word(NamedTuple):
    start: int
    end: int
    text: str


class _Sentence(NamedTuple):
    start: int
    end: int
    words: tuple[_Word, ...]


class SentenceCounts:
    """In how many sentences of some contexts each word stands."""

    def __init__(self, contexts: Iterable[str]) -> None:
        self.sentences = {context: _sentences(context) for context in contexts}
        self._counts: Counter[str] = Counter()
        for sentences in self.sentences.values():
            for sentence in sentences:
                self._counts.update({word.text for word in sentence.words})
        self._total = sum(map(len, self.sentences.values()))

    def weight(self, word: str) -> float:
        """The inverse document frequency, log(1 + N / n); that of an unknown word is that of a word counted once."""
        return math.log(1 + self._total / max(1, self._counts[word]))

    def is_frequent(self, word: str) -> bool:
        """Whether it stands in more than 1 sentence of 50."""
        return self._counts[word] > _FREQUENT * self._total


def lexical_answers(questions: Sequence[Question], known: Iterable[str] = ()) -> list[str]:
    """An answer for each question, from its context; words are counted in those contexts and the `known` ones.

    Impossible questions are answered, too.
    """
    counts = SentenceCounts(dict.fromkeys([*known, *(question.context for question in questions)]))
    return [best_span(question.text, question.context, counts) for question in questions]


def best_span(question: str, context: str, counts: SentenceCounts) -> str:
    """The answer to one question: a run of words of the context, a whole sentence where it has no run, or ""."""
    sentences = counts.sentences.get(context) or _sentences(context)
    if not sentences:
        return ""
    asked = {word.text for word in _words(question, 0, len(question))}
    best = max(sentences, key=lambda sentence: _overlap(sentence, asked, counts))
    runs = [run[:_MAX_WORDS] for run in _runs(context, best, asked, counts)]
    if not runs:
        return context[best.start : best.end]
    run = max(runs, key=lambda run: sum(counts.weight(word.text) for word in run))
    return context[run[0].start : run[-1].end]


def _overlap(sentence: _Sentence, asked: set[str], counts: SentenceCounts) -> float:
    # fsum: the sum of a set must not depend on the order in which the set gives its words
    return math.fsum(counts.weight(word) for word in {word.text for word in sentence.words} & asked)


def _runs(context: str, sentence: _Sentence, asked: set[str], counts: SentenceCounts) -> list[list[_Word]]:
    """The runs of rare words that are not asked for."""
    runs: list[list[_Word]] = [[]]
    for word in sentence.words:
        if runs[-1] and context[runs[-1][-1].end : word.start].strip():
            runs.append([])
        if word.text in asked or counts.is_frequent(word.text):
            runs.append([])
        else:
            runs[-1].append(word)
    return [run for run in runs if run]


def _sentences(context: str) -> tuple[_Sentence, ...]:
    """The sentences with words, by a full stop before a capital letter or a digit, and by line ends."""
    starts = [0, *(end.end() for end in _SENTENCE_END.finditer(context))]
    ends = [*(end.start() for end in _SENTENCE_END.finditer(context)), len(context)]
    found = (_Sentence(a, b, tuple(_words(context, a, b))) for a, b in zip(starts, ends, strict=True))
    return tuple(sentence for sentence in found if sentence.words)


def _words(text: str, start: int, end: int) -> list[_Word]:
    return [_Word(m.start(), m.end(), m.group().lower()) for m in _WORD.finditer(text, start, end)]
