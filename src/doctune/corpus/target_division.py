"""Which labelled texts train, choose and judge: by their tables, by a saved split, or stratified by a target."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from doctune.corpus.account import AccountRow
from doctune.corpus.division import MERGED_LABEL, LabelledDocument, SplitSettings, read_saved_parts
from doctune.corpus.iterative_splits import iterative_folds, iterative_holdout
from doctune.corpus.sieve import Sieve
from doctune.corpus.splits import folds, holdout, leaking_groups, small_classes
from doctune.corpus.targets import MULTI, LabelledText, Target, describe
from doctune.errors import DataError

_EXAMPLES = 3


@dataclass(frozen=True)
class PlacedText:
    """A text on its way to a part: `given` is the part of its file, `exact` and `group` are its duplicate groups."""

    text: LabelledText
    given: str
    file: str
    exact: str = ""
    group: str = ""
    part: str = ""
    fold: int | None = None

    def document(self) -> LabelledDocument:
        """What splits and predictions know of it."""
        text = self.text
        content = hashlib.sha256(text.text.encode()).hexdigest()
        return LabelledDocument(
            text.id, text.place, describe(text), content, self.part, self.exact, self.group, self.fold
        )


def account_row(placed: PlacedText, part: str, status: str, reason: str) -> AccountRow:
    """The row of the account for a text."""
    return AccountRow(placed.text.place, describe(placed.text), part, status, reason, placed.group)


@dataclass(frozen=True)
class _Stratifier:
    """How texts are divided: stratified by a target; texts with conflicting labels only train."""

    target: Target
    split: SplitSettings
    conflicts: frozenset[str]

    def only_train(self, placed: Sequence[PlacedText]) -> set[str]:
        return {each.group for each in placed if each.exact in self.conflicts}

    def held_out(self, placed: Sequence[PlacedText], shares: Mapping[str, float]) -> list[PlacedText]:
        arguments: dict[str, Any] = {
            "shares": shares,
            "seed": self.split.seed,
            "only_train": self.only_train(placed),
        }
        groups = [each.group for each in placed]
        if self.target.kind == MULTI:
            parts = iterative_holdout(self._labels(placed), groups, **arguments)
        else:
            parts = holdout(self._label(placed), groups, **arguments)
        return [replace(each, part=part) for each, part in zip(placed, parts, strict=True)]

    def folded(self, placed: Sequence[PlacedText]) -> list[PlacedText]:
        """As `division.divide` has it: the fold is the test part, and validation comes out of the rest."""
        split, groups, only_train = self.split, [each.group for each in placed], self.only_train(placed)
        if self.target.kind == MULTI:
            numbers = iterative_folds(self._labels(placed), groups, num_folds=split.num_folds, seed=split.seed)
        else:
            numbers = folds(self._label(placed), groups, num_folds=split.num_folds, seed=split.seed)
        numbered = [
            replace(each, fold=None if each.group in only_train else number)
            for each, number in zip(placed, numbers, strict=True)
        ]
        rest = self.held_out([each for each in numbered if each.fold != split.fold], {"val": split.val})
        part_of = {each.text.place: each.part for each in rest}
        return [replace(each, part=part_of.get(each.text.place, "test")) for each in numbered]

    def _labels(self, placed: Sequence[PlacedText]) -> list[tuple[str, ...]]:
        return [each.text.targets.get(self.target.name, ()) for each in placed]

    def _label(self, placed: Sequence[PlacedText]) -> list[str]:
        """Texts without the target are a class of their own."""
        return [labels[0] if labels else "" for labels in self._labels(placed)]


def divide_texts(
    sieve: Sieve[PlacedText],
    target: Target,
    split: SplitSettings,
    *,
    given: Collection[str],
    conflicts: Collection[str],
) -> None:
    """Give every text that is still in use its part, or leave it out for a reason.

    Args:
        sieve: texts with their duplicate groups.
        target: by which parts are stratified.
        split: see `target_corpus.prepare_targets`.
        given: the parts that have tables of their own.
        conflicts: the exact groups that only train.

    Raises:
        DataError: labels too small, or a saved split that is unusable or leaks.
    """
    if split.file is not None:
        _divide_by_file(sieve, split.file)
        return
    divider = _Stratifier(target, split, frozenset(conflicts))
    shares = {part: share for part, share in (("test", split.test), ("val", split.val)) if part not in given}
    sieve.kept = [replace(each, part=each.given) for each in sieve.kept]
    if not shares:
        return
    _settle_small_labels(sieve, divider, split.min_groups() if split.fold is not None else 1 + len(shares))
    dividing = [each for each in sieve.kept if each.given == "train"]
    divided = divider.folded(dividing) if split.fold is not None else divider.held_out(dividing, shares)
    sieve.kept = [*divided, *(each for each in sieve.kept if each.given != "train")]


def _settle_small_labels(sieve: Sieve[PlacedText], divider: _Stratifier, needed: int) -> None:
    """Refuse, merge or take away the labels with too few texts that divide, in all texts."""
    dividing = [each for each in sieve.kept if each.given == "train"]
    small = _small_labels(dividing, divider.only_train(dividing), needed)
    policy = divider.split.small_classes
    if small and policy == "fail":
        raise DataError(_too_small(small, needed))
    if not small:
        return
    merged = MERGED_LABEL if policy == "merge" else None
    sieve.kept = [replace(each, text=_without(each.text, small, merged)) for each in sieve.kept]
    if merged:
        _require_mergeable(sieve, divider, needed)
    reason = f"all of its labels have fewer than {needed} different texts"
    sieve.leave_out("small_class", lambda each: "" if each.text.targets else reason)


def _require_mergeable(sieve: Sieve[PlacedText], divider: _Stratifier, needed: int) -> None:
    dividing = [each for each in sieve.kept if each.given == "train"]
    for target, counts in _small_labels(dividing, divider.only_train(dividing), needed).items():
        raise DataError(
            f"Even together the small labels of {target!r} have only {counts[MERGED_LABEL]} different texts of "
            f"{needed}. Take them away with split.small_classes=drop."
        )


def _small_labels(placed: Sequence[PlacedText], only_train: Collection[str], needed: int) -> dict[str, dict[str, int]]:
    """By target, the labels with too few groups that may judge, and how many they have."""
    labels: dict[str, list[str]] = defaultdict(list)
    groups: dict[str, list[str]] = defaultdict(list)
    everything: dict[str, set[str]] = defaultdict(set)
    for each in placed:
        for target, found in each.text.targets.items():
            everything[target].update(found)
            if each.group not in only_train:
                labels[target] += found
                groups[target] += [each.group] * len(found)
    small = {}
    for target, names in everything.items():
        counts = dict.fromkeys(names - set(labels[target]), 0) | small_classes(labels[target], groups[target], needed)
        small[target] = dict(sorted(counts.items()))
    return {target: counts for target, counts in small.items() if counts}


def _too_small(small: Mapping[str, Mapping[str, int]], needed: int) -> str:
    counted = "; ".join(
        f"{target}: {', '.join(f'{label} ({count})' for label, count in counts.items())}"
        for target, counts in small.items()
    )
    return (
        f"Every label must reach all parts, so it needs {needed} texts that are not copies of each other. Too small: "
        f"{counted}. Add texts, take such labels away with split.small_classes=drop, or put those of a target together "
        f"as {MERGED_LABEL!r} with split.small_classes=merge."
    )


def _without(text: LabelledText, small: Mapping[str, Collection[str]], merged: str | None) -> LabelledText:
    """The text with its small labels merged or taken away; a target whose only label is taken away is missing."""
    if not any(set(labels) & set(small.get(target, ())) for target, labels in text.targets.items()):
        return text
    kept = {}
    for target, labels in text.targets.items():
        gone = small.get(target, ())
        renamed = {merged if label in gone else label for label in labels}
        left = tuple(sorted(label for label in renamed if label is not None))
        if left or not labels:
            kept[target] = left
    return replace(text, targets=kept)


def _divide_by_file(sieve: Sieve[PlacedText], file: Path) -> None:
    saved = read_saved_parts(file)
    sieve.leave_out("not_in_split", lambda each: "" if each.text.id in saved else f"{file} does not have it")
    sieve.kept = [replace(each, part=saved[each.text.id]) for each in sieve.kept]
    leaks = leaking_groups([each.group for each in sieve.kept], [each.part for each in sieve.kept])
    if leaks:
        places = [
            " and ".join(f"{each.text.place} ({each.part})" for each in sieve.kept if each.group == group)
            for group in list(leaks)[:_EXAMPLES]
        ]
        raise DataError(
            f"split.file={file} leaks: {len(leaks)} groups of copies stand in more than one part, such as "
            f"{'; '.join(places)}. Make a new split (leave split.file out), or remove the copies."
        )
