"""Labelled texts of several targets -> training, validation and test, and an account of every row.

Parts are given by file, or made here: by duplicate group, and stratified by one target. A validation or test part that
is a file of its own is used as it is; what is removed for its sake are the training texts that it repeats.

Shapes: N texts of a part, L labels of a target.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doctune.corpus.account import LEFT_OUT, AccountRow, write_account
from doctune.corpus.division import LabelledDocument, SplitSettings, write_splits
from doctune.corpus.duplicates import DEFAULT_THRESHOLD, DuplicateGroups, conflicting_groups, text_groups
from doctune.corpus.labelled_rows import LabelledFile, RejectedRow
from doctune.corpus.sieve import Sieve
from doctune.corpus.splits import PARTS
from doctune.corpus.target_division import PlacedText, account_row, divide_texts
from doctune.corpus.targets import (
    LabelledText,
    Target,
    TargetSpec,
    label_counts,
    target_specs,
    truth,
)
from doctune.corpus.text_grouping import groups_of_texts
from doctune.errors import ConfigError, DataError
from doctune.files import write_json


@dataclass(frozen=True)
class PartFiles:
    """The tables by part; a part without a table comes out of the training tables."""

    train: tuple[LabelledFile, ...]
    val: tuple[LabelledFile, ...] = ()
    test: tuple[LabelledFile, ...] = ()

    def of(self, part: str) -> tuple[LabelledFile, ...]:
        """The tables of "train", "val" or "test"."""
        return {"train": self.train, "val": self.val, "test": self.test}[part]


@dataclass(frozen=True)
class TargetCorpus:
    """The texts of all parts, in the order of their files.

    Attributes:
        source: the first training table.
        targets: with their labels, in the order of the heads.
        texts: with the labels of each target that is known.
        documents: the same texts as documents with part, fold and group; `label` is `targets.describe` of the text,
            `content` identifies the text.
        groups: duplicate groups of the texts.
        account: a row for every row of the tables.
        conflicts: texts that have different labels of one target, with their labels; see `prepare_targets`.
    """

    source: Path
    targets: tuple[TargetSpec, ...]
    texts: tuple[LabelledText, ...]
    documents: tuple[LabelledDocument, ...]
    groups: DuplicateGroups
    account: tuple[AccountRow, ...]
    conflicts: Mapping[str, tuple[str, ...]]

    def part(self, name: str) -> tuple[LabelledText, ...]:
        """The texts of "train", "val" or "test"."""
        pairs = zip(self.texts, self.documents, strict=True)
        return tuple(text for text, document in pairs if document.part == name)

    def part_documents(self, name: str) -> tuple[LabelledDocument, ...]:
        """The same as documents, in the same order."""
        return tuple(document for document in self.documents if document.part == name)

    def truth(self, target: TargetSpec, part: str) -> NDArray[np.int64]:
        """What is known of a target in a part; see `targets.truth`."""
        return truth(target, self.part(part))

    def left_out(self) -> list[AccountRow]:
        """The rows of the account that are in no part."""
        return [row for row in self.account if row.part == LEFT_OUT]

    def absent_labels(self, part: str) -> dict[str, list[str]]:
        """The labels that no text of a part has, by target; targets without any are not there."""
        absent = {}
        texts = self.part(part)
        for target in self.targets:
            counts = label_counts(target, texts)
            absent[target.name] = [name for name, count in zip(target.labels.names, counts, strict=True) if not count]
        return {name: labels for name, labels in absent.items() if labels}

    def write(self, folder: Path) -> None:
        """Write `labels.json` (a list per target), `splits.parquet`, `account.csv` and `audit.json`."""
        write_json(folder / "labels.json", {target.name: list(target.labels.names) for target in self.targets})
        write_account(self.account, folder / "account.csv")
        write_json(folder / "audit.json", self.totals())
        write_splits(self.documents, folder / "splits.parquet")

    def totals(self) -> dict[str, Any]:
        """Counts: rows, parts and reasons of the account; texts with each label, and without each target, per part."""
        members = Counter(document.group for document in self.documents)
        return {
            "rows": len(self.account),
            "parts": {name: len(self.part(name)) for name in PARTS} | {LEFT_OUT: len(self.left_out())},
            "left_out_reasons": dict(Counter(row.status for row in self.left_out()).most_common()),
            "targets": {target.name: self._counts(target) for target in self.targets},
            "absent_labels": {part: absent for part in PARTS if (absent := self.absent_labels(part))},
            "duplicate_groups": sum(count > 1 for count in members.values()),
            "duplicate_texts": sum(count for count in members.values() if count > 1),
            "conflicting_texts": len(self.conflicts),
        }

    def _counts(self, target: TargetSpec) -> dict[str, Any]:
        texts = {part: self.part(part) for part in PARTS}
        counts = {part: label_counts(target, found) for part, found in texts.items()}
        return {
            "kind": target.kind,
            "missing": {part: sum(target.name not in text.targets for text in found) for part, found in texts.items()},
            "label_counts": {part: dict(zip(target.labels.names, counts[part], strict=True)) for part in PARTS},
        }


def prepare_targets(
    files: PartFiles,
    targets: Sequence[Target],
    *,
    split: SplitSettings,
    stratify: str | None = None,
    cache: Path,
    duplicate_threshold: float = DEFAULT_THRESHOLD,
    max_unusable: float = 0.2,
    max_train: int | None = None,
) -> TargetCorpus:
    """Give every text its part, or the reason why it has none.

    A training text that stands, as a copy or near-copy, in the file of another part is left out, and so is a validation
    text that stands in the test file. Of texts that divide here, those that have different labels in different rows
    only train; in a part that is a file of its own they judge, since that file is what results are compared on.

    Args:
        files: at least one training table.
        targets: what was read from them.
        split: shares are of the texts that divide; small classes (labels with fewer different texts than parts) fail,
            lose the label or get the label "other" as it says, in every target, where any part is made here.
        stratify: the target by which parts are stratified, iteratively where it is multi-label; None: the first one.
        cache: the cache folder, where duplicate groups are kept.
        duplicate_threshold: see `duplicates.duplicate_groups`.
        max_unusable: the largest share of rows that may be rejected.
        max_train: train on a sample of so many texts, the same ones whatever their order; None: all.

    Raises:
        ConfigError: `stratify` is no target.
        DataError: too many rejected rows, labels too small, a part without texts, a fold beside files of other parts,
            or a saved split that is unusable or leaks.
    """
    by_name = {target.name: target for target in targets}
    if stratify is not None and stratify not in by_name:
        raise ConfigError(f"data.stratify={stratify} is no target; targets: {', '.join(by_name)}.")
    _require_given_or_folds(files, split)
    _refuse_too_many_rejected(files, max_unusable)
    placed, groups = _grouped(_placed(files), cache, duplicate_threshold)
    sieve = Sieve(placed, account_row)
    _leave_out_repeats(sieve, files)
    conflicts = _conflicts(sieve.kept, [target.name for target in targets])
    given = [part for part in ("val", "test") if files.of(part)]
    divide_texts(sieve, by_name[stratify or targets[0].name], split, given=given, conflicts=conflicts)
    _sample_training(sieve, max_train, split.seed)
    _require_all_parts(files.train[0].path, sieve)
    return _corpus(files, targets, placed, groups, sieve, conflicts)


def describe_targets(corpus: TargetCorpus) -> str:
    """A line of totals: "80 train, 10 val, 10 test; left out: 3 empty; targets: mood (4 labels, one per text)"."""
    parts = ", ".join(f"{len(corpus.part(part)):,} {part}" for part in PARTS)
    reasons = Counter(row.status for row in corpus.left_out()).most_common()
    left_out = ", ".join(f"{count:,} {status}" for status, count in reasons)
    words = {True: "several per text", False: "one per text"}
    targets = ", ".join(f"{each.name} ({len(each.labels)} labels, {words[each.is_multi]})" for each in corpus.targets)
    return f"{parts}; left out: {left_out or 'none'}; targets: {targets}"


def _corpus(
    files: PartFiles,
    targets: Sequence[Target],
    placed: Sequence[PlacedText],
    groups: DuplicateGroups,
    sieve: Sieve[PlacedText],
    conflicts: Mapping[str, tuple[str, ...]],
) -> TargetCorpus:
    places = {each.text.place: number for number, each in enumerate(placed)}
    rejected = [
        AccountRow(row.place, "", LEFT_OUT, row.status, row.reason, "")
        for part in PARTS
        for row in _rejected(files, part)
    ]
    used = [account_row(each, each.part, "ok", "") for each in sieve.kept]
    texts = tuple(each.text for each in sieve.kept)
    specs = target_specs(targets, texts)
    _require_choices(files.train[0].path, specs)
    return TargetCorpus(
        files.train[0].path,
        specs,
        texts,
        tuple(each.document() for each in sieve.kept),
        groups.only([places[each.text.place] for each in sieve.kept]),
        tuple(sorted([*rejected, *sieve.left_out, *used], key=lambda row: _line(row.path))),
        conflicts,
    )


# --- before the division -----------------------------------------------------------------------------------------


def _require_given_or_folds(files: PartFiles, split: SplitSettings) -> None:
    given = [part for part in ("val", "test") if files.of(part)]
    if split.fold is not None and given:
        raise DataError(
            f"split.fold={split.fold} would take the test part from the training table, but "
            f"{' and '.join(f'data.{part}' for part in given)} gives parts already. Leave out split.fold "
            "(split=holdout), or give the training table alone."
        )


def _refuse_too_many_rejected(files: PartFiles, max_unusable: float) -> None:
    for part in PARTS:
        for file in files.of(part):
            total = len(file.texts) + len(file.rejected)
            if len(file.rejected) <= max_unusable * total:
                continue
            counted = ", ".join(f"{n} {why}" for why, n in Counter(row.status for row in file.rejected).most_common())
            raise DataError(
                f"{len(file.rejected)} of {total} rows of {file.path} cannot be used ({counted}), more than "
                f"data.max_unusable={max_unusable} allows. The first: {file.rejected[0].reason}. "
                "Mend the table, or raise data.max_unusable to go on without them."
            )


def _names(files: PartFiles) -> dict[Path, str]:
    """What each table is called in the account: its name, or its whole path where two have the same name."""
    paths = [file.path for part in PARTS for file in files.of(part)]
    if len(set(paths)) < len(paths):
        repeated = sorted({str(path) for path in paths if paths.count(path) > 1})
        raise DataError(
            f"{repeated[0]} is given more than once among data.train, data.val and data.test; give it once."
        )
    shared = Counter(path.name for path in paths)
    return {path: path.name if shared[path.name] == 1 else str(path) for path in paths}


def _placed(files: PartFiles) -> list[PlacedText]:
    names = _names(files)
    copies: Counter[str] = Counter()
    return [
        PlacedText(_named(text, names[file.path], copies), part, names[file.path])
        for part in PARTS
        for file in files.of(part)
        for text in file.texts
    ]


def _named(text: LabelledText, file: str, copies: Counter[str]) -> LabelledText:
    """With its place as the account has it and, where there is no id column, an id made from the text.

    The same text at a second place gets an id of its own.
    """
    name = text.id
    if not name:
        (content,) = text_groups([text.text])
        copies[content] += 1
        name = content if copies[content] == 1 else f"{content}-{copies[content]}"
    return replace(text, id=name, place=_renamed(text.place, file))


def _rejected(files: PartFiles, part: str) -> list[RejectedRow]:
    names = _names(files)
    return [
        replace(row, place=_renamed(row.place, names[file.path])) for file in files.of(part) for row in file.rejected
    ]


def _renamed(place: str, file: str) -> str:
    return f"{file}:{place.rpartition(':')[2]}"


def _line(place: str) -> tuple[str, int]:
    file, _, line = place.rpartition(":")
    return file, int(line)


def _grouped(placed: Sequence[PlacedText], cache: Path, threshold: float) -> tuple[list[PlacedText], DuplicateGroups]:
    groups = groups_of_texts(cache, [each.text.text for each in placed], threshold)
    names = zip(placed, groups.exact, groups.near, strict=True)
    return [replace(each, exact=exact, group=near) for each, exact, near in names], groups


def _leave_out_repeats(sieve: Sieve[PlacedText], files: PartFiles) -> None:
    """Leave out what a part that judges more has too, and ids that stand in two tables."""
    for judging, learning in (("test", ("train", "val")), ("val", ("train",))):
        if files.of(judging):
            sieve.leave_out(f"in_{judging}_file", _stands_in(sieve.kept, judging, learning))
    sieve.leave_out("duplicate_id", _is_repeated_id(sieve.kept))


def _stands_in(placed: Sequence[PlacedText], judging: str, learning: Collection[str]) -> Callable[[PlacedText], str]:
    file_of_group = {each.group: each.file for each in reversed(placed) if each.given == judging}
    file_of_id = {each.text.id: each.file for each in reversed(placed) if each.given == judging}

    def reason(each: PlacedText) -> str:
        if each.given not in learning:
            return ""
        if each.group in file_of_group:
            return f"it, or a text nearly like it, stands in {file_of_group[each.group]}, too"
        return f"its id stands in {file_of_id[each.text.id]}, too" if each.text.id in file_of_id else ""

    return reason


def _is_repeated_id(placed: Sequence[PlacedText]) -> Callable[[PlacedText], str]:
    first: dict[str, str] = {}
    for each in placed:
        first.setdefault(each.text.id, each.text.place)

    def reason(each: PlacedText) -> str:
        place = first[each.text.id]
        return "" if place == each.text.place else f"its id {each.text.id!r} is that of {place}"

    return reason


def _conflicts(placed: Sequence[PlacedText], targets: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The exact groups whose rows have different labels of one target."""
    found: dict[str, tuple[str, ...]] = {}
    for target in targets:
        known = [(each.exact, each.text.targets[target]) for each in placed if target in each.text.targets]
        words = [f"{target}: {', '.join(labels) or '-'}" for _, labels in known]
        for group, labels in conflicting_groups([group for group, _ in known], words).items():
            found[group] = (*found.get(group, ()), *labels)
    return dict(sorted(found.items()))


