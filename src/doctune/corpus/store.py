"""Extracted texts on disk: keyed by content, memory-mapped, shared by runs.

    <cache>/files.sqlite                    path, size, modification time -> SHA-256 of the content
    <cache>/texts/<settings>/part-*.arrow   sealed texts, one row per content
    <cache>/texts/<settings>/index-*.bin    the contents of all parts, sorted, and where each stands
    <cache>/texts/<settings>/journal.sqlite texts read since the last seal; what a killed run leaves for the next one

A file whose path, size and modification time are known is not opened again, and a content that was extracted under
the same settings is never extracted again, wherever the file has moved.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sqlite3
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from doctune.documents import Document
from doctune.errors import ArtifactError
from doctune.files import written_whole

Value = TypeVar("Value")
Extract = Callable[[Sequence[Path]], Iterator[Document]]

_SCHEMA = pa.schema(
    [
        ("content", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("format", pa.string()),
        ("text", pa.large_string()),
    ]
)
# Half of a SHA-256: two files never share one.
_KEY = np.dtype("S16")
_HASH_BLOCK_BYTES = 1 << 20
# Looked up in one query; SQLite allows 999 parameters everywhere.
_HASHES_AT_ONCE = 500
_CONTENTS_AT_ONCE = 4096
_CHARS_PER_PART = 64 * 1024 * 1024
JOURNAL = "journal.sqlite"
# The folders of the cache whose entries `prune` may remove.
CACHE_KINDS = (
    *("rows", "manifests", "texts", "corpora", "tokens", "chunks", "questions", "features"),
    *("groups", "audits", "vocabularies", "baselines"),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """What the store knows of one file; `content` is the SHA-256 of its bytes, None where it could not be read."""

    content: str | None
    status: str
    reason: str
    format: str


class Texts(Sequence[str]):
    """A lazy view of stored texts: each is read from the memory map when asked for.

    Args:
        tables: the parts.
        places: the part and the row of each text, shape (N, 2).
    """

    def __init__(self, tables: Sequence[pa.Table], places: NDArray[np.int32]) -> None:
        self._columns = [table.column("text").chunk(0) for table in tables]
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> str:  # type: ignore[override]  # slices are not needed
        table, row = self._places[index]
        return str(self._columns[table][row].as_py())


class TextStore:
    """The texts of one extractor setting.

    Args:
        cache: the cache folder; made when missing.
        settings_key: `ExtractSettings.key()`; other settings have other texts.
    """

    def __init__(self, cache: Path, settings_key: str) -> None:
        self.cache = cache
        self.folder = cache / "texts" / hashlib.sha256(settings_key.encode()).hexdigest()[:16]
        self.folder.mkdir(parents=True, exist_ok=True)
        mark_used(self.folder)
        self._tables: dict[str, pa.Table] = {}
        self._keys = np.empty(0, _KEY)
        self._key_places = np.empty((0, 2), np.int32)

    def fill(self, paths: Sequence[Path], extract: Extract, on_wait: Callable[[], None] | None = None) -> list[Entry]:
        """Read what the store does not hold yet and describe every path, in order.

        One process fills at a time; a second one waits (`on_wait` is called once) and then finds the work done.
        """
        contents = list(self.contents(paths))
        with self._lock(on_wait):
            self._seal()
            self._read_missing(paths, contents, extract)
            self._seal()
        entries = [entry for entry in self._entries(contents) if entry is not None]
        assert len(entries) == len(contents), "what was missing has been read"
        return entries

    def known(self, paths: Iterable[Path]) -> Iterator[Entry | None]:
        """What the store holds of each file now, in order; None where it has not read such a content."""
        self._map_parts()
        return self._entries(self.contents(paths))

    def contents(self, paths: Iterable[Path]) -> Iterator[str | OSError]:
        """The SHA-256 of each file in order, or the error that kept it from being read."""
        return FileHashes(self.cache / "files.sqlite").of(paths)

    def texts(self, contents: Iterable[str]) -> Texts:
        """The texts of contents that were in the store when `fill` or `known` looked last, in order.

        Raises:
            KeyError: one was not.
        """
        if not self._tables:
            self._map_parts()
        return Texts([*self._tables.values()], self._places(contents))

    @contextlib.contextmanager
    def _lock(self, on_wait: Callable[[], None] | None) -> Iterator[None]:
        lock = FileLock(self.folder / "lock")
        try:
            lock.acquire(timeout=0.2)
        except Timeout:
            if on_wait:
                on_wait()
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _read_missing(self, paths: Sequence[Path], contents: Sequence[str | OSError], extract: Extract) -> None:
        path_of = {content: path for content, path in zip(contents, paths, strict=True) if isinstance(content, str)}
        missing = {content: path_of[content] for content in self._unknown(path_of)}
        if not missing:
            return
        documents = extract(list(missing.values()))
        with contextlib.closing(self._journal()) as journal:
            for content, document in zip(missing, documents, strict=True):
                row = (content, document.status, document.reason, document.format, document.text)
                journal.execute("INSERT OR REPLACE INTO texts VALUES (?, ?, ?, ?, ?)", row)
                journal.commit()  # after every file: what a killed run has read is there for the next one

    def _journal(self) -> sqlite3.Connection:
        journal = sqlite3.connect(self.folder / JOURNAL)
        # Safe against a killed process, not against a power cut; that would cost a second reading, nothing else.
        journal.execute("PRAGMA synchronous = OFF")
        journal.execute("CREATE TABLE IF NOT EXISTS texts (content PRIMARY KEY, status, reason, format, text)")
        return journal

    def _seal(self) -> None:
        """Map all parts; move what the journal has beyond them into new parts, and map those too."""
        self._map_parts()
        if (self.folder / JOURNAL).exists():
            with contextlib.closing(self._journal()) as journal:
                unknown = {*self._unknown(content for (content,) in journal.execute("SELECT content FROM texts"))}
                rows = journal.execute("SELECT * FROM texts ORDER BY content")
                self._write_parts(row for row in rows if row[0] in unknown)
            (self.folder / JOURNAL).unlink()
            self._map_parts()

    def _write_parts(self, rows: Iterable[tuple[str, ...]]) -> None:
        """Write rows in parts whose names come from what is in them."""
        for batch in _by_size(rows):
            columns = dict(zip(_SCHEMA.names, zip(*batch, strict=True), strict=True))
            name = hashlib.sha256("".join(row[0] for row in batch).encode()).hexdigest()[:16]
            with (
                written_whole(self.folder / f"part-{name}.arrow") as temporary,
                pa.OSFile(str(temporary), "wb") as sink,
                pa.ipc.new_file(sink, _SCHEMA) as writer,
            ):
                writer.write_table(pa.table(columns, schema=_SCHEMA))

    def _map_parts(self) -> None:
        parts = sorted(self.folder.glob("part-*.arrow"))
        if [part.name for part in parts] == [*self._tables]:
            return
        self._tables = {part.name: self._tables.get(part.name) or _open_part(part) for part in parts}
        try:
            self._map_index()
        except FileNotFoundError:  # removed meanwhile by another process, which has sealed new parts
            self._tables = {}
            self._map_parts()

    def _map_index(self) -> None:
        """Map where the contents of all parts stand; work it out where nobody has.

        The file has the keys of all contents, sorted, and behind them the part and the row of each.
        """
        count = sum(map(len, self._tables.values()))
        if not count:
            self._keys, self._key_places = np.empty(0, _KEY), np.empty((0, 2), np.int32)
            return
        index = self.folder / f"index-{hashlib.sha256(''.join(self._tables).encode()).hexdigest()[:16]}.bin"
        if not index.exists() or index.stat().st_size != count * (_KEY.itemsize + 2 * np.dtype(np.int32).itemsize):
            with written_whole(index) as temporary, temporary.open("wb") as stream:
                for values in _index_of([*self._tables.values()]):
                    stream.write(values.tobytes())
            for old in self.folder.glob("index-*.bin"):
                if old != index:
                    with contextlib.suppress(PermissionError):  # Windows keeps what another process has mapped
                        old.unlink(missing_ok=True)
        self._keys = np.memmap(index, _KEY, "r", shape=count)
        self._key_places = np.memmap(index, np.int32, "r", offset=count * _KEY.itemsize, shape=(count, 2))

    def _entries(self, contents: Iterable[str | OSError]) -> Iterator[Entry | None]:
        """What the mapped parts say of each content."""
        tables = [table.select(["status", "reason", "format"]) for table in self._tables.values()]
        for some in _batches(contents, _CONTENTS_AT_ONCE):
            keys = [content for content in some if isinstance(content, str)]
            found, is_known = self._look_up(keys)
            facts: list[tuple[str, str, str] | None] = [None] * len(keys)
            places = self._key_places[found[is_known]]
            for part in np.unique(places[:, 0]).tolist():
                here = np.flatnonzero(is_known)[places[:, 0] == part]
                columns = tables[part].take(places[places[:, 0] == part, 1]).to_pydict().values()
                for place, values in zip(here.tolist(), zip(*columns, strict=True), strict=True):
                    facts[place] = values
            of_key = iter(facts)
            for content in some:
                if isinstance(content, OSError):
                    yield Entry(None, "unreadable", content.strerror or str(content), "")
                    continue
                fact = next(of_key)
                yield None if fact is None else Entry(content, *fact)

    def _places(self, contents: Iterable[str]) -> NDArray[np.int32]:
        """The part and the row of each content, shape (N, 2).

        Raises:
            KeyError: one is not in the store.
        """
        found = [np.empty((0, 2), np.int32)]
        for some in _batches(contents, _CONTENTS_AT_ONCE):
            rows, is_known = self._look_up(some)
            if not is_known.all():
                raise KeyError(some[int(is_known.argmin())])
            found.append(self._key_places[rows])
        return np.concatenate(found)

    def _unknown(self, contents: Iterable[str]) -> Iterator[str]:
        """Those that are not in the store."""
        for some in _batches(contents, _CONTENTS_AT_ONCE):
            _, is_known = self._look_up(some)
            yield from (content for content, known in zip(some, is_known.tolist(), strict=True) if not known)

    def _look_up(self, contents: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Where in the index each content stands, if it is known, and whether it is; both of shape (N,)."""
        keys = np.array([_key(content) for content in contents], _KEY)
        if not len(self._keys):
            return np.zeros(len(keys), np.int64), np.zeros(len(keys), bool)
        rows = np.searchsorted(self._keys, keys).clip(max=len(self._keys) - 1)
        return rows, self._keys[rows] == keys


