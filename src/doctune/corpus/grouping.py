"""Duplicate groups of stored texts, worked out once for the same texts and threshold, then taken from the cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from doctune.corpus.duplicates import duplicate_groups
from doctune.corpus.store import TextStore, mark_used
from doctune.files import write_json

# Raise it when the same texts may get other groups.
_VERSION = 1


@dataclass(frozen=True)
class Groups:
    """For each text: `exact` is shared by texts that differ in nothing but whitespace, `near` by near-copies too."""

    exact: tuple[str, ...]
    near: tuple[str, ...]


def groups_of(store: TextStore, contents: Sequence[str], threshold: float) -> Groups:
    """The duplicate groups of each content; see `duplicates.duplicate_groups`."""
    distinct = sorted(set(contents))
    folder = store.cache / "groups" / _key(store, distinct, threshold)
    found = folder / "groups.json"
    if not found.exists():
        groups = duplicate_groups(store.texts(distinct), threshold=threshold)
        write_json(found, {"exact": groups.exact, "near": groups.near})
    mark_used(folder)
    places = {content: place for place, content in enumerate(distinct)}
    columns = json.loads(found.read_text(encoding="utf-8"))
    exact, near = (tuple(columns[name][places[content]] for content in contents) for name in ("exact", "near"))
    return Groups(exact, near)


def _key(store: TextStore, contents: Sequence[str], threshold: float) -> str:
    digest = hashlib.sha256(f"{_VERSION} {store.folder.name} {threshold}".encode())
    for content in contents:
        digest.update(content.encode())
    return digest.hexdigest()[:16]