# --- after the division ------------------------------------------------------------------------------------------


def _sample_training(sieve: Sieve[PlacedText], max_train: int | None, seed: int) -> None:
    """Only the texts with the smallest hashes stay, so that their order in the file does not matter."""
    if max_train is None:
        return
    ids = [each.text.id for each in sieve.kept if each.part == "train"]
    chosen = set(sorted(ids, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())[:max_train])
    reason = f"not in a sample of {max_train} of the {len(ids)} texts of the training part"
    sieve.leave_out("not_sampled", lambda each: "" if each.part != "train" or each.text.id in chosen else reason)


def _require_all_parts(source: Path, sieve: Sieve[PlacedText]) -> None:
    missing = [part for part in PARTS if not any(each.part == part for each in sieve.kept)]
    if missing:
        counted = ", ".join(f"{n} {why}" for why, n in Counter(row.status for row in sieve.left_out).most_common())
        raise DataError(
            f"{source} leaves no text for the {' and the '.join(missing)} part; left out: {counted or 'none'}."
        )


def _require_choices(source: Path, specs: Sequence[TargetSpec]) -> None:
    """A single-label target needs two labels; one of several per text applies or not."""
    for spec in specs:
        if len(spec.labels) < (1 if spec.is_multi else 2):
            found = f"only {spec.labels.names[0]!r}" if len(spec.labels) else "no label"
            raise DataError(
                f"{source}: the target {spec.name!r} has {found} in the texts that are used; there is nothing to tell "
                "apart. Leave it out of data.targets, or add texts."
            )
