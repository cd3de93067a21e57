"""Rows of a table -> labelled texts.

Every row of a file ends either in `LabelledFile.texts` or, with status, reason and line, in `LabelledFile.rejected`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from doctune.corpus.tables import Record, TableLayout, read_table
from doctune.corpus.targets import MULTI, DerivedTarget, LabelledText, Target, TargetColumn, check_targets
from doctune.corpus.values import kind_in_words
from doctune.errors import DataError


@dataclass(frozen=True)
class RowSettings:
    """Which columns of a table are read, and as what.

    Attributes:
        targets: what is learnt, in the order of the model's heads.
        text_column: the column of the text.
        id_column: the column that identifies a row; None: texts have the id "" until all tables are read.
        layout: of CSV and TSV.

    Raises:
        ConfigError: the targets contradict each other.
    """

    targets: tuple[Target, ...]
    text_column: str = "text"
    id_column: str | None = None
    layout: TableLayout = field(default_factory=TableLayout)

    def __post_init__(self) -> None:
        check_targets(self.targets)

    def columns(self) -> list[str]:
        """The columns that a table must have."""
        named = [self.text_column, *([self.id_column] if self.id_column else [])]
        return named + [target.source for target in self.targets if isinstance(target, TargetColumn)]


@dataclass(frozen=True)
class RejectedRow:
    """A row that cannot be used: where it stands, such as "train.tsv:12", the kind of the reason, and the reason."""

    place: str
    status: str
    reason: str


@dataclass(frozen=True)
class LabelledFile:
    """All rows of a table, used and rejected, each in its order."""

    path: Path
    texts: tuple[LabelledText, ...]
    rejected: tuple[RejectedRow, ...]


# JSON can spell one half of a character beyond U+FFFF, such as "\ud83d"; no UTF-8 can hold it.
_SURROGATE = re.compile("[\ud800-\udfff]")


class _BadRowError(Exception):
    """A row that cannot be used: its status and reason."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def read_labelled_rows(path: Path, settings: RowSettings) -> LabelledFile:
    """Read the labelled texts of a table.

    A target's value is missing where its field is absent, null or blank; a JSON list without elements says that no
    label applies. A row is rejected that is malformed, has no text, no id or one that an earlier row has, a label id
    that the names file does not name, a value of the wrong kind, or no target at all.

    Raises:
        DataError: the table cannot be read, lacks a column, or none of its rows can be used.
        ConfigError: see `read_table`.
    """
    table = read_table(path, settings.columns(), settings.layout)
    names = _Names(path.name)
    texts: list[LabelledText] = []
    rejected: list[RejectedRow] = []
    for record in table.records:
        try:
            texts.append(_judge(record, settings, names))
        except _BadRowError as problem:
            rejected.append(RejectedRow(names.place(record), problem.status, f"line {record.line}: {problem}"))
    if not texts:
        raise DataError(f"None of the {len(rejected)} rows of {path} can be used; the first: {rejected[0].reason}.")
    return LabelledFile(path, tuple(texts), tuple(rejected))


