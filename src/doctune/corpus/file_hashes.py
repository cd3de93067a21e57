"""SHA-256 of files, in a database: a file whose path, size and modification time are known is not opened again."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from doctune.corpus.batches import batched

_HASH_BLOCK_BYTES = 1 << 20
# Looked up in one query; SQLite allows 999 parameters everywhere.
_HASHES_AT_ONCE = 500


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
            for some in batched(paths, _HASHES_AT_ONCE):
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
