"""Records on disk: a sequence of equal dataclasses in a memory-mapped file, each made when it is asked for.

A corpus of millions of documents is walked through many times and never needed whole; so its records stand in an Arrow
file, which every process maps, and memory does not grow with them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Generic, TypeVar, get_type_hints

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from doctune.corpus.batches import batched
from doctune.errors import ArtifactError
from doctune.files import written_whole

Record = TypeVar("Record")

_ROWS_PER_BATCH = 16_384
# Rows that are taken out of the map at once: few enough to need no memory, and enough to cost little each.
_ROWS_AT_ONCE = 4096


# The column of each type that a field may have.
_COLUMNS: dict[Any, pa.DataType] = {
    str: pa.large_binary(),
    Path: pa.large_binary(),
    int: pa.int64(),
    int | None: pa.int64(),
    float: pa.float64(),
}


class _MappedFile:
    """A memory-mapped Arrow file: its record batches, and the row at which each starts and the last one ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            reader = pa.ipc.open_file(pa.memory_map(str(path)))
            self.batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        except FileNotFoundError:
            raise
        except (pa.ArrowException, OSError) as error:
            raise ArtifactError(f"{path} is damaged ({error}). Delete it: what it held is made again.") from error
        self.starts = np.cumsum([0, *(len(batch) for batch in self.batches)]).tolist()

    def __reduce__(self) -> tuple[type[_MappedFile], tuple[Path]]:
        """Another process maps the file again."""
        return _MappedFile, (self._path,)


class Records(Sequence[Record], Generic[Record]):
    """The records of a mapped file, or some of them, in ascending order.

    Args:
        file: from `read_records`.
        kind: the dataclass.
        rows: which of the file's records, ascending, shape (N,); None: all.
    """

    def __init__(self, file: _MappedFile, kind: type[Record], rows: NDArray[np.int64] | None = None) -> None:
        self._file, self._kind, self._rows = file, kind, rows
        self._types = _types(kind)

    def __len__(self) -> int:
        return self._file.starts[-1] if self._rows is None else len(self._rows)

    def __getitem__(self, index: int) -> Record:  # type: ignore[override]  # slices are not needed
        place = range(len(self))[index]
        row = place if self._rows is None else int(self._rows[place])
        number = bisect_right(self._file.starts, row) - 1
        batch, row = self._file.batches[number], row - self._file.starts[number]
        return self._kind(*(_value(batch.column(name)[row].as_py(), type_) for name, type_ in self._types))

    def __iter__(self) -> Iterator[Record]:
        return (self._kind(*values) for values in columns(self, *(name for name, _ in self._types)))

    def only(self, places: NDArray[np.int64]) -> Records[Record]:
        """The records at `places`, which ascend."""
        return Records(self._file, self._kind, places if self._rows is None else self._rows[places])

    def where(self, name: str, text: str) -> Records[Record]:
        """The records whose field `name` is `text`."""
        return self.only(self.places(name, text))

    def places(self, name: str, text: str) -> NDArray[np.int64]:
        """The places of the records whose field `name` is `text`."""
        wanted = pa.scalar(_encoded(text), pa.large_binary())
        is_it = [pc.equal(column, wanted).to_numpy(zero_copy_only=False) for column in self._pieces(name)]
        return np.flatnonzero(np.concatenate([np.zeros(0, bool), *is_it]))

    def values(self, name: str) -> Iterator[Any]:
        """The field `name` of each record, in order."""
        type_ = dict(self._types)[name]
        return (_value(value, type_) for column in self._pieces(name) for value in column.to_pylist())

    def _pieces(self, name: str) -> Iterator[pa.Array]:
        """A column, some rows at a time."""
        for start, batch in zip(self._file.starts, self._file.batches, strict=False):
            column = batch.column(name)
            if self._rows is None:
                yield from (column.slice(first, _ROWS_AT_ONCE) for first in range(0, len(column), _ROWS_AT_ONCE))
                continue
            first, last = np.searchsorted(self._rows, [start, start + len(column)])
            for some in range(first, last, _ROWS_AT_ONCE):
                yield column.take(pa.array(self._rows[some : min(last, some + _ROWS_AT_ONCE)] - start))


def write_records(path: Path, kind: type[Record], records: Iterable[Record]) -> None:
    """Write records whole, holding only some of them in memory; the fields of `kind` are of the types in `_COLUMNS`."""
    schema = pa.schema([(name, _COLUMNS[type_]) for name, type_ in _types(kind)])
    with (
        written_whole(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, schema) as writer,
    ):
        for some in batched(records, _ROWS_PER_BATCH):
            cells = {name: [_cell(getattr(record, name)) for record in some] for name in schema.names}
            writer.write_table(pa.table(cells, schema=schema))


def read_records(path: Path, kind: type[Record]) -> Records[Record]:
    """Map the records that `write_records` has written.

    Raises:
        ArtifactError: the file is damaged.
        FileNotFoundError: there is none.
    """
    return Records(_MappedFile(path), kind)


def columns(records: Sequence[Any], *names: str) -> Iterator[tuple[Any, ...]]:
    """Some fields of each record, in order, without making the records where they stand on disk."""
    if isinstance(records, Records):
        return zip(*(records.values(name) for name in names), strict=True)
    return (tuple(getattr(record, name) for name in names) for record in records)


def at(records: Sequence[Record], places: NDArray[np.int64]) -> Sequence[Record]:
    """The records at `places`, which ascend; on disk if `records` are."""
    return records.only(places) if isinstance(records, Records) else [records[place] for place in places.tolist()]


def _types(kind: type[Any]) -> list[tuple[str, Any]]:
    """The names of a dataclass's fields with their types."""
    types = get_type_hints(kind)
    return [(field.name, types[field.name]) for field in fields(kind)]


def _cell(value: Any) -> Any:
    return _encoded(str(value)) if isinstance(value, (str, Path)) else value


def _value(cell: Any, type_: Any) -> Any:
    if isinstance(cell, bytes):
        text = cell.decode("utf-8", "surrogatepass")
        return Path(text) if type_ is Path else text
    return cell


def _encoded(text: str) -> bytes:
    # Names of files may hold bytes that are no UTF-8, which Python spells as lone surrogates.
    return text.encode("utf-8", "surrogatepass")
