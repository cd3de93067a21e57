"""The table of a manifest -> records: CSV, TSV, JSON lines, Parquet, an SQLite query."""

from __future__ import annotations

import csv
import json
import os
import shlex
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from doctune.corpus.values import kind_in_words
from doctune.errors import ConfigError, DataError

SQLITE_SUFFIXES = (".db", ".sqlite", ".sqlite3")
QUERY_EXAMPLE = "data.query='SELECT path, label FROM documents'"
# csv stops at 131,072 characters by itself, which guards servers; a C long of 32 bits is what every platform takes.
MAX_FIELD_CHARS = 2**31 - 1


@dataclass(frozen=True)
class ManifestColumns:
    """The names of the columns that are read; `confidence` may be absent under its default name, and is then 1.0.

    `text` is read where there is no column of paths. `option` is how a user names a column, for messages.
    """

    path: str = "path"
    label: str = "label"
    confidence: str = "confidence"
    text: str = "text"
    option: str = "data.{}_column=NAME"

    def of(self, names: Sequence[str]) -> tuple[str, str, str]:
        """What is read of a table with these columns: paths or texts, labels, confidences."""
        has_texts = self.path not in names and self.text in names
        return (self.text if has_texts else self.path, self.label, self.confidence)


@dataclass(frozen=True, slots=True)
class ManifestRecord:
    """A row as the source has it: the wanted fields, or the problem that keeps them from being read."""

    line: int
    fields: Mapping[str, object]
    problem: str = ""


@dataclass(frozen=True)
class ManifestTable:
    """The records of a table that has these columns."""

    columns: tuple[str, ...]
    records: Sequence[ManifestRecord]


def read_manifest_table(source: Path, columns: ManifestColumns, query: str | None) -> ManifestTable:
    """The records of a file, checked for what spoils all of them.

    Raises:
        DataError: it is missing, unreadable or empty, or lacks a column.
        ConfigError: Parquet without pyarrow installed.
    """
    _require_file(source)
    suffix = source.suffix.lower()
    if suffix in SQLITE_SUFFIXES:
        table = _read_sqlite(source, query)
    elif suffix in _READERS:
        table = _READERS[suffix](source, columns)
    else:
        kinds = ", ".join([*_READERS, *SQLITE_SUFFIXES])
        raise DataError(f"{source} is no kind of manifest; those are {kinds}, or a folder with a folder per class.")
    _require_columns(source, table.columns, columns)
    if not table.records:
        raise DataError(f"{source} has the columns {', '.join(table.columns)} but no rows.")
    return table


def _require_file(source: Path) -> None:
    if not os.path.lexists(source):
        # `doctune scan` writes CSV, so that is what the line makes, whatever was asked for.
        made = shlex.quote(str(source.with_suffix(".csv")))
        raise DataError(f"There is no manifest at {source}. Make one from a folder: doctune scan ROOT --out {made}")
    if not source.is_file():
        raise DataError(f"{source} is neither a file nor a folder.")
    try:
        with source.open("rb") as file:
            first = file.read(1)
    except OSError as error:
        raise DataError(f"{source} cannot be read: {error.strerror}.") from error
    if not first:
        raise DataError(f"{source} is empty; a manifest names a path and a label in every row.")


def _read_delimited(source: Path, columns: ManifestColumns) -> ManifestTable:
    _require_utf8(source)
    csv.field_size_limit(MAX_FIELD_CHARS)
    with source.open(encoding="utf-8-sig", newline="") as file:
        delimiter = _delimiter(source, file.readline(), columns)
        file.seek(0)
        # strict: else a quote that is never closed would swallow the rest of the file as one field
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            header = tuple(name.strip() for name in next(reader, []))
            _require_distinct(source, header, columns.of(header))
            records = [_delimited_record(line, cells, header) for line, cells in _numbered(reader) if cells]
        except csv.Error as error:
            raise DataError(f"{source}, line {reader.line_num}: {error}; is a quote left open or stray?") from error
    return ManifestTable(header, records)


def _delimiter(source: Path, header: str, columns: ManifestColumns) -> str:
    """The separator of the suffix, unless only another one shows the columns (Excel writes semicolons in Europe)."""
    usual = "\t" if source.suffix.lower() == ".tsv" else ","
    for candidate in (usual, ",", ";", "\t"):
        names = [name.strip() for name in next(csv.reader([header], delimiter=candidate), [])]
        if set(columns.of(names)[:2]) <= set(names):
            return candidate
    return usual


