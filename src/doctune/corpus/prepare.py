"""Manifest rows -> a corpus: texts in the store, duplicate groups, parts, and an account of every row."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import heappush, heappushpop
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from doctune import __version__
from doctune.corpus.account import LEFT_OUT, AccountRow
from doctune.corpus.division import MERGED_LABEL, Division, LabelledDocument, SplitSettings, divide
from doctune.corpus.duplicates import DuplicateGroups
from doctune.corpus.file_corpus import Corpus, save_corpus, saved_corpus
from doctune.corpus.grouping import VERSION as GROUPING_VERSION
from doctune.corpus.grouping import groups_of
from doctune.corpus.manifest import Manifest, Row
from doctune.corpus.records import at, columns
from doctune.corpus.splits import MIN_GROUPS
from doctune.corpus.store import Entry, Extract, TextStore
from doctune.errors import DataError

log = logging.getLogger(__name__)

# Raise it when the same rows with the same contents may give another corpus.
_VERSION = 1


@dataclass(frozen=True)
class PrepareSettings:
    """How a manifest becomes a corpus.

    Attributes:
        min_confidence: rows below it are left out.
        max_unusable: the share of rows that may have no text.
        duplicate_threshold: see `duplicates.duplicate_groups`.
        split: how documents are divided.
        max_documents: about so many rows are sampled; None: all.
    """

    min_confidence: float
    max_unusable: float
    duplicate_threshold: float
    split: SplitSettings
    max_documents: int | None = None


def prepare(manifest: Manifest, store: TextStore, extract: Extract, settings: PrepareSettings) -> Corpus:
    """Extract, group and split the documents of a manifest, or of a sample of it.

    Where the same rows with the same contents have been prepared before, the corpus is taken from the cache, and
    memory does not grow with it.

    Raises:
        DataError: too many unusable rows, fewer than two classes, or classes too small for the split.
    """
    chosen = at(manifest.rows, chosen_places(manifest.rows, settings.min_confidence, settings.max_documents))
    split_file = _digest(settings.split.file)
    key = _key(manifest, store, settings, split_file, store.known(path for (path,) in columns(chosen, "path")))
    corpus = saved_corpus(store, key, manifest.source) if key is not None else None
    if corpus is None:
        corpus = _prepare(manifest, store, extract, settings, split_file)
    if corpus.merged:
        log.info("Too small, now part of %r: %s.", MERGED_LABEL, ", ".join(corpus.merged))
    return corpus


def _prepare(
    manifest: Manifest, store: TextStore, extract: Extract, settings: PrepareSettings, split_file: str | None
) -> Corpus:
    read = read_documents(manifest, store, extract, settings.min_confidence, _say_waiting, settings.max_documents)
    _refuse_too_many_unusable(manifest, read.left_out, len(read.documents), settings.max_unusable)
    documents, groups = group_documents(read.documents, store, settings.duplicate_threshold)
    try:
        division = divide(documents, settings.split)
    except DataError as error:
        if settings.max_documents is None or settings.split.file is not None:
            raise  # a saved split's mistakes are not those of a sample
        raise DataError(
            f"{error} (data.max_documents={settings.max_documents} reads a sample, in which copies of a text count "
            "once: raise it, or leave it out.)"
        ) from error
    if _digest(settings.split.file) != split_file:
        raise DataError(f"split.file={settings.split.file} changed while it was read. Start again.")
    places = {document.id: place for place, document in enumerate(documents)}
    kept = groups.only([places[document.id] for document in division.documents])
    account = _account(read.left_out, division, {document.id: document.label for document in documents})
    # Of what has been read, which need not be what was there a moment ago.
    key = _key(manifest, store, settings, split_file, read.entries)
    assert key is not None, "all of it has been read"
    return save_corpus(store, key, manifest.source, division, kept.pairs, account)


def _key(
    manifest: Manifest,
    store: TextStore,
    settings: PrepareSettings,
    split_file: str | None,
    entries: Iterable[Entry | None],
) -> str | None:
    """All that a corpus depends on; None where a file has not been read."""
    versions = [_VERSION, GROUPING_VERSION, __version__]
    shaped_by = [*versions, manifest.key, store.folder.name, settings, split_file]
    digest = hashlib.sha256(repr(shaped_by).encode("utf-8", "surrogatepass"))
    for entry in entries:
        if entry is None:
            return None
        digest.update(f"{entry.content}\0{entry.status}\0{entry.reason}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:16]


def _digest(file: Path | None) -> str | None:
    """Of the bytes of a saved split; None where there is none, or it cannot be read, which reading it will say."""
    if file is None:
        return None
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return None


@dataclass(frozen=True)
class ReadDocuments:
    """What has been read of the rows of a manifest.

    Attributes:
        documents: those with text, in the order of their paths.
        left_out: a row of the account for everything else.
        entries: what the store says of each file that was to be read, in the order of the rows.
    """

    documents: list[LabelledDocument]
    left_out: list[AccountRow]
    entries: list[Entry]


def read_documents(
    manifest: Manifest,
    store: TextStore,
    extract: Extract,
    min_confidence: float,
    on_wait: Callable[[], None] | None = None,
    max_documents: int | None = None,
) -> ReadDocuments:
    """The documents of a manifest, not grouped yet.

    `on_wait` is called where another process is filling the store. Only a `sample` is read where `max_documents` is
    given.

    Raises:
        DataError: no row reaches `min_confidence`.
    """
    chosen = [*at(manifest.rows, chosen_places(manifest.rows, min_confidence, max_documents))]
    _require_rows(manifest, chosen, min_confidence)
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
        for row in manifest.rows
        if row.confidence >= min_confidence and row.line not in lines
    ]
    left_out += [
        AccountRow(str(row.path), row.label, LEFT_OUT, entry.status, entry.reason, "")
        for row, entry in read
        if entry.status != "ok"
    ]
    documents = _identify([(row, entry) for row, entry in read if entry.status == "ok"])
    return ReadDocuments(documents, left_out, entries)


def chosen_places(rows: Sequence[Row], min_confidence: float, max_documents: int | None) -> NDArray[np.int64]:
    """The places of the rows that are to be read, ascending."""
    confidences = np.fromiter((value for (value,) in columns(rows, "confidence")), np.float64, len(rows))
    confident = np.flatnonzero(confidences >= min_confidence)
    return confident if max_documents is None else confident[sample(at(rows, confident), max_documents)]


def sample(rows: Sequence[Row], num_documents: int) -> NDArray[np.int64]:
    """The places of about so many rows, each class in proportion, but never fewer than a split needs.

    They are chosen by a hash of their paths, so that a row's neighbours in the manifest do not matter.
    """
    counts = Counter(label for (label,) in columns(rows, "label"))
    share = num_documents / max(1, len(rows))
    wanted = {label: max(MIN_GROUPS, round(share * count)) for label, count in counts.items()}
    chosen: dict[str, list[tuple[int, int]]] = {label: [] for label in counts}  # heaps: the largest hash stands first
    for place, (path, label) in enumerate(columns(rows, "path", "label")):
        digest = hashlib.sha256(str(path).encode("utf-8", "surrogateescape")).digest()
        heap, entry = chosen[label], (-int.from_bytes(digest, "big"), place)
        if len(heap) < wanted[label]:
            heappush(heap, entry)
        else:
            heappushpop(heap, entry)
    return np.array(sorted(place for heap in chosen.values() for _, place in heap), np.int64)


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
