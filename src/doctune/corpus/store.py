"""Extracted texts on disk: keyed by content, memory-mapped, shared by runs.

    <cache>/files.sqlite                    path, size, modification time -> SHA-256 of the content
    <cache>/texts/<settings>/part-*.arrow   sealed texts, one row per content
    <cache>/texts/<settings>/index-*.bin    where in the parts each content stands
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
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from doctune.corpus.batches import batched
from doctune.corpus.file_hashes import FileHashes
from doctune.corpus.text_index import TextIndex
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
        self._hashes = FileHashes(cache / "files.sqlite")
        self._tables: dict[str, pa.Table] = {}
        self._index = TextIndex(self.folder, {})

    def fill(self, paths: Sequence[Path], extract: Extract, on_wait: Callable[[], None] | None = None) -> list[Entry]:
        """Read what the store does not hold yet and describe every path, in order.

        One process fills at a time; a second one waits (`on_wait` is called once) and then finds the work done.
        """
        contents = [*self._hashes.of(paths)]
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
        return self._entries(self._hashes.of(paths))

    def texts(self, contents: Iterable[str]) -> Texts:
        """The texts of contents that were in the store when `fill` or `known` looked last, in order.

        Raises:
            KeyError: one was not.
        """
        if not self._tables:
            self._map_parts()
        return Texts([*self._tables.values()], self._index.places(contents))

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
        missing = {content: path_of[content] for content in self._index.unknown(path_of)}
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
                unknown = {*self._index.unknown(content for (content,) in journal.execute("SELECT content FROM texts"))}
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
        try:
            self._tables = {part.name: self._tables.get(part.name) or _open_part(part) for part in parts}
            self._index = TextIndex(self.folder, self._tables)
        except FileNotFoundError:  # another process has sealed new parts meanwhile, or removed some
            self._tables = {}
            self._map_parts()

    def _entries(self, contents: Iterable[str | OSError]) -> Iterator[Entry | None]:
        """What the mapped parts say of each content."""
        tables = [table.select(["status", "reason", "format"]) for table in self._tables.values()]
        for some in batched(contents, _CONTENTS_AT_ONCE):
            hashes = [content for content in some if isinstance(content, str)]
            places, is_known = self._index.look_up(hashes)
            facts: list[tuple[str, str, str] | None] = [None] * len(hashes)
            for part, table in enumerate(tables):
                here = np.flatnonzero(is_known & (places[:, 0] == part))
                columns = table.take(places[here, 1]).to_pydict().values()
                for place, values in zip(here.tolist(), zip(*columns, strict=True), strict=True):
                    facts[place] = values
            of_hash = iter(facts)
            for content in some:
                if isinstance(content, OSError):
                    yield Entry(None, "unreadable", content.strerror or str(content), "")
                    continue
                fact = next(of_hash)
                yield None if fact is None else Entry(content, *fact)


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