class _Names:
    """Places and ids of the rows of one file."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._line_of: dict[str, int] = {}

    def place(self, record: Record) -> str:
        return f"{self._file}:{record.line}"

    def id(self, record: Record, column: str) -> str:
        name = _id(record.fields, column)
        first = self._line_of.setdefault(name, record.line)
        if first != record.line:
            raise _BadRowError("duplicate_id", f"its id {name!r} is that of line {first}")
        return name


def _judge(record: Record, settings: RowSettings, names: _Names) -> LabelledText:
    if record.problem:
        raise _BadRowError("malformed", record.problem)
    text = _text(record.fields, settings.text_column)
    targets = _targets(record.fields, settings.targets)
    name = names.id(record, settings.id_column) if settings.id_column else ""
    return LabelledText(name, text, targets, names.place(record))


def _text(fields: Mapping[str, object], column: str) -> str:
    value = fields.get(column)
    if value is None or value == "":
        raise _BadRowError("empty", f"column {column!r} has no text")
    if not isinstance(value, str):
        raise _BadRowError("wrong_type", f"column {column!r} is {kind_in_words(value)} where text belongs")
    if not value.strip():
        raise _BadRowError("empty", f"column {column!r} has no text")
    if _SURROGATE.search(value):
        raise _BadRowError("malformed", f"column {column!r} holds half of a surrogate pair, which is no character")
    return value


def _id(fields: Mapping[str, object], column: str) -> str:
    value = fields.get(column)
    if isinstance(value, bool) or not isinstance(value, (str, int, type(None))):
        raise _BadRowError("wrong_type", f"column {column!r} is {kind_in_words(value)} where an id belongs")
    name = "" if value is None else str(value).strip()
    if not name:
        raise _BadRowError("no_id", f"column {column!r} has no id")
    return name


def _targets(fields: Mapping[str, object], targets: Sequence[Target]) -> dict[str, tuple[str, ...]]:
    columns = [target for target in targets if isinstance(target, TargetColumn)]
    given = {target.name: _labels(fields.get(target.source), target) for target in columns}
    found = {target.name: _derived(target, given) for target in targets if isinstance(target, DerivedTarget)} | given
    known = {target.name: found[target.name] for target in targets}
    kept = {name: labels for name, labels in known.items() if labels is not None}
    if not kept:
        raise _BadRowError("no_target", f"it has no label for any target ({', '.join(known)})")
    return kept


def _derived(target: DerivedTarget, given: Mapping[str, tuple[str, ...] | None]) -> tuple[str, ...] | None:
    labels = given[target.source]
    return None if labels is None else target.derive(labels)


def _labels(value: object, target: TargetColumn) -> tuple[str, ...] | None:
    """The label names of a field; None where it is missing."""
    if _is_missing(value):
        return None
    if target.kind == MULTI:
        return _label_set(value, target)
    if isinstance(value, list):
        raise _BadRowError(
            "wrong_type",
            f"column {target.source!r} is a list, but {target.name!r} has one label per text "
            f"(data.targets.{target.name}.kind=multi reads lists)",
        )
    return (_label(value, target),)


def _is_missing(value: object) -> bool:
    is_blank = isinstance(value, str) and not value.strip()
    return value is None or is_blank or (isinstance(value, float) and math.isnan(value))


def _label_set(value: object, target: TargetColumn) -> tuple[str, ...] | None:
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = _json_list(value, target)
    if isinstance(value, list):
        return _label_names(value, target)
    # Nothing but separators says as little as an empty field.
    return _label_names(value.split(target.separator) if isinstance(value, str) else [value], target) or None


def _label_names(values: Sequence[object], target: TargetColumn) -> tuple[str, ...]:
    return tuple(sorted({_label(value, target) for value in values if not _is_missing(value)}))


def _json_list(value: str, target: TargetColumn) -> object:
    """A list that stands as text in a CSV field; what only begins like one is a text with separators."""
    try:
        return json.loads(value)
    except ValueError:
        return value


def _label(value: object, target: TargetColumn) -> str:
    if isinstance(value, bool):
        value = str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # whole numbers of a column with gaps are written as 3.0
    if not isinstance(value, (str, int)):
        raise _BadRowError("wrong_type", f"column {target.source!r} holds {kind_in_words(value)} where a label belongs")
    label = str(value).strip()
    if not target.label_names:
        return label
    # isascii: "²" is a digit and no number
    if not (label.isascii() and label.isdigit() and int(label) < len(target.label_names)):
        file = target.names_file or "label_names"
        raise _BadRowError(
            "unknown_label",
            f"the label id {label!r} of {target.name!r}: {file} names 0 to {len(target.label_names) - 1}",
        )
    return target.label_names[int(label)]
