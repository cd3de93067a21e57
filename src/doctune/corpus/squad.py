"""Questions about texts, in the official JSON of SQuAD 1.1 and 2.0 -> records.

Every question of a file ends either in `SquadFile.questions` or, with the reason, in `SquadFile.rejected`. What spoils
the file as a whole (missing, no JSON, of another layout, without one usable question) is a DataError.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from doctune.corpus.duplicates import text_groups
from doctune.corpus.values import kind_in_words
from doctune.errors import DataError

VERSIONS = ("1.1", "2.0")
_VERSION = re.compile(r"[vV]?([12])(\.\d+)?")
_SHOWN_CHARS = 60


@dataclass(frozen=True, slots=True)
class Question:
    """One question; those of a paragraph share one `context` object.

    Attributes:
        article: the title of the article that the context stands in.
        answers: all reference answers as the file has them, repeated ones too; () where `is_impossible`.
        start: the character of the context at which the first answer starts; None where it does not stand where the
            file says, or the question is impossible.
    """

    id: str
    article: str
    context: str
    text: str
    answers: tuple[str, ...]
    start: int | None
    is_impossible: bool

    @property
    def content(self) -> str:
        """What identifies all that a model is shown and judged by; computed at each call."""
        shown = [self.context, self.text, self.answers, self.start]
        return hashlib.sha256(json.dumps(shown).encode()).hexdigest()

    @property
    def is_trainable(self) -> bool:
        """Whether it is known where the answer stands, or that there is none."""
        return self.is_impossible or self.start is not None


@dataclass(frozen=True)
class RejectedQuestion:
    """A question that cannot be used: `id` as far as it is known, else its place in the file, and the reason."""

    id: str
    article: str
    status: str
    reason: str


@dataclass(frozen=True)
class SquadFile:
    """All questions of a file, used and rejected, each in its order.

    `misaligned` says of each question whose first answer is not where the file says, what stands there instead.
    """

    path: Path
    version: str
    questions: tuple[Question, ...]
    rejected: tuple[RejectedQuestion, ...]
    misaligned: Mapping[str, str]


@dataclass(frozen=True)
class RawQuestion:
    """A question as a source has it, nothing checked yet.

    Attributes:
        place: where it stands, for messages.
        fields: a `context`, and what the JSON of a question has.
        problem: the status and the reason why what it stands in cannot be read, if so.
    """

    place: str
    article: str
    fields: Mapping[str, object]
    problem: tuple[str, str] | None = None


class _BadQuestionError(Exception):
    """A question that cannot be used: its status and reason."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def read_squad(path: Path) -> SquadFile:
    """Read a file in the official JSON layout: data > paragraphs > qas, version 1.1 or 2.0.

    A file without a version is of 2.0 if any of its questions has the key `is_impossible`. An article without a title
    is named after its first context. In a file of 2.0 a question without that key is impossible if it has no answer.

    Raises:
        DataError: there is no such file, it is not SQuAD's JSON, or none of its questions can be used.
    """
    document = _parse(path, _read_text(path))
    data = document.get("data") if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(data, list):
        raise DataError(
            f'{path} is not a SQuAD file: it has no list "data" of articles at its top. The official layout is '
            '{"version": "1.1", "data": [{"title": …, "paragraphs": [{"context": …, "qas": […]}]}]}.'
        )
    raw = list(_raw_questions(data))
    version = _version(path, document.get("version"), raw)
    return judge_questions(path, version, raw)


def judge_questions(path: Path, version: str, raw: Iterable[RawQuestion]) -> SquadFile:
    """The usable questions of a source, and the reason for every other.

    Raises:
        DataError: none can be used.
    """
    questions: dict[str, Question] = {}
    rejected: list[RejectedQuestion] = []
    misaligned: dict[str, str] = {}
    for found in raw:
        try:
            question, gap = _judge(found, version)
            if question.id in questions:
                raise _BadQuestionError("duplicate_id", f"{found.place}: an earlier question has the same id")
        except _BadQuestionError as problem:
            rejected.append(RejectedQuestion(_known_id(found), found.article, problem.status, str(problem)))
            continue
        questions[question.id] = question
        if gap:
            misaligned[question.id] = gap
    _require_questions(path, len(questions), rejected)
    return SquadFile(path, version, tuple(questions.values()), tuple(rejected), misaligned)


