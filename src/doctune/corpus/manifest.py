"""A manifest -> labelled rows: CSV, TSV, JSON lines, Parquet, an SQLite query, or a folder per class.

A table without a column of paths may hold the texts themselves; they are then kept as files.

Every row of the source ends either in `Manifest.rows` or, with the reason, in `Manifest.rejected`. What spoils the
source as a whole (missing, undecodable, without the columns, with one class) is a DataError.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import shlex
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from doctune.corpus.inline_texts import inline_folder, keep_text
from doctune.corpus.scan import walk
from doctune.corpus.values import kind_in_words
from doctune.errors import ConfigError, DataError

# Raise it when the same source may give other rows: those that the cache has are then read again.
VERSION = 1
SQLITE_SUFFIXES = (".db", ".sqlite", ".sqlite3")
QUERY_EXAMPLE = "data.query='SELECT path, label FROM documents'"
# csv stops at 131,072 characters by itself, which guards servers; a C long of 32 bits is what every platform takes.
MAX_FIELD_CHARS = 2**31 - 1
# Files that desktops leave in every folder they show; nobody labels them on purpose.
DESKTOP_FILES = frozenset({".ds_store", "thumbs.db", "desktop.ini"})


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


@dataclass(frozen=True, slots=True)
class _Record:
    """A row as the source has it: the wanted fields, or the problem that keeps them from being read."""

    line: int
    fields: Mapping[str, object]
    problem: str = ""


@dataclass(frozen=True)
class _Table:
    columns: tuple[str, ...]
    records: Sequence[_Record]


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
        table = _read_table(source, columns, query)
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


# --- sources -----------------------------------------------------------------------------------------------------


def _read_table(source: Path, columns: ManifestColumns, query: str | None) -> _Table:
    """The records of a file, checked for what spoils all of them."""
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


def _read_delimited(source: Path, columns: ManifestColumns) -> _Table:
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
    return _Table(header, records)


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


def _delimited_record(line: int, cells: list[str], header: tuple[str, ...]) -> _Record:
    fields = dict(zip(header, cells, strict=False))
    if len(cells) != len(header):
        return _Record(line, fields, f"has {len(cells)} fields where the header has {len(header)}")
    return _Record(line, fields)


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


def _read_json_lines(source: Path, _: ManifestColumns) -> _Table:
    _require_utf8(source)
    with source.open(encoding="utf-8-sig", newline="\n") as file:
        records = [_json_record(number, line) for number, line in enumerate(file, start=1) if line.strip()]
    if records and all(record.problem for record in records):
        raise DataError(f"{source} holds no JSON object; line {records[0].line} {records[0].problem}.")
    names = dict.fromkeys(name for record in records for name in record.fields)
    return _Table(tuple(names), records)


def _json_record(line: int, text: str) -> _Record:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return _Record(line, {}, f"is not JSON: {error}")
    if not isinstance(value, dict):
        return _Record(line, {}, f"is {kind_in_words(value)} where a JSON object belongs")
    return _Record(line, value)


def _read_parquet(source: Path, columns: ManifestColumns) -> _Table:
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
            return _Table(names, [_Record(number, row) for number, row in enumerate(rows, start=1)])
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{source} cannot be read as Parquet: {_first_line(error)}") from error


def _read_sqlite(source: Path, query: str | None) -> _Table:
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
            return _Table(names, [_Record(number, row) for number, row in enumerate(rows, start=1)])
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


_READERS: dict[str, Callable[[Path, ManifestColumns], _Table]] = {
    ".csv": _read_delimited,
    ".tsv": _read_delimited,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".parquet": _read_parquet,
}


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

    def of(self, record: _Record) -> Path:
        """The file of a row."""
        return Path(os.path.normpath(os.path.join(self.root, _text(record.fields, self.column))))

    def named(self, record: _Record) -> str:
        """The same as far as it is known, for a row that is rejected."""
        return str(record.fields.get(self.column) or "")


@dataclass(frozen=True, slots=True)
class _KeptText:
    """Rows hold their texts in a column; each is kept as a file named by its line."""

    column: str
    folder: Path

    def of(self, record: _Record) -> Path:
        """The file of a row, which is written."""
        text, path = _text(record.fields, self.column), Path(self.named(record))
        try:
            keep_text(text, path)
        except UnicodeEncodeError:
            raise _BadValueError(f"column {self.column!r} holds half of a surrogate pair") from None
        return path

    def named(self, record: _Record) -> str:
        """Where its text would be."""
        return str(self.folder / f"{record.line}.txt")


_Place = _NamedFile | _KeptText


def _required(texts: Path | None, source: Path, columns: ManifestColumns) -> Path:
    if texts is None:
        raise DataError(
            f"{source} holds texts (column {columns.text!r}), and here files are needed: a column {columns.path!r}."
        )
    return texts


def _judge_all(records: Iterable[_Record], columns: ManifestColumns, place: _Place) -> tuple[list[Row], list[Rejected]]:
    rows, rejected = [], []
    for record in records:
        judged = _judge(record, columns, place)
        if isinstance(judged, Row):
            rows.append(judged)
        else:
            rejected.append(judged)
    return rows, rejected


def _judge(record: _Record, columns: ManifestColumns, place: _Place) -> Row | Rejected:
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


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
