"""Leak-free parts: stratified by label, whole duplicate groups, the same for the same documents in any order."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence

PARTS = ("train", "val", "test")
MIN_GROUPS = len(PARTS)


def holdout(
    labels: Sequence[str],
    groups: Sequence[str],
    *,
    val: float,
    test: float,
    seed: int,
    only_train: Collection[str] = (),
) -> list[str]:
    """The part of each document: "train", "val" or "test".

    Each class gives about `val` and `test` of its documents to those parts, and at least one group to each where it
    has three or more. A group goes with its most frequent label; those in `only_train` stay in training. Groups are
    ordered by a hash of their name and the seed, so that the order of the documents does not matter.
    """
    members = Counter(groups)
    by_class: dict[str, list[str]] = defaultdict(list)
    for group, label in sorted(_group_labels(labels, groups).items()):
        if group not in only_train:
            by_class[label].append(group)
    parts = dict.fromkeys(groups, "train")
    for names in by_class.values():
        shuffled = sorted(names, key=lambda name: _order(name, seed))
        parts.update(_held_out(shuffled, members, {"test": test, "val": val}))
    return [parts[group] for group in groups]


def small_classes(labels: Sequence[str], groups: Sequence[str]) -> dict[str, int]:
    """Classes with fewer groups of documents than there are parts, with the number of groups."""
    distinct: dict[str, set[str]] = defaultdict(set)
    for label, group in zip(labels, groups, strict=True):
        distinct[label].add(group)
    return {label: len(names) for label, names in sorted(distinct.items()) if len(names) < MIN_GROUPS}


def _group_labels(labels: Sequence[str], groups: Sequence[str]) -> dict[str, str]:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for label, group in zip(labels, groups, strict=True):
        counts[group][label] += 1
    return {group: min(counter, key=lambda label: (-counter[label], label)) for group, counter in counts.items()}


def _held_out(groups: Sequence[str], members: Mapping[str, int], shares: Mapping[str, float]) -> dict[str, str]:
    """Groups of one class that leave training; big groups that would overshoot a part are passed over."""
    if len(groups) < MIN_GROUPS:
        return {}
    total = sum(members[group] for group in groups)
    chosen: dict[str, str] = {}
    for part, share in shares.items():
        wanted, got = max(1, round(share * total)), 0
        for group in groups:
            if group not in chosen and got + members[group] <= wanted:
                chosen[group] = part
                got += members[group]
        if not got:  # every group left is larger than the part: the smallest does the least harm
            chosen[min((g for g in groups if g not in chosen), key=lambda g: members[g])] = part
    return chosen


def _order(group: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{group}".encode()).hexdigest()