def shortened(text: str) -> str:
    """A text for a message: at most 60 characters of it, in quotes, so that blanks can be seen."""
    return repr(text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…")


def untitled(context: str) -> str:
    """The name of an article without a title, from one of its contexts."""
    return f"untitled-{text_groups([context.encode('utf-8', 'replace').decode()])[0][:8]}"


# --- the file ----------------------------------------------------------------------------------------------------


def _read_text(path: Path) -> str:
    if path.is_dir():
        raise DataError(f"{path} is a folder; name the JSON file of questions in it.")
    if path.exists() and not path.is_file():
        raise DataError(f"{path} is neither a file nor a folder.")
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"There is no file of questions at {path}.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 (byte {error.start}: 0x{raw[error.start]:02x}); save it as UTF-8."
        ) from error


def _parse(path: Path, text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is not JSON: line {error.lineno}, column {error.colno}: {error.msg}.") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, lists in lists in lists
        raise DataError(f"{path} is not JSON that can be read: {error}.") from error


def _version(path: Path, found: object, raw: Iterable[RawQuestion]) -> str:
    if found is None or found == "":
        return VERSIONS["is_impossible" in {name for question in raw for name in question.fields}]
    known = _VERSION.fullmatch(str(found).strip())
    if known is None:
        raise DataError(
            f"{path} has version {shortened(str(found))}; versions 1.1 and 2.0 of SQuAD can be read. "
            "If the layout is the same, write one of these there."
        )
    return VERSIONS[int(known[1]) - 1]


def _require_questions(path: Path, num_usable: int, rejected: list[RejectedQuestion]) -> None:
    if num_usable:
        return
    if not rejected:
        raise DataError(f"{path} has no questions.")
    first = rejected[0]
    raise DataError(f"None of the {len(rejected)} questions of {path} can be used; the first: {first.reason}.")


# --- articles and paragraphs -------------------------------------------------------------------------------------


def _raw_questions(data: list[object]) -> Iterator[RawQuestion]:
    for number, article in enumerate(data, start=1):
        yield from _in_article(f"article {number}", article)


def _in_article(place: str, article: object) -> Iterator[RawQuestion]:
    """The questions of an article, or one row that says why it has none that can be read."""
    try:
        found = _object(article, place)
        paragraphs = _list(found, "paragraphs", place)
    except _BadQuestionError as problem:
        yield RawQuestion(place, "", {}, (problem.status, str(problem)))
        return
    has_title = found.get("title") not in (None, "")
    problem_of_all = _problem(lambda: _text(found, "title", place)) if has_title else None
    title = str(found["title"]) if has_title and not problem_of_all else _named_after(paragraphs)
    for number, paragraph in enumerate(paragraphs, start=1):
        yield from _in_paragraph(f"{place}, paragraph {number}", title, paragraph, problem_of_all)


def _in_paragraph(
    place: str, title: str, paragraph: object, problem_of_all: tuple[str, str] | None
) -> Iterator[RawQuestion]:
    try:
        found = _object(paragraph, place)
        questions = _list(found, "qas", place)
    except _BadQuestionError as problem:
        yield RawQuestion(place, title, {}, (problem.status, str(problem)))
        return
    problem_of_all = problem_of_all or _problem(lambda: _context(found, place))
    shared = {"context": found.get("context")}
    for number, question in enumerate(questions, start=1):
        here = f"{place}, question {number}"
        if isinstance(question, dict):
            yield RawQuestion(here, title, question | shared, problem_of_all)
        else:
            yield RawQuestion(
                here, title, {}, ("wrong_type", f"{here} is {kind_in_words(question)} where an object belongs")
            )


def _problem(check: Callable[[], object]) -> tuple[str, str] | None:
    try:
        check()
    except _BadQuestionError as problem:
        return problem.status, str(problem)
    return None


def _named_after(paragraphs: Iterable[object]) -> str:
    for paragraph in paragraphs:
        if isinstance(paragraph, dict) and isinstance(paragraph.get("context"), str):
            return untitled(paragraph["context"])
    return "untitled"


# --- one question ------------------------------------------------------------------------------------------------


def _judge(raw: RawQuestion, version: str) -> tuple[Question, str]:
    """The question, and what stands where its first answer should ("" where that is right)."""
    if raw.problem:
        raise _BadQuestionError(*raw.problem)
    name, context = _text(raw.fields, "id", raw.place), _context(raw.fields, raw.place)
    text = _text(raw.fields, "question", raw.place)
    if not text.strip():
        raise _BadQuestionError("empty_question", f"{raw.place} has an empty 'question'")
    answers = _answers(raw)
    if _is_impossible(raw, version, bool(answers)):
        return Question(name, raw.article, context, text, (), None, True), ""
    references = tuple(reference for reference, _ in answers)
    if not any(reference.strip() for reference in references):
        what = "only empty answers" if references else "no answer"
        raise _BadQuestionError("no_answer", f"{raw.place} has {what}, and is not marked as impossible")
    gap = _misalignment(context, *answers[0])
    return Question(name, raw.article, context, text, references, None if gap else answers[0][1], False), gap


def _is_impossible(raw: RawQuestion, version: str, has_answers: bool) -> bool:
    found = raw.fields.get("is_impossible")
    if found is None:
        return version == "2.0" and not has_answers
    if not isinstance(found, bool):
        raise _wrong_type("is_impossible", raw.place, found, "true or false")
    if found and has_answers:
        raise _BadQuestionError("contradiction", f"{raw.place} is marked as impossible, yet has an answer")
    return found


def _answers(raw: RawQuestion) -> list[tuple[str, int]]:
    if raw.fields.get("answers") is None and raw.fields.get("is_impossible") is True:
        return []
    pairs = []
    for number, answer in enumerate(_list(raw.fields, "answers", raw.place), start=1):
        place = f"{raw.place}, answer {number}"
        found = _object(answer, place)
        start = _required(found, "answer_start", place)
        if isinstance(start, bool) or not isinstance(start, int):
            raise _wrong_type("answer_start", place, start, "a whole number")
        pairs.append((_text(found, "text", place, may_be_empty=True), start))
    return pairs


def _misalignment(context: str, answer: str, start: int) -> str:
    """Why this answer cannot be trained on; "" where the context has it at `start`."""
    if not answer.strip():
        return "its first answer is empty"
    if start >= 0 and context.startswith(answer, start):
        return ""
    if not 0 <= start < len(context):
        return f"answer_start is {start}, but the context has {len(context)} characters"
    there = context[start : start + len(answer)]
    return f"at character {start} stands {shortened(there)}, not {shortened(answer)}"


# --- fields ------------------------------------------------------------------------------------------------------


def _context(fields: Mapping[str, object], place: str) -> str:
    context = _text(fields, "context", place, may_be_empty=True)
    if not context.strip():
        raise _BadQuestionError("empty_context", f"{place} has an empty 'context'")
    return context


def _text(fields: Mapping[str, object], name: str, place: str, *, may_be_empty: bool = False) -> str:
    """The text of a field; a whole number counts as text in ids and titles, where people write them."""
    value = _required(fields, name, place)
    if isinstance(value, int) and not isinstance(value, bool) and name in ("id", "title"):
        return str(value)
    if not isinstance(value, str):
        raise _wrong_type(name, place, value, "text")
    if not value and name == "id":
        raise _BadQuestionError("missing_field", f"{place} has an empty 'id'")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        half = f"half a surrogate pair at character {error.start}"
        raise _BadQuestionError("not_text", f"{place}: {name!r} has {half}, which is no character") from None
    return value


def _list(fields: Mapping[str, object], name: str, place: str) -> list[object]:
    value = _required(fields, name, place)
    if not isinstance(value, list):
        raise _wrong_type(name, place, value, "a list")
    return value


def _object(value: object, place: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise _BadQuestionError("wrong_type", f"{place} is {kind_in_words(value)} where an object belongs")
    return value


def _required(fields: Mapping[str, object], name: str, place: str) -> object:
    if fields.get(name) is None:
        raise _BadQuestionError("missing_field", f"{place} has no {name!r}")
    return fields[name]


def _wrong_type(name: str, place: str, value: object, wanted: str) -> _BadQuestionError:
    return _BadQuestionError("wrong_type", f"{place}: {name!r} is {kind_in_words(value)} where {wanted} belongs")


def _known_id(raw: RawQuestion) -> str:
    name = raw.fields.get("id")
    is_name = isinstance(name, str | int) and not isinstance(name, bool) and name != ""
    return str(name).encode("utf-8", "replace").decode() if is_name else raw.place
