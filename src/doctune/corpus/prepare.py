"""Manifest rows -> a corpus: texts in the store, duplicate groups, parts, and an account of every row."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from doctune.corpus.account import LEFT_OUT, AccountRow, audit, write_account
from doctune.corpus.division import Division, LabelledDocument, SplitSettings, divide, write_splits
from doctune.corpus.grouping import groups_of
from doctune.corpus.manifest import Manifest, Row
from doctune.corpus.splits import PARTS
from doctune.corpus.store import Entry, Extract, Texts, TextStore
from doctune.errors import DataError
from doctune.files import write_json
from doctune.labels import Labels

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Corpus:
    """Everything that training needs to know of the documents; the texts stay on disk.

    `conflicts` are the texts that stand under more than one label, with those labels.
    """

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
        write_splits(self.documents, folder / "splits.parquet")


def prepare(
    manifest: Manifest,
    store: TextStore,
    extract: Extract,
    *,
    min_confidence: float,
    max_unusable: float,
    duplicate_threshold: float,
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
    division = divide(_identify(usable, store, duplicate_threshold), split)
    account = _account(manifest, min_confidence, confident, entries, division)
    return Corpus(division.documents, tuple(account), dict(division.conflicts), store)


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


def _identify(usable: Sequence[tuple[Row, Entry]], store: TextStore, threshold: float) -> list[LabelledDocument]:
    """Documents in path order; the same content at a second place gets an id of its own."""
    ordered = sorted(usable, key=lambda pair: str(pair[0].path))
    contents = [str(entry.content) for _, entry in ordered]
    groups = groups_of(store, contents, threshold)
    seen: Counter[str] = Counter()
    documents = []
    for (row, _), content, text, group in zip(ordered, contents, groups.exact, groups.near, strict=True):
        seen[content] += 1
        suffix = f"-{seen[content]}" if seen[content] > 1 else ""
        name = content[:16] + suffix
        documents.append(LabelledDocument(name, str(row.path), row.label, content, text, group, LEFT_OUT))
    return documents


def _account(
    manifest: Manifest,
    min_confidence: float,
    confident: Sequence[Row],
    entries: Sequence[Entry],
    division: Division,
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
    rows += [AccountRow(d.path, d.label, LEFT_OUT, why, reason, d.group) for d, why, reason in division.left_out]
    remarks = {str(row.path): (row.label, entry.reason) for row, entry in zip(confident, entries, strict=True)}
    rows += [
        AccountRow(d.path, d.label, d.part, "ok", _remark(d, *remarks[d.path]), d.group) for d in division.documents
    ]
    return sorted(rows, key=lambda row: (row.path, row.label, row.reason))


def _remark(document: LabelledDocument, given_label: str, reading: str) -> str:
    merged = f"its class {given_label} was too small" if given_label != document.label else ""
    return "; ".join(part for part in (merged, reading) if part)


def describe_account(corpus: Corpus) -> str:
    """One line of totals: "80 train, 10 val, 10 test; left out: 3 empty, 1 damaged"."""
    parts = ", ".join(f"{len(corpus.part(part))} {part}" for part in PARTS)
    reasons = Counter(row.status for row in corpus.account if row.part == LEFT_OUT)
    left_out = ", ".join(f"{count} {status}" for status, count in reasons.most_common())
    return f"{parts}; left out: {left_out or 'none'}"
