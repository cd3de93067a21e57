"""A small made-up corpus that an audit finds nothing in, and the means to spoil and audit it."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import pytest

from doctune.corpus.audit import audit_corpus
from doctune.corpus.duplicates import duplicate_groups
from doctune.corpus.findings.record import SplitRow

WORDS = [f"{first}{second}" for first in "bcdfghjklmnpqrstvwxz" for second in ("an", "elu", "iro", "osta", "um")]
LABELS = ("letter", "order", "report")


@dataclass(frozen=True)
class Text:
    """A document that carries its text."""

    path: str
    label: str
    text: str
    part: str = ""

    @property
    def id(self):
        return f"id of {self.path}"


def make_prose(seed, words=60):
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def make_clean(per_class=20):
    return [
        Text(f"/data/{label}/{n:02}.txt", label, make_prose(f"{label}{n}"), "test" if n == 0 else "train")
        for label in LABELS
        for n in range(per_class)
    ]


def audit_texts(documents, **options):
    texts = [document.text for document in documents]
    return audit_corpus(documents, texts, duplicate_groups(texts), source="made up", **options)


@pytest.fixture
def make_text():
    """`Text`: path, label, text and part -> a document."""
    return Text


@pytest.fixture
def prose():
    """A function: a seed and a number of words -> a text."""
    return make_prose


@pytest.fixture
def clean():
    """A function: documents per class -> a corpus of three classes without findings."""
    return make_clean


@pytest.fixture
def audited():
    """A function: documents, and options of `audit_corpus` -> their audit."""
    return audit_texts


@pytest.fixture
def found():
    """A function: documents, and options of `audit_corpus` -> the findings by kind."""

    def by_kind(documents, **options):
        return {finding.kind: finding for finding in audit_texts(documents, **options).findings}

    return by_kind


@pytest.fixture
def only():
    """A function: documents, and options of `audit_corpus` -> the one finding there is."""

    def one(documents, **options):
        (finding,) = audit_texts(documents, **options).findings
        return finding

    return one


@pytest.fixture
def splits_of():
    """A function: documents -> their own parts as the rows of given splits."""

    def rows(documents):
        return [SplitRow(d.id, d.path, d.label, d.part) for d in documents]

    return rows


@pytest.fixture
def planted():
    """A function: a change of (number, text) -> a clean corpus with it in all texts of one label."""

    def plant(make, label="letter", documents=None):
        documents = documents or make_clean()
        return [replace(d, text=make(n, d.text)) if d.label == label else d for n, d in enumerate(documents)]

    return plant
