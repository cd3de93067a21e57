"""Leak-free parts: stratified by label, whole duplicate groups, the same for the same documents in any order."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence

PARTS = ("train", "val", "test")
MIN_GROUPS = len(PARTS)


def holdout(
    labels: Sequence[str],
    groups: Sequence[str],
    *,
    shares: Mapping[str, float],
    seed: int,
    only_train: Collection[str] = (),
) -> list[str]:
    """The part of each document: "train" or one of the parts that `shares` names.

    Each class gives about its share of documents to each of those parts, and at least one group to each where it has
    enough for all parts. A group goes with its most frequent label; those in `only_train` stay in training. Groups are
    ordered by a hash of their name and the seed, so that the order of the documents does not matter.
    """
    members = Counter(groups)
    parts = dict.fromkeys(groups, "train")
    for names in _groups_by_class(labels, groups, only_train, seed):
        parts.update(_held_out(names, members, shares))
    return [parts[group] for group in groups]


def folds(labels: Sequence[str], groups: Sequence[str], *, num_folds: int, seed: int) -> list[int]:
    """The fold of each document, 0 to `num_folds` - 1.

    Within a class the largest groups are placed first, each into the fold that has the fewest documents of the class so
    far, of those into the one with the fewest in all (the greedy rule of scikit-learn's StratifiedGroupKFold).
    """
    members = Counter(groups)
    chosen: dict[str, int] = {}
    totals = [0] * num_folds
    for names in _groups_by_class(labels, groups, (), seed):
        in_class = [0] * num_folds
        for group in sorted(names, key=lambda name: -members[name]):
            fold = min(range(num_folds), key=lambda number: (in_class[number], totals[number], number))
            chosen[group] = fold
            in_class[fold] += members[group]
            totals[fold] += members[group]
    return [chosen[group] for group in groups]


def leaking_groups(groups: Sequence[str], parts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Groups whose documents stand in more than one part, with those parts in sorted order."""
    found: dict[str, set[str]] = defaultdict(set)
    for group, part in zip(groups, parts, strict=True):
        found[group].add(part)
    return {group: tuple(sorted(names)) for group, names in sorted(found.items()) if len(names) > 1}


def small_classes(labels: Sequence[str], groups: Sequence[str], needed: int = MIN_GROUPS) -> dict[str, int]:
    """Classes with fewer than `needed` groups of documents, with the number of groups they have."""
    distinct: dict[str, set[str]] = defaultdict(set)
    for label, group in zip(labels, groups, strict=True):
        distinct[label].add(group)
    return {label: len(names) for label, names in sorted(distinct.items()) if len(names) < needed}


def _groups_by_class(
    labels: Sequence[str], groups: Sequence[str], left_out: Collection[str], seed: int
) -> Iterator[list[str]]:
    """The groups of each class in label order, shuffled by the seed."""
    by_class: dict[str, list[str]] = defaultdict(list)
    for group, label in _group_labels(labels, groups).items():
        if group not in left_out:
            by_class[label].append(group)
    for label in sorted(by_class):
        yield sorted(by_class[label], key=lambda name: _order(name, seed))


def _group_labels(labels: Sequence[str], groups: Sequence[str]) -> dict[str, str]:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for label, group in zip(labels, groups, strict=True):
        counts[group][label] += 1
    return {group: min(counter, key=lambda label: (-counter[label], label)) for group, counter in counts.items()}


def _held_out(groups: Sequence[str], members: Mapping[str, int], shares: Mapping[str, float]) -> dict[str, str]:
    """Groups of one class that leave training; big groups that would overshoot a part are passed over."""
    if len(groups) <= len(shares):
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
