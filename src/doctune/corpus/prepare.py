"""Manifest rows -> a corpus: texts in the store, duplicate groups, parts, and an account of every row."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from doctune.corpus.account import LEFT_OUT, AccountRow, totals, write_account
from doctune.corpus.division import MERGED_LABEL, Division, LabelledDocument, SplitSettings, divide, write_splits
from doctune.corpus.duplicates import DuplicateGroups
from doctune.corpus.grouping import groups_of
from doctune.corpus.manifest import Manifest, Row
from doctune.corpus.splits import MIN_GROUPS, PARTS
from doctune.corpus.store import Entry, Extract, Texts, TextStore
from doctune.errors import DataError
from doctune.files import write_json
from doctune.labels import Labels

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Corpus:
    """Everything that training needs to know of the documents; the texts stay on disk.

    `groups` are those of the documents, in their order; `conflicts` are the texts under more than one label, with those
    labels.
    """

    source: Path
    documents: tuple[LabelledDocument, ...]
    groups: DuplicateGroups
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

    def write(self, folder: Path, findings: Mapping[str, Any]) -> None:
        """Write `labels.json`, `splits.parquet`, `account.csv` and `audit.json`, which has `findings` too."""
        write_json(folder / "labels.json", list(self.labels.names))
        write_account(self.account, folder / "account.csv")
        write_json(folder / "audit.json", totals(self.account, self.conflicts) | dict(findings))
        write_splits(self.documents, folder / "splits.parquet")

    def left_out(self) -> list[AccountRow]:
        """The rows of the account that are in no part."""
        return [row for row in self.account if row.part == LEFT_OUT]


def fingerprint(documents: Sequence[LabelledDocument]) -> str:
    """What identifies documents, their labels, parts and contents; not where they lie."""
    digest = hashlib.sha256()
    for document in documents:
        digest.update(f"{document.id}\0{document.label}\0{document.part}\0{document.content}\n".encode())
    return digest.hexdigest()[:16]


def prepare(
    manifest: Manifest,
    store: TextStore,
    extract: Extract,
    *,
    min_confidence: float,
    max_unusable: float,
    duplicate_threshold: float,
    split: SplitSettings,
    max_documents: int | None = None,
) -> Corpus:
    """Extract, group and split the documents of a manifest, or of a sample of it.

    Raises:
        DataError: too many unusable rows, fewer than two classes, or classes too small for the split.
    """
    ungrouped, left_out = read_documents(manifest, store, extract, min_confidence, _say_waiting, max_documents)
    _refuse_too_many_unusable(manifest, left_out, len(ungrouped), max_unusable)
    documents, groups = group_documents(ungrouped, store, duplicate_threshold)
    try:
        division = divide(documents, split)
    except DataError as error:
        if max_documents is None or split.file is not None:  # whose mistakes are not those of a sample
            raise
        raise DataError(
            f"{error} (data.max_documents={max_documents} reads a sample, in which copies of a text count once: raise "
            "it, or leave it out.)"
        ) from error
    if division.merged:
        log.info("Too small, now part of %r: %s.", MERGED_LABEL, ", ".join(division.merged))
    places = {document.id: place for place, document in enumerate(documents)}
    kept = groups.only([places[document.id] for document in division.documents])
    account = _account(left_out, division, {document.id: document.label for document in documents})
    return Corpus(manifest.source, division.documents, kept, tuple(account), dict(division.conflicts), store)


def read_documents(
    manifest: Manifest,
    store: TextStore,
    extract: Extract,
    min_confidence: float,
    on_wait: Callable[[], None] | None = None,
    max_documents: int | None = None,
) -> tuple[list[LabelledDocument], list[AccountRow]]:
    """The usable documents in path order, not grouped yet, and a row of the account for everything else.

    `on_wait` is called where another process is filling the store. Only a `sample` is read where `max_documents` is
    given.

    Raises:
        DataError: no row reaches `min_confidence`.
    """
    confident = [row for row in manifest.rows if row.confidence >= min_confidence]
    _require_rows(manifest, confident, min_confidence)
    chosen = confident if max_documents is None else sample(confident, max_documents)
    entries = store.fill([row.path for row in chosen], extract, on_wait)
    read = list(zip(chosen, entries, strict=True))
    left_out = [AccountRow(r.path, r.label, LEFT_OUT, "rejected", r.reason, "") for r in manifest.rejected]
    for row in manifest.rows:
        if row.confidence < min_confidence:
            reason = f"confidence {row.confidence} is below {min_confidence}"
            left_out.append(AccountRow(str(row.path), row.label, LEFT_OUT, "low_confidence", reason, ""))
    lines = {row.line for row in chosen}
    left_out += [
        AccountRow(str(row.path), row.label, LEFT_OUT, "not_sampled", f"not in a sample of {max_documents}", "")
        for row in confident
        if row.line not in lines
    ]
    left_out += [
        AccountRow(str(row.path), row.label, LEFT_OUT, entry.status, entry.reason, "")
        for row, entry in read
        if entry.status != "ok"
    ]
    return _identify([(row, entry) for row, entry in read if entry.status == "ok"]), left_out


def sample(rows: Sequence[Row], num_documents: int) -> list[Row]:
    """About so many rows, each class in proportion, but never fewer than a split needs; always the same ones.

    They are chosen by a hash of their paths, so that a row's neighbours in the manifest do not matter.
    """
    share = num_documents / len(rows)
    counts = Counter(row.label for row in rows)
    left = {label: max(MIN_GROUPS, round(share * count)) for label, count in counts.items()}
    chosen = set()
    for row in sorted(rows, key=lambda row: hashlib.sha256(str(row.path).encode("utf-8", "surrogateescape")).digest()):
        if left[row.label] > 0:
            left[row.label] -= 1
            chosen.add(row.line)
    return [row for row in rows if row.line in chosen]


def group_documents(
    documents: Sequence[LabelledDocument], store: TextStore, threshold: float
) -> tuple[list[LabelledDocument], DuplicateGroups]:
    """The documents with their duplicate groups filled in, and the groups in the same order."""
    groups = groups_of(store, [document.content for document in documents], threshold)
    names = zip(documents, groups.exact, groups.near, strict=True)
    return [replace(document, text=exact, group=near) for document, exact, near in names], groups


def _say_waiting() -> None:
    log.info("Another run is filling the text store: waiting for it to finish.")


def _require_rows(manifest: Manifest, confident: Sequence[Row], min_confidence: float) -> None:
    if not confident:
        raise DataError(
            f"{manifest.source}: none of its {len(manifest.rows)} rows has a confidence of at least {min_confidence}. "
            "Lower data.min_confidence."
        )


def _refuse_too_many_unusable(
    manifest: Manifest, left_out: Sequence[AccountRow], num_usable: int, max_unusable: float
) -> None:
    """Rows that nobody wanted to use are no failure; all others that are left out count."""
    unusable = [row for row in left_out if row.status not in ("low_confidence", "not_sampled")]
    total = num_usable + len(unusable)
    if len(unusable) <= max_unusable * total:
        return
    counted = ", ".join(f"{count} {status}" for status, count in Counter(row.status for row in unusable).most_common())
    lines = {str(row.path): row.line for row in manifest.rows} | {row.path: row.line for row in manifest.rejected}
    first = min(unusable, key=lambda row: lines[row.path])
    raise DataError(
        f"{len(unusable)} of {total} files cannot be used ({counted}), more than data.max_unusable={max_unusable} "
        f"allows. The first: {first.path} (row {lines[first.path]}): {first.reason}. "
        "Mend the manifest, or raise data.max_unusable to go on without them."
    )


def _identify(usable: Sequence[tuple[Row, Entry]]) -> list[LabelledDocument]:
    """Documents in path order; the same content at a second place gets an id of its own."""
    seen: Counter[str] = Counter()
    documents = []
    for row, entry in sorted(usable, key=lambda pair: str(pair[0].path)):
        content = str(entry.content)
        seen[content] += 1
        name = content[:16] + (f"-{seen[content]}" if seen[content] > 1 else "")
        documents.append(LabelledDocument(name, str(row.path), row.label, content, LEFT_OUT, remark=entry.reason))
    return documents


def _account(left_out: Sequence[AccountRow], division: Division, given_labels: Mapping[str, str]) -> list[AccountRow]:
    """One row per row of the manifest, in path order."""
    rows = [*left_out]
    rows += [AccountRow(d.path, d.label, LEFT_OUT, why, reason, d.group) for d, why, reason in division.left_out]
    for d in division.documents:
        rows.append(AccountRow(d.path, d.label, d.part, "ok", _remark(d, given_labels[d.id]), d.group))
    return sorted(rows, key=lambda row: (row.path, row.label, row.reason))


def _remark(document: LabelledDocument, given_label: str) -> str:
    merged = f"its class {given_label} was too small" if given_label != document.label else ""
    return "; ".join(part for part in (merged, document.remark) if part)


def describe_account(corpus: Corpus) -> str:
    """One line of totals: "80 train, 10 val, 10 test; left out: 3 empty, 1 damaged"."""
    parts = ", ".join(f"{len(corpus.part(part))} {part}" for part in PARTS)
    reasons = Counter(row.status for row in corpus.left_out())
    left_out = ", ".join(f"{count} {status}" for status, count in reasons.most_common())
    return f"{parts}; left out: {left_out or 'none'}"
