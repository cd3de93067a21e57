"""Manifests in the cache: a source that has not changed is not read again, and its rows stay on disk.

    <cache>/manifests/<source and columns>/rows.arrow, rejected.arrow, key.json

What a query gives, and texts that stand in the source itself, are read every time.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from doctune import __version__
from doctune.corpus.manifest import VERSION, Manifest, Rejected, Row, read_manifest
from doctune.corpus.manifest_tables import SQLITE_SUFFIXES, ManifestColumns
from doctune.corpus.records import read_records, write_records
from doctune.corpus.scan import walk
from doctune.corpus.store import mark_used
from doctune.errors import ArtifactError
from doctune.files import write_json

_BLOCK_BYTES = 1 << 20


def saved_manifest(
    cache: Path, source: Path, *, columns: ManifestColumns, root: Path | None = None, query: str | None = None
) -> Manifest:
    """What `read_manifest` gives, on disk; the texts of a source that holds them itself are kept in the cache, too.

    Raises:
        DataError, ConfigError: as `read_manifest`.
    """
    folder = cache / "manifests"

    def read() -> Manifest:
        return read_manifest(source, columns=columns, root=root, query=query, texts=cache / "rows")

    if query or source.suffix.lower() in SQLITE_SUFFIXES:
        manifest = read()  # what a query gives may depend on the day
        return _saved(folder / manifest.key, source) or _kept(folder / manifest.key, manifest)
    try:
        key = _key(source, columns, root)
    except OSError:
        return read()  # which says what is wrong
    saved = _saved(folder / key, source)
    if saved is None:
        manifest = read()
        # Texts are compared with their files every time, since another version of the source may have changed those.
        if manifest.holds_texts or _key(source, columns, root) != key:
            key = manifest.key
        saved = _saved(folder / key, source) or _kept(folder / key, manifest)
    return saved


def _kept(folder: Path, manifest: Manifest) -> Manifest:
    """The same rows, on disk."""
    write_records(folder / "rows.arrow", Row, manifest.rows)
    write_records(folder / "rejected.arrow", Rejected, manifest.rejected)
    write_json(folder / "key.json", manifest.key)  # written last: its presence means that all of it is there
    return _read(folder, manifest.source)


def _saved(folder: Path, source: Path) -> Manifest | None:
    """What was kept; None where there is nothing, or a file of it is damaged."""
    try:
        return _read(folder, source)
    except (FileNotFoundError, ValueError, ArtifactError):
        return None


def _read(folder: Path, source: Path) -> Manifest:
    key = json.loads((folder / "key.json").read_text(encoding="utf-8"))
    rows, rejected = read_records(folder / "rows.arrow", Row), read_records(folder / "rejected.arrow", Rejected)
    mark_used(folder)
    return Manifest(rows, rejected, source, key)


def _key(source: Path, columns: ManifestColumns, root: Path | None) -> str:
    """All that the rows depend on."""
    places = [os.path.abspath(place) for place in (source, root or source.parent)]
    digest = hashlib.sha256(repr([VERSION, __version__, columns, *places]).encode("utf-8", "surrogatepass"))
    for piece in _content(source):
        digest.update(piece)
    return digest.hexdigest()[:16]


def _content(source: Path) -> Iterator[bytes]:
    """What a source holds: the bytes of a file, the names below a folder."""
    if source.is_dir():
        for entry in walk(source):
            yield f"{entry.relative}\0{entry.reason}\n".encode("utf-8", "surrogatepass")
    elif source.is_file():
        with source.open("rb") as stream:
            while block := stream.read(_BLOCK_BYTES):
                yield block
