"""A table -> its records: CSV, TSV, JSON lines or Parquet, with or without a header.

What spoils one row (a field too many, broken JSON) becomes that record's problem; what spoils the file (missing,
undecodable, a quote that is never closed, a column that is not there) is a DataError.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from doctune.corpus.values import kind_in_words
from doctune.errors import ConfigError, DataError

# csv stops at 131,072 characters by itself, which guards servers; a C long of 32 bits is what every platform takes.
_MAX_FIELD_CHARS = 2**31 - 1
_SEPARATORS = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True)
class TableLayout:
    """What a table's suffix does not tell; for CSV and TSV only.

    Attributes:
        header: the names of the columns of a file without a header; None: its first line has them.
        quoted: a field may stand in double quotes, in which two of them are one; False: quotes are plain characters.
    """

    header: tuple[str, ...] | None = None
    quoted: bool = True


@dataclass(frozen=True)
class Record:
    """A row as the table has it: its fields, or the problem that keeps them from being read.

    `line` is where it starts: the line of a text file, else the number of the row, both from 1.
    """

    line: int
    fields: Mapping[str, object]
    problem: str = ""


@dataclass(frozen=True)
class Table:
    """The columns of a table and its records, in order."""

    path: Path
    columns: tuple[str, ...]
    records: tuple[Record, ...]


def read_table(path: Path, wanted: Sequence[str], layout: TableLayout | None = None) -> Table:
    """Read the records of a table, whose kind its suffix tells.

    Args:
        path: .csv, .tsv, .jsonl, .ndjson or .parquet.
        wanted: columns that it must have; a JSON object may lack them, but not all objects of a file.
        layout: header and quotes; None: a header, and quotes.

    Raises:
        DataError: the file is missing, unreadable, empty, or lacks a column.
        ConfigError: header names for a file that has its own, or Parquet without pyarrow installed.
    """
    layout = layout or TableLayout()
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path} is no kind of table that can be read; those are {', '.join(_READERS)}.")
    _require_file(path)
    if layout.header is not None and path.suffix.lower() not in _SEPARATORS:
        raise ConfigError(f"data.header is for CSV and TSV; {path} names its columns itself. Leave it out.")
    table = reader(path, wanted, layout)
    _require_columns(table, wanted, layout)
    if not table.records:
        raise DataError(f"{path} has the columns {', '.join(table.columns)} but no rows.")
    return table


def _require_file(path: Path) -> None:
    if path.is_dir():
        raise DataError(f"{path} is a folder; name the tables in it one by one.")
    try:
        with path.open("rb") as stream:
            first = stream.read(1)
    except FileNotFoundError as error:
        raise DataError(f"There is no table at {path}.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    if not first:
        raise DataError(f"{path} is empty.")


def _require_columns(table: Table, wanted: Sequence[str], layout: TableLayout) -> None:
    missing = [name for name in wanted if name not in table.columns]
    if not missing:
        return
    if layout.header is not None:
        way_on = "data.header must name them."
    elif table.path.suffix.lower() in _SEPARATORS:
        way_on = "If its first line is no header, name its columns: data.header=[text,label,…]."
    else:
        way_on = "Name the right ones with data.text_column, data.id_column and data.targets.NAME.column."
    raise DataError(
        f"{table.path} has no column {' and no column '.join(map(repr, missing))}; it has: "
        f"{', '.join(table.columns) or 'none'}. {way_on}"
    )


# --- CSV and TSV -------------------------------------------------------------------------------------------------


def _read_delimited(path: Path, wanted: Sequence[str], layout: TableLayout) -> Table:
    text = _utf8(path)
    first = text.split("\n", 1)[0]
    separator = _separator(path, first, wanted if layout.header is None else ())
    rows = _quoted_rows(path, text, separator) if layout.quoted else _plain_rows(text, separator)
    header = layout.header
    if header is None:
        header = tuple(name.strip() for name in next(rows, (1, []))[1])
    _require_distinct(path, header)
    return Table(path, header, tuple(_delimited_record(line, cells, header) for line, cells in rows))


def _separator(path: Path, first_line: str, wanted: Sequence[str]) -> str:
    """The separator of the suffix, unless only another one shows the columns (Excel writes semicolons in Europe)."""
    usual = _SEPARATORS[path.suffix.lower()]
    for candidate in (usual, ",", ";", "\t"):
        names = [name.strip() for name in next(csv.reader([first_line], delimiter=candidate), [])]
        if wanted and all(name in names for name in wanted):
            return candidate
    return usual


def _quoted_rows(path: Path, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Each row that is not blank, with the line on which it starts; a quoted field may span several lines."""
    csv.field_size_limit(_MAX_FIELD_CHARS)
    # strict: else a quote that is never closed would swallow the rest of the file as one field
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    start = 1
    try:
        for cells in reader:
            if cells:
                yield start, cells
            start = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path}, line {reader.line_num}: {error}; is a quote left open or stray? "
            "If quotes are plain characters in this file: data.quoted=false."
        ) from error


def _plain_rows(text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.rstrip("\r"):
            yield number, line.rstrip("\r").split(separator)


def _delimited_record(line: int, cells: Sequence[str], header: Sequence[str]) -> Record:
    fields = dict(zip(header, cells, strict=False))
    if len(cells) != len(header):
        return Record(line, fields, f"it has {len(cells)} fields where {len(header)} columns are named")
    return Record(line, fields)


def _require_distinct(path: Path, names: Sequence[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(f"{path} has more than one column called {repeated[0]!r}; rename all but one.")


def _utf8(path: Path) -> str:
    raw = path.read_bytes()
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path} is UTF-16; save it as UTF-8.")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path} is not UTF-8 (line {line}, byte {error.start}: 0x{raw[error.start]:02x}); save it as UTF-8."
        ) from error


# --- JSON lines and Parquet --------------------------------------------------------------------------------------


def _read_json_lines(path: Path, _: Sequence[str], __: TableLayout) -> Table:
    lines = enumerate(_utf8(path).split("\n"), start=1)
    records = tuple(_json_record(number, line) for number, line in lines if line.strip())
    if records and all(record.problem for record in records):
        raise DataError(f"{path} holds no JSON object; line {records[0].line}: {records[0].problem}.")
    columns = dict.fromkeys(name for record in records for name in record.fields)
    return Table(path, tuple(columns), records)


def _json_record(line: int, text: str) -> Record:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Record(line, {}, f"it is not JSON: {error}")
    if not isinstance(value, dict):
        return Record(line, {}, f"it is {kind_in_words(value)} where a JSON object belongs")
    return Record(line, value)


def _read_parquet(path: Path, wanted: Sequence[str], _: TableLayout) -> Table:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError(f"{path} needs pyarrow, which `pip install 'doctune[train]'` brings.") from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = tuple(file.schema_arrow.names)
            _require_distinct(path, names)
            batches = file.iter_batches(columns=[name for name in dict.fromkeys(wanted) if name in names])
            rows = (row for batch in batches for row in batch.to_pylist())
            return Table(path, names, tuple(Record(number, row) for number, row in enumerate(rows, start=1)))
    except (pyarrow.ArrowException, OSError) as error:
        first = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
        raise DataError(f"{path} cannot be read as Parquet: {first}.") from error


_READERS: dict[str, Callable[[Path, Sequence[str], TableLayout], Table]] = {
    ".csv": _read_delimited,
    ".tsv": _read_delimited,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".parquet": _read_parquet,
}
