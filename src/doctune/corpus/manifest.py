"""A manifest -> labelled rows: CSV, TSV, JSON lines, Parquet, an SQLite query, or a folder per class.

A table without a column of paths may hold the texts themselves; they are then kept as files.

Every row of the source ends either in `Manifest.rows` or, with the reason, in `Manifest.rejected`. What spoils the
source as a whole (missing, undecodable, without the columns, with one class) is a DataError.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from doctune.corpus.inline_texts import inline_folder, keep_text
from doctune.corpus.manifest_tables import (
    SQLITE_SUFFIXES,
    ManifestColumns,
    ManifestRecord,
    read_manifest_table,
)
from doctune.corpus.scan import walk
from doctune.corpus.values import kind_in_words
from doctune.errors import ConfigError, DataError

# Raise it when the same source may give other rows: those that the cache has are then read again.
VERSION = 1
# Files that desktops leave in every folder they show; nobody labels them on purpose.
DESKTOP_FILES = frozenset({".ds_store", "thumbs.db", "desktop.ini"})


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled file: `path` is absolute, `confidence` lies in 0..1.

    `line` is where the row starts in the source, for messages: the line of a text file, else the number of the row,
    both from 1.
    """

    path: Path
    label: str
    confidence: float
    line: int


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that cannot be used: `path` and `label` as far as they are known, and the reason."""

    path: str
    label: str
    line: int
    reason: str


@dataclass(frozen=True)
class Manifest:
    """All rows of a source, used and rejected, each in the order of the source.

    Attributes:
        key: identifies the rows, used and rejected.
        holds_texts: whether the source holds the texts itself, so that `rows` name the files that were made of them.
    """

    rows: Sequence[Row]
    rejected: Sequence[Rejected]
    source: Path
    key: str
    holds_texts: bool = False


class _BadValueError(Exception):
    """A field that cannot be used; the message becomes the reason of the rejected row."""


def read_manifest(
    source: Path,
    *,
    columns: ManifestColumns | None = None,
    root: Path | None = None,
    query: str | None = None,
    min_classes: int = 2,
    texts: Path | None = None,
) -> Manifest:
    """Read the labelled rows of `source`, whose kind its suffix tells (or being a folder).

    Args:
        source: .csv, .tsv, .jsonl, .ndjson, .parquet, SQLite (.db, .sqlite, .sqlite3), or a folder of class folders.
        columns: the column names; by default path, label and confidence.
        root: what relative paths are relative to; None is the folder that holds the manifest.
        query: one SELECT that gives those columns; SQLite needs it, nothing else takes it.
        min_classes: fewer distinct labels than this are refused.
        texts: the folder below which the texts of a manifest that holds them itself are kept; None refuses those.

    Raises:
        DataError: the source is missing, unreadable, empty, lacks a column, or has too few classes.
        ConfigError: a query for a source that is not SQLite, or Parquet without pyarrow installed.
    """
    source, columns = Path(source), columns or ManifestColumns()
    if query and source.suffix.lower() not in SQLITE_SUFFIXES:
        raise ConfigError(f"data.query is for SQLite files, and {source} is none; leave it out.")
    holds_texts = False
    if source.is_dir():
        rows, rejected = _read_folder(source)
    else:
        table = read_manifest_table(source, columns, query)
        if columns.of(table.columns)[0] == columns.path:
            base = Path(root) if root is not None else source.parent
            place: _Place = _NamedFile(columns.path, Path(os.path.abspath(base)))
        else:
            place = _KeptText(columns.text, inline_folder(_required(texts, source, columns), source))
            holds_texts = True
        rows, rejected = _judge_all(table.records, columns, place)
    rows, repeats = _without_repeats(rows)
    rejected = sorted([*rejected, *repeats], key=lambda bad: bad.line)
    _require_classes(source, rows, rejected, columns, min_classes)
    return Manifest(tuple(rows), tuple(rejected), source, _key(rows, rejected), holds_texts)


# --- a folder per class ------------------------------------------------------------------------------------------


def _read_folder(source: Path) -> tuple[list[Row], list[Rejected]]:
    """The first folder below `source` is the label; `line` numbers the entries in the order of their names."""
    rows, rejected = [], []
    for number, entry in enumerate(walk(source), start=1):
        label, _, below = entry.relative.partition("/")
        reason = _folder_reason(entry.reason, below, entry.path)
        if reason:
            rejected.append(Rejected(entry.path, label if below else "", number, reason))
        else:
            rows.append(Row(Path(entry.path), label, 1.0, number))
    if not rows and not rejected:
        raise DataError(f"The folder {source} is empty; it needs one folder of files per class.")
    return rows, rejected


def _folder_reason(reason: str, below: str, path: str) -> str:
    if reason:
        return reason.replace("_", " ")
    if os.path.basename(path).lower() in DESKTOP_FILES:
        return "is a file of the desktop, not a document"
    return "" if below else "lies directly in the folder, not in one of its class folders"


# --- rows --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _NamedFile:
    """Rows name their files in a column; relative paths start at the root."""

    column: str
    root: Path

    def of(self, record: ManifestRecord) -> Path:
        """The file of a row."""
        return Path(os.path.normpath(os.path.join(self.root, _text(record.fields, self.column))))

    def named(self, record: ManifestRecord) -> str:
        """The same as far as it is known, for a row that is rejected."""
        return str(record.fields.get(self.column) or "")


@dataclass(frozen=True, slots=True)
class _KeptText:
    """Rows hold their texts in a column; each is kept as a file named by its line."""

    column: str
    folder: Path

    def of(self, record: ManifestRecord) -> Path:
        """The file of a row, which is written."""
        text, path = _text(record.fields, self.column), Path(self.named(record))
        try:
            keep_text(text, path)
        except UnicodeEncodeError:
            raise _BadValueError(f"column {self.column!r} holds half of a surrogate pair") from None
        return path

    def named(self, record: ManifestRecord) -> str:
        """Where its text would be."""
        return str(self.folder / f"{record.line}.txt")


_Place = _NamedFile | _KeptText


def _required(texts: Path | None, source: Path, columns: ManifestColumns) -> Path:
    if texts is None:
        raise DataError(
            f"{source} holds texts (column {columns.text!r}), and here files are needed: a column {columns.path!r}."
        )
    return texts


def _judge_all(
    records: Iterable[ManifestRecord], columns: ManifestColumns, place: _Place
) -> tuple[list[Row], list[Rejected]]:
    rows, rejected = [], []
    for record in records:
        judged = _judge(record, columns, place)
        if isinstance(judged, Row):
            rows.append(judged)
        else:
            rejected.append(judged)
    return rows, rejected


def _judge(record: ManifestRecord, columns: ManifestColumns, place: _Place) -> Row | Rejected:
    fields = record.fields
    try:
        if record.problem:
            raise _BadValueError(record.problem)
        path, label = place.of(record), _text(fields, columns.label).strip()
        confidence = _confidence(fields, columns.confidence)
        return Row(path, label, confidence, record.line)
    except _BadValueError as problem:
        label = str(fields.get(columns.label) or "")
        return Rejected(place.named(record), label, record.line, f"row {record.line}: {problem}")


def _text(fields: Mapping[str, object], column: str) -> str:
    """The text of a field that must have one; whole numbers count as text, since labels are often ids."""
    value = fields.get(column)
    if value is None or value == "":
        raise _BadValueError(f"column {column!r} is blank")
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise _BadValueError(f"column {column!r} is {kind_in_words(value)} where text belongs")
    text = str(value)
    if not text.strip():
        raise _BadValueError(f"column {column!r} is blank")
    if "\0" in text:
        raise _BadValueError(f"column {column!r} holds a NUL character")
    return text


def _confidence(fields: Mapping[str, object], column: str) -> float:
    if column not in fields:
        return 1.0
    value = fields[column]
    if value is None or value == "":
        raise _BadValueError(f"column {column!r} is blank")
    try:
        number = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise _BadValueError(f"column {column!r} is {value!r}, which is no number") from None
    if math.isnan(number) or not 0.0 <= number <= 1.0:
        raise _BadValueError(f"column {column!r} is {value!r}, which is outside 0 to 1")
    return number


def _without_repeats(rows: Sequence[Row]) -> tuple[list[Row], list[Rejected]]:
    """The first row of each path, unless its rows differ in label: then none, since any of them may be wrong."""
    by_path: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_path[os.path.normcase(row.path)].append(row)
    kept, rejected = [], []
    for same in by_path.values():
        if len({row.label for row in same}) > 1:
            rejected += [_rejected(row, _conflict(same)) for row in same]
            continue
        kept.append(same[0])
        rejected += [_rejected(row, f"row {row.line}: repeats row {same[0].line}") for row in same[1:]]
    return kept, rejected


def _conflict(same: Sequence[Row]) -> str:
    said = ", ".join(f"{row.label!r} in row {row.line}" for row in same)
    return f"the same path has different labels: {said}"


def _rejected(row: Row, reason: str) -> Rejected:
    return Rejected(str(row.path), row.label, row.line, reason)


# --- the whole ---------------------------------------------------------------------------------------------------


def _require_classes(
    source: Path,
    rows: Sequence[Row],
    rejected: Sequence[Rejected],
    columns: ManifestColumns,
    min_classes: int,
) -> None:
    if not rows:
        first = rejected[0]
        raise DataError(f"None of the {len(rejected)} rows of {source} can be used; the first: {first.reason}.")
    labels = sorted({row.label for row in rows})
    if len(labels) < min_classes:
        where = "has files in" if source.is_dir() else f"has in column {columns.label!r}"
        classes = "one class" if len(labels) == 1 else f"{len(labels)} classes"
        raise DataError(
            f"{source} {where} only {classes} ({', '.join(labels)}); a classifier needs {max(min_classes, 2)} or more."
        )


def _key(rows: Iterable[Row], rejected: Iterable[Rejected]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        line = f"{row.path}\0{row.label}\0{row.confidence}\0{row.line}\n"
        digest.update(line.encode("utf-8", "surrogatepass"))
    for bad in rejected:
        digest.update(repr(bad).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:16]
