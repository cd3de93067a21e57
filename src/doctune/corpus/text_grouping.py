"""Duplicate groups of texts that stand in no store, worked out once for the same texts, then taken from the cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from doctune.corpus.duplicates import DuplicateGroups, NearPair, duplicate_groups
from doctune.corpus.store import mark_used
from doctune.files import write_json

# Raise it when the same texts may get other groups.
_VERSION = 1


def groups_of_texts(cache: Path, texts: Sequence[str], threshold: float) -> DuplicateGroups:
    """The duplicate groups of texts, in order; see `duplicates.duplicate_groups`. `cache` is the cache folder."""
    folder = cache / "groups" / _key(texts, threshold)
    found = folder / "groups.json"
    if not found.exists():
        write_json(found, asdict(duplicate_groups(texts, threshold=threshold)))
    mark_used(folder)
    saved = json.loads(found.read_text(encoding="utf-8"))
    pairs = tuple(NearPair(**pair) for pair in saved["pairs"])
    return DuplicateGroups(tuple(saved["exact"]), tuple(saved["near"]), pairs)


def _key(texts: Sequence[str], threshold: float) -> str:
    digest = hashlib.sha256(f"texts {_VERSION} {threshold}".encode())
    for text in texts:
        content = text.encode()
        digest.update(f"{len(content)}:".encode() + content)
    return digest.hexdigest()[:16]