def _numbered(reader: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
    """Each row with the line on which it starts; a quoted field may span several lines."""
    start = reader.line_num + 1  # type: ignore[attr-defined]
    for cells in reader:
        yield start, cells
        start = reader.line_num + 1  # type: ignore[attr-defined]


def _delimited_record(line: int, cells: list[str], header: tuple[str, ...]) -> ManifestRecord:
    fields = dict(zip(header, cells, strict=False))
    if len(cells) != len(header):
        return ManifestRecord(line, fields, f"has {len(cells)} fields where the header has {len(header)}")
    return ManifestRecord(line, fields)


def _require_distinct(source: Path, header: Sequence[str], wanted: Sequence[str]) -> None:
    for name in wanted:
        if header.count(name) > 1:
            raise DataError(f"{source} has {header.count(name)} columns called {name!r}; rename all but one.")


def _require_utf8(source: Path) -> None:
    """Point at the first byte that is not UTF-8; only a line is held in memory."""
    offset = 0
    with source.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if number == 1 and line.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise DataError(f"{source} is UTF-16; save it as UTF-8.")
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                place = f"line {number}, byte {offset + error.start}: 0x{line[error.start]:02x}"
                raise DataError(f"{source} is not UTF-8 ({place}); save it as UTF-8.") from error
            offset += len(line)


def _read_json_lines(source: Path, _: ManifestColumns) -> ManifestTable:
    _require_utf8(source)
    with source.open(encoding="utf-8-sig", newline="\n") as file:
        records = [_json_record(number, line) for number, line in enumerate(file, start=1) if line.strip()]
    if records and all(record.problem for record in records):
        raise DataError(f"{source} holds no JSON object; line {records[0].line} {records[0].problem}.")
    names = dict.fromkeys(name for record in records for name in record.fields)
    return ManifestTable(tuple(names), records)


def _json_record(line: int, text: str) -> ManifestRecord:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return ManifestRecord(line, {}, f"is not JSON: {error}")
    if not isinstance(value, dict):
        return ManifestRecord(line, {}, f"is {kind_in_words(value)} where a JSON object belongs")
    return ManifestRecord(line, value)


def _read_parquet(source: Path, columns: ManifestColumns) -> ManifestTable:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError(f"{source} needs pyarrow, which `pip install 'doctune[train]'` brings.") from error
    try:
        with pyarrow.parquet.ParquetFile(source) as file:
            names = tuple(file.schema_arrow.names)
            wanted = [name for name in columns.of(names) if name in names]
            _require_distinct(source, names, wanted)
            rows = (row for batch in file.iter_batches(columns=wanted) for row in batch.to_pylist())
            return ManifestTable(names, [ManifestRecord(number, row) for number, row in enumerate(rows, start=1)])
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{source} cannot be read as Parquet: {_first_line(error)}") from error


def _read_sqlite(source: Path, query: str | None) -> ManifestTable:
    try:
        with closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as database:
            database.set_authorizer(_reading_only)
            if not query or not query.strip():
                raise DataError(f"{source} needs a query, such as {QUERY_EXAMPLE}. {_tables_of(database)}")
            cursor = database.execute(query)
            names = tuple(column[0] for column in cursor.description or ())
            if not names:
                raise DataError(f"data.query must be one SELECT, such as {QUERY_EXAMPLE}; found: {query!r}.")
            rows = (dict(zip(names, values, strict=True)) for values in cursor)
            return ManifestTable(names, [ManifestRecord(number, row) for number, row in enumerate(rows, start=1)])
    except (sqlite3.Error, sqlite3.Warning) as error:
        raise DataError(_sqlite_message(source, query, error)) from error


def _sqlite_message(source: Path, query: str | None, error: Exception) -> str:
    if "not authorized" in str(error) or "one statement" in str(error):
        return f"data.query must be one SELECT, such as {QUERY_EXAMPLE}; found: {query!r}."
    if not query or "not a database" in str(error):
        return f"{source} cannot be read as an SQLite database: {error}."
    return f"data.query fails on {source}: {error}. The query: {query!r}."


def _reading_only(action: int, *_: object) -> int:
    """What a SELECT needs and no more: a query may neither write nor attach another file."""
    reading = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
    return sqlite3.SQLITE_OK if action in reading else sqlite3.SQLITE_DENY


def _tables_of(database: sqlite3.Connection) -> str:
    names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")]
    return f"Its tables: {', '.join(sorted(names))}." if names else "It has no tables."


_READERS: dict[str, Callable[[Path, ManifestColumns], ManifestTable]] = {
    ".csv": _read_delimited,
    ".tsv": _read_delimited,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".parquet": _read_parquet,
}


def _require_columns(source: Path, found: Sequence[str], columns: ManifestColumns) -> None:
    required = {"label": columns.label}
    if columns.of(found)[0] == columns.path:
        required = {"path": columns.path, **required}
    if columns.confidence != ManifestColumns.confidence:
        required["confidence"] = columns.confidence
    missing = {knob: name for knob, name in required.items() if name not in found}
    if missing:
        names = " and ".join(repr(name) for name in missing.values())
        knobs = " ".join(columns.option.format(knob) for knob in missing)
        if "path" in missing:
            knobs += f", or that of the texts themselves with {columns.option.format('text')}"
        raise DataError(f"{source} has no column {names}; it has: {', '.join(found)}. Name the right one with {knobs}.")


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
