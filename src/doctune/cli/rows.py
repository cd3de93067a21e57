"""Rows of results -> CSV, JSON Lines or Parquet; and a journal of them, from which an interrupted run goes on."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from doctune.errors import ConfigError
from doctune.files import written_whole

FORMATS = ("csv", "jsonl", "parquet")
# Suffixes that promise no format.
_PLAIN = ("", "txt")
_ROWS_PER_GROUP = 10_000

Row = Mapping[str, Any]


class Journal:
    """What was found so far, as lines in a file beside the one that is to be written, `.NAME.journal`.

    The block that it is entered for ends with the result written, and the journal is removed; where the block fails it
    stays, for a run that resumes.

    Args:
        out: the file that is to be written in the end.
        description: of what is asked; another one cannot be gone on with.
        resume: go on with the journal that is there; else it is begun anew.

    Raises:
        ConfigError: there is nothing to resume, or it was begun with another description.
    """

    def __init__(self, out: Path, description: Row, *, resume: bool) -> None:
        self._path = journal_path(out)
        self._rows: dict[str, dict[str, Any]] = {}
        if resume:
            self._read(out, description)
        else:
            out.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(json.dumps(description) + "\n", encoding="utf-8")
        self._stream = self._path.open("a", encoding="utf-8")

    def __enter__(self) -> Self:
        """The journal itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Remove it when all is written."""
        self._stream.close()
        if kind is None:
            self._path.unlink()

    def has(self, file: Path) -> bool:
        """Whether there is a row of this file, as it is now."""
        row = self._rows.get(str(file))
        return row is not None and row["stamp"] == _stamp(str(file))

    def add(self, row: Row) -> None:
        """Keep a row; it is on its way to the disk when this returns."""
        kept = {"stamp": _stamp(row["path"]), **row}
        self._rows[row["path"]] = kept
        self._stream.write(json.dumps(kept) + "\n")
        self._stream.flush()

    def rows(self, files: Iterable[Path]) -> Iterator[Row]:
        """The rows of these files, in their order."""
        for file in files:
            yield {name: value for name, value in self._rows[str(file)].items() if name != "stamp"}

    def _read(self, out: Path, description: Row) -> None:
        if not self._path.is_file():
            raise ConfigError(f"There is no interrupted run to go on with for {out}. Leave out --resume.")
        with self._path.open(encoding="utf-8") as stream:
            begun = _decoded(next(stream, ""))
            if begun != json.loads(json.dumps(description)):
                raise ConfigError(
                    f"The interrupted run for {out} was begun with another model or other options: {begun}. Use the "
                    "same ones, or leave out --resume to begin anew."
                )
            found = [row for row in map(_decoded, stream) if row is not None]
        self._rows = {row["path"]: row for row in found}
        # A line that was cut off must not be written on.
        lines = [json.dumps(description), *(json.dumps(row) for row in found)]
        with written_whole(self._path) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def journal_path(out: Path) -> Path:
    """Where the journal of a file is that is to be written."""
    return out.with_name(f".{out.name}.journal")


def require_parquet() -> None:
    """Refuse a format that cannot be written, before anything is computed.

    Raises:
        ConfigError: pyarrow is missing.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigError("--format parquet needs pyarrow: pip install pyarrow.") from error


def format_of(out: Path | None, formats: Sequence[str], default: str) -> str:
    """The format that the suffix of `out` names; the default without a file or suffix, and for `.txt`.

    Raises:
        ConfigError: the suffix is that of something else.
    """
    suffix = out.suffix.removeprefix(".") if out else ""
    if suffix in formats:
        return suffix
    if suffix not in _PLAIN:
        known = ", ".join(f".{each}" for each in formats if each != "text")
        raise ConfigError(f"--out {out}: .{suffix} is not written; these are: {known}. Another name needs --format.")
    return default


def write_all(rows: Iterable[Row], out: Path | None, file_format: str, columns: Mapping[str, type]) -> int:
    """Write rows to a file, or to standard output; how many there were."""
    if out is not None:
        return write_rows(rows, out, file_format, columns)
    if isinstance(sys.stdout, TextIOWrapper):  # names of files need not be valid text, whatever the locale says
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
    return write_stream(rows, sys.stdout, file_format, columns)


def write_stream(rows: Iterable[Row], stream: TextIO, file_format: str, columns: Mapping[str, type]) -> int:
    """Write rows as CSV or JSON Lines; how many there were."""
    writer = csv.DictWriter(stream, [*columns], lineterminator="\n")
    if file_format == "csv":
        writer.writeheader()
    written = 0
    for written, row in enumerate(rows, start=1):  # noqa: B007  (returned below)
        if file_format == "csv":
            writer.writerow(row)
        else:
            stream.write(json.dumps({name: row.get(name) for name in columns}) + "\n")
    return written


def write_rows(rows: Iterable[Row], path: Path, file_format: str, columns: Mapping[str, type]) -> int:
    """Write a file of rows whole; how many there were."""
    if file_format == "parquet":
        return _write_parquet(rows, path, columns)
    # Names of files need not be valid UTF-8; they are written as the bytes they are.
    with (
        written_whole(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream,
    ):
        return write_stream(rows, stream, file_format, columns)


def _write_parquet(rows: Iterable[Row], path: Path, columns: Mapping[str, type]) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {str: pa.string(), float: pa.float64()}
    schema = pa.schema([(name, types[kind]) for name, kind in columns.items()])
    iterator, written = iter(rows), 0
    with written_whole(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        while group := list(islice(iterator, _ROWS_PER_GROUP)):
            writer.write_table(pa.Table.from_pylist(_encodable(group), schema=schema))
            written += len(group)
    return written


def _encodable(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Parquet's texts are UTF-8: bytes of a file's name that are not are shown as escapes."""
    return [
        {name: value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
         for name, value in row.items()}
        for row in rows
    ]  # fmt: skip


def _decoded(line: str) -> Any:
    """The value of a line; None for one that was cut off."""
    try:
        return json.loads(line)
    except ValueError:
        return None


def _stamp(path: str) -> list[int] | None:
    """By what a file that has changed is known; None where it is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]