class FileHashes:
    """SHA-256 of files, remembered by path, size and modification time."""

    def __init__(self, database: Path) -> None:
        self._database = database

    def of(self, paths: Iterable[Path]) -> Iterator[str | OSError]:
        """The content hash of each path in order, or the error that kept it from being read."""
        with contextlib.closing(sqlite3.connect(self._database, timeout=60)) as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS files (path PRIMARY KEY, size INTEGER, mtime_ns INTEGER, content)"
            )
            here = os.getcwd()
            for some in _batches(paths, _HASHES_AT_ONCE):
                names = [os.path.join(here, path) for path in some]
                known = self._known(connection, names)
                hashes = [self._one(connection, name, known) for name in names]
                connection.commit()
                yield from hashes

    def _known(self, connection: sqlite3.Connection, names: Sequence[str]) -> dict[bytes, tuple[int, int, str]]:
        marks = ",".join("?" * len(names))
        rows = connection.execute(
            f"SELECT path, size, mtime_ns, content FROM files WHERE path IN ({marks})",
            [os.fsencode(name) for name in names],
        )
        return {path: (size, mtime_ns, content) for path, size, mtime_ns, content in rows}

    def _one(
        self, connection: sqlite3.Connection, name: str, known: Mapping[bytes, tuple[int, int, str]]
    ) -> str | OSError:
        try:
            facts = os.stat(name)
            if not stat.S_ISREG(facts.st_mode):
                return OSError(0, "not a regular file")
            path = os.fsencode(name)
            size, mtime_ns, content = known.get(path, (-1, -1, ""))
            if (size, mtime_ns) == (facts.st_size, facts.st_mtime_ns):
                return content
            content = _sha256(name)
        except OSError as error:
            return error
        facts_now = (path, facts.st_size, facts.st_mtime_ns, content)
        connection.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", facts_now)
        return content


