"""Files with one label each, ready to be trained on: their documents, and an account of every row of the manifest.

    <cache>/corpora/<key>/documents.arrow, account.arrow, links.arrow, corpus.json

All of it stays on disk, in the cache, and is mapped; only what is asked for is in memory.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doctune.corpus.account import LEFT_OUT, AccountRow, totals, write_account
from doctune.corpus.division import Division, LabelledDocument, fingerprint, write_splits
from doctune.corpus.duplicates import DuplicateGroups, NearPair
from doctune.corpus.records import Records, columns, read_records, write_records
from doctune.corpus.splits import PARTS
from doctune.corpus.store import Texts, TextStore, mark_used
from doctune.errors import ArtifactError
from doctune.files import write_json
from doctune.labels import Labels


@dataclass(frozen=True)
class Corpus:
    """Everything that training needs to know of the documents.

    Attributes:
        source: where the rows come from.
        key: identifies the rows, what was read of them and how they were divided.
        documents: those in use, in the order of their paths.
        account: what became of each row.
        links: the near-duplicates that link groups, by their places in `documents`.
        totals: of the account, see `account.totals`.
        merged: the classes that became part of "other".
        fingerprint: see `division.fingerprint`.
        store: has the texts.
    """

    source: Path
    key: str
    documents: Records[LabelledDocument]
    account: Records[AccountRow]
    links: Records[NearPair]
    totals: Mapping[str, Any]
    merged: Sequence[str]
    fingerprint: str
    store: TextStore

    @cached_property
    def labels(self) -> Labels:
        """The labels that occur."""
        return Labels.from_values(self.documents.values("label"))

    def part(self, name: str) -> Records[LabelledDocument]:
        """The documents of "train", "val" or "test"."""
        return self._parts[name]

    @cached_property
    def _parts(self) -> Mapping[str, Records[LabelledDocument]]:
        return {name: self.documents.where("part", name) for name in PARTS}

    def texts(self, documents: Sequence[LabelledDocument]) -> Texts:
        """The texts of some documents, read when asked for."""
        return self.store.texts(content for (content,) in columns(documents, "content"))

    def label_ids(self, documents: Records[LabelledDocument]) -> NDArray[np.int64]:
        """The label ids of some documents, shape (N,)."""
        return np.fromiter(map(self.labels.id_of, documents.values("label")), np.int64, len(documents))

    def groups(self) -> DuplicateGroups:
        """The duplicate groups of the documents."""
        exact, near = (tuple(self.documents.values(name)) for name in ("text", "group"))
        return DuplicateGroups(exact, near, tuple(self.links))

    def left_out(self) -> Records[AccountRow]:
        """The rows of the account that are in no part."""
        return self.account.where("part", LEFT_OUT)

    def write(self, folder: Path, findings: Mapping[str, Any]) -> None:
        """Write `labels.json`, `splits.parquet`, `account.csv` and `audit.json`, which has `findings` too."""
        write_json(folder / "labels.json", list(self.labels.names))
        write_account(self.account, folder / "account.csv")
        write_json(folder / "audit.json", {**self.totals, **findings})
        write_splits(self.documents, folder / "splits.parquet")


def save_corpus(
    store: TextStore,
    key: str,
    source: Path,
    division: Division,
    links: Iterable[NearPair],
    account: Sequence[AccountRow],
) -> Corpus:
    """Keep a corpus in the cache under `key`, which says all that it depends on, and give it as it stands there."""
    folder = _folder(store, key)
    write_records(folder / "documents.arrow", LabelledDocument, division.documents)
    write_records(folder / "account.arrow", AccountRow, account)
    write_records(folder / "links.arrow", NearPair, links)
    facts = {
        "totals": totals(account, division.conflicts),
        "merged": list(division.merged),
        "fingerprint": fingerprint(division.documents),
    }
    write_json(folder / "corpus.json", facts)  # written last: its presence means that all of it is there
    return _read(store, key, source)


def saved_corpus(store: TextStore, key: str, source: Path) -> Corpus | None:
    """The corpus that was kept under `key`; None where there is none, or a file of it is damaged."""
    try:
        return _read(store, key, source)
    except (FileNotFoundError, ValueError, ArtifactError):
        return None


def _read(store: TextStore, key: str, source: Path) -> Corpus:
    folder = _folder(store, key)
    facts = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
    documents = read_records(folder / "documents.arrow", LabelledDocument)
    account = read_records(folder / "account.arrow", AccountRow)
    links = read_records(folder / "links.arrow", NearPair)
    mark_used(folder)
    return Corpus(source, key, documents, account, links, store=store, **facts)


def _folder(store: TextStore, key: str) -> Path:
    return store.cache / "corpora" / key


def describe_account(corpus: Corpus) -> str:
    """One line of totals: "80 train, 10 val, 10 test; left out: 3 empty, 1 damaged"."""
    parts = ", ".join(f"{len(corpus.part(part))} {part}" for part in PARTS)
    reasons = Counter(corpus.left_out().values("status"))
    left_out = ", ".join(f"{count} {status}" for status, count in reasons.most_common())
    return f"{parts}; left out: {left_out or 'none'}"
