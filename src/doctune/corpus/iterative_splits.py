"""Leak-free parts of multi-label texts, by iterative stratification; those of one label each are in `splits`.

K. Sechidis, G. Tsoumakas and I. Vlahavas, "On the stratification of multi-label data", ECML PKDD 2011, algorithm 1: the
label with the fewest texts left is dealt with first, as it is the one that could be lost; each of its texts goes to the
part that wants most of that label, of those to the part that wants most texts. Texts without labels come last.

Three things are ours. Whole duplicate groups move, the largest first, and count with all their texts and labels. Where
the paper draws lots, a hash of the group's name and the seed decides the order of the texts, and the first label and
the first part win, so that the order of the texts does not matter. And a part that is held out wants at least one text
of each label that has enough groups for all parts: with a share of 0.1 it would want 0.3 of 3 texts and get none.

Shapes: N texts, G groups, L labels, P parts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]
Ids = NDArray[np.int64]


def iterative_holdout(
    label_sets: Sequence[Collection[str]],
    groups: Sequence[str],
    *,
    shares: Mapping[str, float],
    seed: int,
    only_train: Collection[str] = (),
) -> list[str]:
    """The part of each text: "train" or one of the parts that `shares` names.

    Args:
        label_sets: the labels of each text, any number of them.
        groups: the duplicate group of each text.
        shares: of the texts, by part.
        seed: with the names of the groups it determines the order.
        only_train: groups that stay in training.
    """
    tally = _tally(label_sets, groups, seed, left_out=only_train)
    parts = ["train", *shares]
    wanted = _wanted(tally, [1 - sum(shares.values()), *shares.values()])
    _want_every_label(wanted, tally)
    placed = distribute(tally.labels, tally.sizes, wanted)
    part_of = {name: parts[part] for name, part in zip(tally.names, placed.tolist(), strict=True)}
    return [part_of.get(group, "train") for group in groups]


def iterative_folds(
    label_sets: Sequence[Collection[str]], groups: Sequence[str], *, num_folds: int, seed: int
) -> list[int]:
    """The fold of each text, 0 to `num_folds` - 1; arguments as in `iterative_holdout`."""
    tally = _tally(label_sets, groups, seed)
    placed = distribute(tally.labels, tally.sizes, _wanted(tally, [1 / num_folds] * num_folds))
    fold_of = dict(zip(tally.names, placed.tolist(), strict=True))
    return [fold_of[group] for group in groups]


@dataclass(frozen=True)
class Wanted:
    """How many texts each part should get: of each label (P, L), and in all (P,)."""

    labels: Floats
    texts: Floats


def distribute(labels: Counts, sizes: Counts, wanted: Wanted) -> Ids:
    """The part of each group, (G,), by the greedy rule above.

    Args:
        labels: texts with each label in each group, (G, L).
        sizes: texts in each group, (G,); of groups with a label the largest is placed first, of equal ones the first.
        wanted: left as it is.
    """
    open_labels, open_texts = wanted.labels.copy(), wanted.texts.copy()
    order = np.argsort(-sizes, kind="stable")
    part_of = np.full(len(sizes), -1)

    def place(group: int, wishes: Floats) -> None:
        most = np.flatnonzero(wishes == wishes.max())
        part = most[open_texts[most].argmax()]
        part_of[group] = part
        open_labels[part] -= labels[group]
        open_texts[part] -= sizes[group]

    left = labels.sum(axis=0)
    while left.any():
        rarest = int(np.where(left > 0, left, np.iinfo(np.int64).max).argmin())
        members = order[(part_of[order] < 0) & (labels[order, rarest] > 0)]
        for group in members:
            place(group, open_labels[:, rarest])
        left = left - labels[members].sum(axis=0)
    for group in order[part_of[order] < 0]:
        place(group, open_texts)
    return part_of


@dataclass(frozen=True)
class _Tally:
    """Groups in the order of their hashes: texts with each label (G, L), and all texts (G,)."""

    names: tuple[str, ...]
    labels: Counts
    sizes: Counts


def _tally(
    label_sets: Sequence[Collection[str]], groups: Sequence[str], seed: int, left_out: Collection[str] = ()
) -> _Tally:
    names = sorted(set(groups) - set(left_out), key=lambda name: _order(name, seed))
    labels = sorted({label for found in label_sets for label in found})
    place = {name: row for row, name in enumerate(names)}
    column = {label: number for number, label in enumerate(labels)}
    counts, sizes = np.zeros((len(names), len(labels)), np.int64), np.zeros(len(names), np.int64)
    for found, group in zip(label_sets, groups, strict=True):
        if group in place:
            sizes[place[group]] += 1
            counts[place[group], [column[label] for label in set(found)]] += 1
    return _Tally(tuple(names), counts, sizes)


def _wanted(tally: _Tally, shares: Sequence[float]) -> Wanted:
    each = np.asarray(shares)
    return Wanted(each[:, None] * tally.labels.sum(axis=0), each * tally.sizes.sum())


def _want_every_label(wanted: Wanted, tally: _Tally) -> None:
    """Let the parts after the first want one text at least of each label with enough groups, at the first's cost."""
    is_enough = (tally.labels > 0).sum(axis=0) >= len(wanted.labels)
    held_out = wanted.labels[1:]
    raised = np.where(is_enough, np.maximum(held_out, 1.0), held_out)
    wanted.labels[0] -= (raised - held_out).sum(axis=0)
    held_out[:] = raised


def _order(group: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{group}".encode()).hexdigest()
