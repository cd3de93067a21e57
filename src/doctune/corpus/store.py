"""Extracted texts on disk: keyed by content, memory-mapped, shared by runs.

    <cache>/files.sqlite                    path, size, modification time -> SHA-256 of the content
    <cache>/texts/<settings>/part-*.arrow   sealed texts, one row per content
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
from pathlib import Path

import pyarrow as pa
from filelock import FileLock, Timeout

from doctune.documents import Document
from doctune.errors import ArtifactError
from doctune.files import written_whole

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
_HASH_BLOCK_BYTES = 1 << 20
# Looked up in one query; SQLite allows 999 parameters everywhere.
_HASHES_AT_ONCE = 500
_CHARS_PER_PART = 64 * 1024 * 1024
JOURNAL = "journal.sqlite"
# The folders of the cache whose entries `prune` may remove.
CACHE_KINDS = (
    *("rows", "texts", "tokens", "chunks", "questions", "features"),
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
    """A lazy view of stored texts: each is read from the memory map when asked for."""

    def __init__(self, tables: list[pa.Table], places: Sequence[tuple[int, int]]) -> None:
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
        self._tables: list[pa.Table] = []
        self._places: dict[str, tuple[int, int]] = {}
        self._opened: set[str] = set()

    def fill(self, paths: Sequence[Path], extract: Extract, on_wait: Callable[[], None] | None = None) -> list[Entry]:
        """Read what the store does not hold yet and describe every path, in order.

        One process fills at a time; a second one waits (`on_wait` is called once) and then finds the work done.
        """
        contents = FileHashes(self.cache / "files.sqlite").of(paths)
        with self._lock(on_wait):
            self._seal()
            self._read_missing(paths, contents, extract)
            self._seal()
        names = ("status", "reason", "format")
        columns = [[table.column(name).to_pylist() for name in names] for table in self._tables]
        return [self._entry(content, columns) for content in contents]

    def texts(self, contents: Sequence[str]) -> Texts:
        """The texts of contents that `fill` has described, in order."""
        return Texts(self._tables, [self._places[content] for content in contents])

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
        missing = {c: p for c, p in zip(contents, paths, strict=True) if isinstance(c, str) and c not in self._places}
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
                rows = journal.execute("SELECT * FROM texts ORDER BY content")
                self._write_parts(row for row in rows if row[0] not in self._places)
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
        for part in sorted(self.folder.glob("part-*.arrow")):
            if part.name in self._opened:
                continue
            table = _open_part(part)
            for row, content in enumerate(table.column("content").to_pylist()):
                self._places.setdefault(content, (len(self._tables), row))
            self._tables.append(table)
            self._opened.add(part.name)

    def _entry(self, content: str | OSError, columns: Sequence[Sequence[Sequence[str]]]) -> Entry:
        """What the columns status, reason and format of each table say of a content."""
        if isinstance(content, OSError):
            return Entry(None, "unreadable", content.strerror or str(content), "")
        table, row = self._places[content]
        status, reason, file_format = (column[row] for column in columns[table])
        return Entry(content, status, reason, file_format)


class FileHashes:
    """SHA-256 of files, remembered by path, size and modification time."""

    def __init__(self, database: Path) -> None:
        self._database = database

    def of(self, paths: Sequence[Path]) -> list[str | OSError]:
        """The content hash of each path in order, or the error that kept it from being read."""
        with contextlib.closing(sqlite3.connect(self._database, timeout=60)) as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS files (path PRIMARY KEY, size INTEGER, mtime_ns INTEGER, content)"
            )
            return self._all(connection, paths)

    def _all(self, connection: sqlite3.Connection, paths: Sequence[Path]) -> list[str | OSError]:
        hashes: list[str | OSError] = []
        here = os.getcwd()
        for start in range(0, len(paths), _HASHES_AT_ONCE):
            names = [os.path.join(here, path) for path in paths[start : start + _HASHES_AT_ONCE]]
            known = self._known(connection, names)
            for name in names:
                hashes.append(self._one(connection, name, known))
            connection.commit()
        return hashes

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
    """Remove texts, tokens and groups that no run has used for so many days; returns the folders that are gone.

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
