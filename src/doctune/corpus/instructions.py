"""Rows of a file -> conversations to learn from; the form of each row is found by its keys.

| form | keys | conversation |
|---|---|---|
| chat | messages: [{role, content}, …] | as it is; its last turn is the assistant's |
| prompt | prompt, completion | user, assistant |
| instruction | instruction, output, and input if there is one | user (instruction, empty line, input), assistant |
| question | question, answer | user, assistant |

Every row ends either in `InstructionFile.examples` or, with status, reason and line, in `InstructionFile.rejected`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from doctune.corpus.labelled_rows import RejectedRow
from doctune.corpus.tables import Record, read_table
from doctune.corpus.values import kind_in_words
from doctune.errors import DataError
from doctune.text.chat import ASSISTANT, ROLES, SYSTEM, USER, Message

# The keys of each form besides `input`; a row with the keys of several is of the first.
FORMS = {
    "chat": ("messages",),
    "prompt": ("prompt", "completion"),
    "instruction": ("instruction", "output"),
    "question": ("question", "answer"),
}
_INPUT = "input"
_KNOWN_KEYS = (
    "messages; prompt and completion; instruction and output, with input if there is one; or question and answer"
)
# JSON can spell one half of a character beyond U+FFFF, such as "\ud83d"; no UTF-8 can hold it.
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Instruction:
    """A conversation that ends with the assistant, its form, and where it stands, such as "train.jsonl:12"."""

    messages: tuple[Message, ...]
    form: str
    place: str

    @property
    def reference(self) -> str:
        """The assistant's last turn."""
        return self.messages[-1].content

    @property
    def spoken(self) -> str:
        """What is compared to find copies: all turns but the system's, which whole files share."""
        return "\n".join(message.content for message in self.messages if message.role != SYSTEM)


@dataclass(frozen=True)
class InstructionFile:
    """All rows of a file, used and rejected, each in its order."""

    path: Path
    examples: tuple[Instruction, ...]
    rejected: tuple[RejectedRow, ...]


class _BadRowError(Exception):
    """A row that cannot be used: its status and reason."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def read_instructions(path: Path) -> InstructionFile:
    """Read conversations, one to a line of JSON (or row of Parquet, CSV, TSV).

    A row is rejected that is no JSON object, lacks a key of its form, has a prompt or completion that is empty or not
    text, or is a chat of unknown roles, that the assistant begins or does not end.

    Raises:
        DataError: the file cannot be read, or none of its rows can be used.
    """
    examples: list[Instruction] = []
    rejected: list[RejectedRow] = []
    for record in read_table(path, ()).records:
        place = f"{path.name}:{record.line}"
        try:
            form, messages = _conversation(record)
            examples.append(Instruction(messages, form, place))
        except _BadRowError as problem:
            rejected.append(RejectedRow(place, problem.status, f"line {record.line}: {problem}"))
    if not examples:
        raise DataError(f"None of the {len(rejected)} rows of {path} can be used; the first: {rejected[0].reason}.")
    return InstructionFile(path, tuple(examples), tuple(rejected))


def _conversation(record: Record) -> tuple[str, tuple[Message, ...]]:
    if record.problem:
        raise _BadRowError("malformed", record.problem)
    form = _form(record.fields)
    if form == "chat":
        return form, _messages(record.fields["messages"])
    asked, answered = FORMS[form]
    prompt, completion = (_text(record.fields[key], f"{key!r}") for key in (asked, answered))
    if form == "instruction" and not _is_absent(record.fields, _INPUT):
        prompt = f"{prompt}\n\n{_text(record.fields[_INPUT], f'{_INPUT!r}')}"
    return form, (Message(USER, prompt), Message(ASSISTANT, completion))


def _form(fields: Mapping[str, object]) -> str:
    present = {key for key, value in fields.items() if value is not None}
    for form, keys in FORMS.items():
        if present.issuperset(keys):
            return form
    for keys in FORMS.values():
        if found := present.intersection(keys):
            (missing,) = set(keys) - found
            raise _BadRowError("missing_key", f"it has {found.pop()!r} and no {missing!r}")
    has = ", ".join(map(repr, fields)) or "none"
    raise _BadRowError("missing_key", f"its keys are {has}; needed are {_KNOWN_KEYS}")


def _is_absent(fields: Mapping[str, object], key: str) -> bool:
    value = fields.get(key)
    return value is None or (isinstance(value, str) and not value.strip())


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise _BadRowError("wrong_type", f"{what} is {kind_in_words(value)} where text belongs")
    if not value.strip():
        raise _BadRowError("empty", f"{what} has no text")
    if _SURROGATE.search(value):
        raise _BadRowError("malformed", f"{what} holds half of a surrogate pair, which is no character")
    return value


def _messages(value: object) -> tuple[Message, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise _BadRowError("wrong_type", f"'messages' is {kind_in_words(value)} where a list belongs")
    if not value:
        raise _BadRowError("empty", "'messages' is an empty list")
    messages = tuple(_message(each, f"message {number}") for number, each in enumerate(value, start=1))
    _check_turns([message.role for message in messages])
    return messages


def _message(value: object, what: str) -> Message:
    if not isinstance(value, Mapping):
        raise _BadRowError("wrong_type", f"{what} is {kind_in_words(value)} where an object belongs")
    for key in ("role", "content"):
        if value.get(key) is None:
            raise _BadRowError("missing_key", f"{what} has no {key!r}")
    role = value["role"]
    if role not in ROLES:
        raise _BadRowError("wrong_role", f"{what} has the role {role!r}; known are {', '.join(ROLES)}")
    return Message(str(role), _text(value["content"], f"{what} ({role})"))


def _check_turns(roles: Sequence[str]) -> None:
    if SYSTEM in roles[1:]:
        raise _BadRowError(
            "wrong_turns", f"message {roles.index(SYSTEM, 1) + 1} is the system's, which only the first may be"
        )
    if next(role for role in (*roles, "") if role != SYSTEM) != USER:
        raise _BadRowError("wrong_turns", "nothing is asked before the assistant speaks")
    if roles[-1] != ASSISTANT:
        raise _BadRowError("wrong_turns", f"its last turn is the {roles[-1]}'s; only the assistant's are learnt")
