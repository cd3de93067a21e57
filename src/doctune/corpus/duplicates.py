"""Documents that are the same document: they must never stand on both sides of a split."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence


def text_groups(texts: Iterable[str]) -> list[str]:
    """A group name for each text; texts that differ in nothing but whitespace share one."""
    return [hashlib.sha256(" ".join(text.split()).encode()).hexdigest()[:16] for text in texts]


def conflicting_groups(groups: Sequence[str], labels: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The groups whose documents carry more than one label, with those labels in sorted order."""
    found: dict[str, set[str]] = defaultdict(set)
    for group, label in zip(groups, labels, strict=True):
        found[group].add(label)
    return {group: tuple(sorted(names)) for group, names in sorted(found.items()) if len(names) > 1}
