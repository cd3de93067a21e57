"""Where a question-answering model goes wrong: its scores by kind of question, of answer and of error.

Every grouping puts each question into exactly one group. Groups come in the order in which they are listed here; those
that no question is in are left out. Scores are means over the questions of a group, as shares.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from doctune.text.sentences import sentence_around

QUESTION_WORDS = ("what", "who", "when", "where", "which", "why", "how many/much", "how", "other")
NO_ANSWER = "no answer"  # a question without references, or one whose place is not known
LENGTHS = ("1", "2", "3-5", "6-10", "over 10", NO_ANSWER)
POSITIONS = ("0-20 %", "20-40 %", "40-60 %", "60-80 %", "80-100 %", NO_ANSWER)
WINDOWS = ("1", "2", "3", "4+")
KINDS = (
    "exact",
    "answered the unanswerable",
    "no answer given",
    "boundary",
    "same sentence",
    "wrong type",
    "wrong sentence",
    "no overlap",
)
EXAMPLES = 3

_WORD = re.compile(r"\w+")
_WHO = ("who", "whom", "whose")
_MONTH_NAMES = """
    january february march april june july august september october november december
    jan feb mar apr jun jul aug sep sept oct nov dec
"""
_MONTHS = frozenset(_MONTH_NAMES.split())
_YEAR = re.compile(r"(?<![\w.,$€£¥-])[12]\d{3}s?(?![\w%]|[.,]\d)")
_NUMERALS = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred hundreds thousand thousands
    million millions billion billions trillion dozen dozens half third quarter percent once twice
"""
_NUMBER_WORDS = frozenset(_NUMERALS.split())
_FIRST_NUMERAL = re.compile(r"\W*\d")
_ARTICLES = ("a", "an", "the")


@dataclass(frozen=True)
class JudgedAnswer:
    """One question, what was answered, and how it scored.

    `reference_start` is where `references[0]` begins in the context; without references the question has no answer.
    `start` and `end` are the characters of the prediction in the context, None where it has no place or is empty.

    Raises:
        ValueError: `num_windows` is below 1, or only one of `start` and `end` is given.
    """

    id: str
    question: str
    context: str
    references: tuple[str, ...]
    reference_start: int | None
    prediction: str
    start: int | None
    end: int | None
    num_windows: int
    exact_match: float
    f1: float

    def __post_init__(self) -> None:
        if self.num_windows < 1:
            raise ValueError(f"question {self.id!r}: num_windows is {self.num_windows}, but there is at least 1.")
        if (self.start is None) is not (self.end is None):
            raise ValueError(f"question {self.id!r}: start and end belong together, one of them is None.")


@dataclass(frozen=True)
class GroupScore:
    """The mean scores of the questions in one group."""

    group: str
    count: int
    exact_match: float
    f1: float


@dataclass(frozen=True)
class KindScore(GroupScore):
    """One kind of error, with the ids of up to 3 questions, the first by id."""

    examples: tuple[str, ...]


@dataclass(frozen=True)
class AnswerErrors:
    """All groupings of one set of questions."""

    by_question_word: tuple[GroupScore, ...]
    by_answer_length: tuple[GroupScore, ...]
    by_position: tuple[GroupScore, ...]
    by_num_windows: tuple[GroupScore, ...]
    by_kind: tuple[KindScore, ...]


def analyse(answers: Sequence[JudgedAnswer]) -> AnswerErrors:
    """Group the questions in all five ways; the result does not depend on their order."""
    return AnswerErrors(
        by_question_word=_grouped(answers, QUESTION_WORDS, lambda answer: question_word(answer.question)),
        by_answer_length=_grouped(answers, LENGTHS, answer_length),
        by_position=_grouped(answers, POSITIONS, answer_position),
        by_num_windows=_grouped(answers, WINDOWS, lambda answer: WINDOWS[min(answer.num_windows, len(WINDOWS)) - 1]),
        by_kind=_by_kind(answers),
    )


def question_word(question: str) -> str:
    """The first question word of the text, wherever it stands: "In which year …" is "which".

    "whom" and "whose" count as "who"; "how" directly before "many" or "much" is a group of its own.
    """
    words: list[str] = [word.lower() for word in _WORD.findall(question)]
    for word, following in itertools.zip_longest(words, words[1:]):
        if word in _WHO:
            return "who"
        if word == "how" and following in ("many", "much"):
            return "how many/much"
        if word in QUESTION_WORDS[:-1]:
            return word
    return "other"


def answer_length(answer: JudgedAnswer) -> str:
    """How many words, parted by white space, the first reference has."""
    if not answer.references:
        return NO_ANSWER
    num_words = len(answer.references[0].split())
    return LENGTHS[sum(num_words > most for most in (1, 2, 5, 10))]


