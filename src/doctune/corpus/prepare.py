"""Manifest rows -> a corpus: texts in the store, duplicate groups, parts, and an account of every row."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from doctune.corpus.account import LEFT_OUT, AccountRow, audit, write_account
from doctune.corpus.duplicates import conflicting_groups, text_groups
from doctune.corpus.manifest import Manifest, Row
from doctune.corpus.splits import MIN_GROUPS, PARTS, holdout, small_classes
from doctune.corpus.store import Entry, Extract, Texts, TextStore
from doctune.errors import DataError
from doctune.files import write_json, written_whole
from doctune.labels import Labels

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SplitSettings:
    """How documents are divided; see `splits.holdout`. `small_classes` is "fail" or "drop"."""

    val: float = 0.1
    test: float = 0.1
    seed: int = 42
    small_classes: str = "fail"


@dataclass(frozen=True)
class LabelledDocument:
    """One usable document; `id` is taken from its content, `content` is its key in the store."""

    id: str
    path: str
    label: str
    content: str
    group: str
    part: str


@dataclass(frozen=True)
class Corpus:
    """Everything that training needs to know of the documents; the texts stay on disk."""

    documents: tuple[LabelledDocument, ...]
    account: tuple[AccountRow, ...]
    conflicts: dict[str, tuple[str, ...]]
    store: TextStore

    @cached_property
    def labels(self) -> Labels:
        """The labels that occur."""
        return Labels.from_values(document.label for document in self.documents)

    def part(self, name: str) -> tuple[LabelledDocument, ...]:
        """The documents of "train", "val" or "test"."""
        return tuple(document for document in self.documents if document.part == name)

    def texts(self, documents: Sequence[LabelledDocument]) -> Texts:
        """The texts of some documents, read when asked for."""
        return self.store.texts([document.content for document in documents])

    def label_ids(self, documents: Sequence[LabelledDocument]) -> list[int]:
        """The label ids of some documents."""
        return self.labels.encode([document.label for document in documents])

    def write(self, folder: Path) -> None:
        """Write `labels.json`, `splits.parquet`, `account.csv` and `audit.json`."""
        write_json(folder / "labels.json", list(self.labels.names))
        write_account(self.account, folder / "account.csv")
        write_json(folder / "audit.json", audit(self.account, self.conflicts))
        _write_splits(self.documents, folder / "splits.parquet")


def prepare(
    manifest: Manifest,
    store: TextStore,
    extract: Extract,
    *,
    min_confidence: float,
    max_unusable: float,
    split: SplitSettings,
) -> Corpus:
    """Extract, group and split the documents of a manifest.

    Raises:
        DataError: too many unusable rows, fewer than two classes, or classes too small for the split.
    """
    confident = [row for row in manifest.rows if row.confidence >= min_confidence]
    _require_rows(manifest, confident, min_confidence)
    entries = store.fill([row.path for row in confident], extract, on_wait=_say_waiting)
    _refuse_too_many_unusable(confident, entries, max_unusable)
    usable = [(row, entry) for row, entry in zip(confident, entries, strict=True) if entry.status == "ok"]
    documents = _identify(usable, store)
    kept, conflicts = _divide(documents, split)
    _require_two_classes(kept)
    account = _account(manifest, min_confidence, confident, entries, documents, kept)
    return Corpus(tuple(kept), tuple(account), conflicts, store)


def _say_waiting() -> None:
    log.info("Another run is filling the text store: waiting for it to finish.")


def _require_rows(manifest: Manifest, confident: Sequence[Row], min_confidence: float) -> None:
    if not confident:
        raise DataError(
            f"{manifest.source}: none of its {len(manifest.rows)} rows has a confidence of at least {min_confidence}. "
            "Lower data.min_confidence."
        )


def _refuse_too_many_unusable(rows: Sequence[Row], entries: Sequence[Entry], max_unusable: float) -> None:
    reasons = Counter(entry.status for entry in entries if entry.status != "ok")
    unusable = sum(reasons.values())
    if unusable <= max_unusable * len(rows):
        return
    counted = ", ".join(f"{count} {status}" for status, count in reasons.most_common())
    first = next(index for index, entry in enumerate(entries) if entry.status != "ok")
    raise DataError(
        f"{unusable} of {len(rows)} files cannot be used ({counted}), more than data.max_unusable={max_unusable} "
        f"allows. The first: {rows[first].path} (row {rows[first].line}): {entries[first].reason}. "
        "Mend the manifest, or raise data.max_unusable to go on without them."
    )


def _identify(usable: Sequence[tuple[Row, Entry]], store: TextStore) -> list[LabelledDocument]:
    """Documents in path order; the same content at a second place gets an id of its own."""
    ordered = sorted(usable, key=lambda pair: str(pair[0].path))
    contents = [str(entry.content) for _, entry in ordered]
    seen: Counter[str] = Counter()
    documents = []
    for (row, _), content, group in zip(ordered, contents, text_groups(store.texts(contents)), strict=True):
        seen[content] += 1
        suffix = f"-{seen[content]}" if seen[content] > 1 else ""
        documents.append(LabelledDocument(content[:16] + suffix, str(row.path), row.label, content, group, LEFT_OUT))
    return documents


def _divide(
    documents: Sequence[LabelledDocument], split: SplitSettings
) -> tuple[list[LabelledDocument], dict[str, tuple[str, ...]]]:
    small = small_classes([d.label for d in documents], [d.group for d in documents])
    if small and split.small_classes == "fail":
        raise DataError(_small_classes_message(small))
    kept = [document for document in documents if document.label not in small]
    labels, groups = [d.label for d in kept], [d.group for d in kept]
    conflicts = conflicting_groups(groups, labels)
    parts = holdout(labels, groups, val=split.val, test=split.test, seed=split.seed, only_train=conflicts)
    return [replace(document, part=part) for document, part in zip(kept, parts, strict=True)], conflicts


def _small_classes_message(small: dict[str, int]) -> str:
    counted = ", ".join(f"{label} ({count})" for label, count in small.items())
    return (
        "Training, validation and test each need a document of every class, so a class needs "
        f"{MIN_GROUPS} that are not copies of each other. Too small: {counted}. "
        "Add documents, or leave such classes out with split.small_classes=drop."
    )


def _require_two_classes(documents: Sequence[LabelledDocument]) -> None:
    names = sorted({document.label for document in documents})
    if len(names) < 2:
        found = f"only {names[0]!r} is" if names else "none is"
        raise DataError(f"A classifier needs at least two classes with enough usable documents; {found} left.")


def _account(
    manifest: Manifest,
    min_confidence: float,
    confident: Sequence[Row],
    entries: Sequence[Entry],
    documents: Sequence[LabelledDocument],
    kept: Sequence[LabelledDocument],
) -> list[AccountRow]:
    """One row per row of the manifest, in path order."""
    rows = [AccountRow(r.path, r.label, LEFT_OUT, "rejected", r.reason, "") for r in manifest.rejected]
    for row in manifest.rows:
        if row.confidence < min_confidence:
            reason = f"confidence {row.confidence} is below {min_confidence}"
            rows.append(AccountRow(str(row.path), row.label, LEFT_OUT, "low_confidence", reason, ""))
    for row, entry in zip(confident, entries, strict=True):
        if entry.status != "ok":
            rows.append(AccountRow(str(row.path), row.label, LEFT_OUT, entry.status, entry.reason, ""))
    partly_read = {str(row.path): entry.reason for row, entry in zip(confident, entries, strict=True)}
    kept_paths = {document.path for document in kept}
    for document in documents:
        if document.path not in kept_paths:
            reason = f"its class has fewer than {MIN_GROUPS} different documents"
            rows.append(AccountRow(document.path, document.label, LEFT_OUT, "small_class", reason, document.group))
    for d in kept:
        rows.append(AccountRow(d.path, d.label, d.part, "ok", partly_read[d.path], d.group))
    return sorted(rows, key=lambda row: (row.path, row.label, row.reason))


def _write_splits(documents: Sequence[LabelledDocument], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: [getattr(d, name) for d in documents] for name in ("id", "path", "label", "group", "part")}
    table = pa.table({**columns, "fold": pa.nulls(len(documents), pa.int32())})
    with written_whole(path) as temporary:
        pq.write_table(table, temporary)


def part_sizes(corpus: Corpus) -> dict[str, int]:
    """How many documents each part has."""
    return {part: len(corpus.part(part)) for part in PARTS}