def _sha256(name: str) -> str:
    digest = hashlib.sha256()
    with open(name, "rb") as stream:
        while block := stream.read(_HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _key(content: str) -> bytes:
    return bytes.fromhex(content[:32])


def _index_of(tables: Sequence[pa.Table]) -> tuple[NDArray[np.bytes_], NDArray[np.int32]]:
    """The keys of all contents, sorted, shape (N,), with part and row of each, shape (N, 2); equal keys by part."""
    keys = np.concatenate([np.array([_key(c) for c in t.column("content").to_pylist()], _KEY) for t in tables])
    parts = np.repeat(np.arange(len(tables), dtype=np.int32), [len(table) for table in tables])
    rows = np.concatenate([np.arange(len(table), dtype=np.int32) for table in tables])
    order = np.argsort(keys, kind="stable")
    return keys[order], np.stack([parts, rows], axis=1)[order]


def _batches(values: Iterable[Value], size: int) -> Iterator[list[Value]]:
    iterator = iter(values)
    while some := list(islice(iterator, size)):
        yield some


def _open_part(part: Path) -> pa.Table:
    try:
        return pa.ipc.open_file(pa.memory_map(str(part))).read_all()
    except pa.ArrowInvalid as error:
        raise ArtifactError(f"{part} is damaged ({error}). Delete it: what it held is read again.") from error


def _by_size(rows: Iterable[tuple[str, ...]]) -> Iterator[list[tuple[str, ...]]]:
    """Rows in batches of a bounded number of characters, so that sealing needs no more memory for longer texts."""
    batch: list[tuple[str, ...]] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += sum(map(len, row))
        if size >= _CHARS_PER_PART:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def prune(cache: Path, unused_days: float) -> list[Path]:
    """Remove what no run has used for so many days, such as texts and tokens; returns the folders that are gone.

    File hashes stay: they are small, and a file that changes gets a new one.
    """
    oldest = time.time() - unused_days * 86_400
    stale = [entry for kind in CACHE_KINDS for entry in (cache / kind).glob("*") if entry.stat().st_mtime < oldest]
    for entry in stale:
        shutil.rmtree(entry)
    return stale


def mark_used(entry: Path) -> None:
    """Note that a run uses this cache entry now; `prune` reads it."""
    os.utime(entry)