def answer_position(answer: JudgedAnswer) -> str:
    """In which fifth of the context, by characters, the first reference begins."""
    if answer.reference_start is None or not answer.references:
        return NO_ANSWER
    return POSITIONS[min(4, 5 * answer.reference_start // max(1, len(answer.context)))]


def answer_type(text: str) -> str:
    """A coarse type, the first that fits: "date", "number", "name" or "other".

    date: a year from 1000 to 2999 or a decade standing alone ("in 1066", "1990s"), or the capitalised name of a month
    ("May" only beside a digit), or the word century. number: it begins with a digit, or has a digit or a number word
    and no capitalised word. name: it has a capitalised word other than an article. A year in "1500 men" is taken for a
    date, the first word of a sentence for a name.
    """
    words = _WORD.findall(text)
    if _is_date(text, words):
        return "date"
    capitals = [word for word in words if word[0].isupper() and word.lower() not in (*_ARTICLES, *_NUMBER_WORDS)]
    has_number = any(word.lower() in _NUMBER_WORDS or any(map(str.isdigit, word)) for word in words)
    if _FIRST_NUMERAL.match(text) or (has_number and not capitals):
        return "number"
    return "name" if capitals else "other"


def error_kind(answer: JudgedAnswer) -> str:
    """The first of these that holds.

    - exact: exact match 1, an unanswerable question left unanswered included.
    - answered the unanswerable: there is no reference.
    - no answer given: the prediction is blank.
    - boundary: the prediction overlaps a reference in the context.
    - same sentence: it lies in the sentence of a reference.
    - wrong type: its `answer_type` is that of no reference.
    - wrong sentence: it has the type of a reference and lies elsewhere.
    - no overlap: the same, where the place of the prediction or of the references is not known.

    Where a place is not known, sharing a word (F1 above 0) counts as an overlap. The first reference lies at
    `reference_start`; each other one where its text stands nearest to that.
    """
    if answer.exact_match == 1:
        return "exact"
    if not answer.references:
        return "answered the unanswerable"
    if not answer.prediction.strip():
        return "no answer given"
    is_of_type = answer_type(answer.prediction) in {answer_type(text) for text in answer.references}
    if answer.start is None or answer.end is None or answer.reference_start is None:
        if answer.f1 > 0:
            return "boundary"
        return "no overlap" if is_of_type else "wrong type"
    places = _reference_places(answer.context, answer.references, answer.reference_start)
    if any(answer.start < high and low < answer.end for low, high in places):
        return "boundary"
    sentences = [sentence_around(answer.context, low, high) for low, high in places]
    if any(low <= answer.start and answer.end <= high for low, high in sentences):
        return "same sentence"
    return "wrong sentence" if is_of_type else "wrong type"


def _is_date(text: str, words: Sequence[str]) -> bool:
    lowered = {word.lower() for word in words if word[0].isupper()}
    is_in_may = "may" in lowered and any(map(str.isdigit, text))
    return bool(_YEAR.search(text)) or is_in_may or bool(_MONTHS & lowered) or bool({"century", "centuries"} & {*words})


def _reference_places(context: str, references: Sequence[str], start: int) -> list[tuple[int, int]]:
    """The characters of each reference that stands in the context."""
    places = {(start, min(len(context), start + len(references[0])))}
    for text in references[1:]:
        before, after = context.rfind(text, 0, start + len(text)), context.find(text, start)
        found = [place for place in (before, after) if place >= 0]
        if text and found:
            nearest = min(found, key=lambda place: abs(place - start))
            places.add((nearest, nearest + len(text)))
    return sorted(places)


def _grouped(
    answers: Iterable[JudgedAnswer], groups: Sequence[str], group_of: Callable[[JudgedAnswer], str]
) -> tuple[GroupScore, ...]:
    return tuple(GroupScore(group, *_means(members)) for group, members in _members(answers, groups, group_of))


def _by_kind(answers: Iterable[JudgedAnswer]) -> tuple[KindScore, ...]:
    return tuple(
        KindScore(kind, *_means(members), examples=tuple(sorted(one.id for one in members)[:EXAMPLES]))
        for kind, members in _members(answers, KINDS, error_kind)
    )


def _members(
    answers: Iterable[JudgedAnswer], groups: Sequence[str], group_of: Callable[[JudgedAnswer], str]
) -> list[tuple[str, list[JudgedAnswer]]]:
    """The answers of each group that has any, in the order of the groups."""
    members: dict[str, list[JudgedAnswer]] = {group: [] for group in groups}
    for answer in answers:
        members[group_of(answer)].append(answer)
    return [(group, found) for group, found in members.items() if found]


def _means(members: Sequence[JudgedAnswer]) -> tuple[int, float, float]:
    """Count, exact match and F1; summed exactly, so that the order does not matter."""
    count = len(members)
    exact, f1 = (
        math.fsum(values) / count for values in zip(*((one.exact_match, one.f1) for one in members), strict=True)
    )
    return count, exact, f1
