"""Duplicate groups of stored texts, worked out once for the same texts and threshold, then taken from the cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict

from doctune.corpus.duplicates import DuplicateGroups, NearPair, duplicate_groups
from doctune.corpus.store import TextStore, mark_used
from doctune.files import write_json

# Raise it when the same texts may get other groups.
VERSION = 1


def groups_of(store: TextStore, contents: Sequence[str], threshold: float) -> DuplicateGroups:
    """The duplicate groups of stored contents, in order; see `duplicates.duplicate_groups`."""
    distinct = sorted(set(contents))
    folder = store.cache / "groups" / _key(store, distinct, threshold)
    found = folder / "groups.json"
    if not found.exists():
        write_json(found, asdict(duplicate_groups(store.texts(distinct), threshold=threshold)))
    mark_used(folder)
    saved = json.loads(found.read_text(encoding="utf-8"))
    groups = DuplicateGroups(saved["exact"], saved["near"], tuple(NearPair(**pair) for pair in saved["pairs"]))
    places = {content: place for place, content in enumerate(distinct)}
    return groups.only([places[content] for content in contents])


def _key(store: TextStore, contents: Sequence[str], threshold: float) -> str:
    digest = hashlib.sha256(f"{VERSION} {store.folder.name} {threshold}".encode())
    for content in contents:
        digest.update(content.encode())
    return digest.hexdigest()[:16]
