"""Labelled files, judged by the exported model from the files themselves: what will be deployed is what is scored.

Shapes: N documents that were judged, L labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from doctune.documents import Document
from doctune.text.sandbox import extract_files

if TYPE_CHECKING:
    from doctune.corpus.store import Entry, TextStore
    from doctune.inference.engine import Engine

EXCERPT_CHARS = 300
_TEXTS_AT_ONCE = 512
_ID_DIGITS = 16  # of the SHA-256 of a file's content: a document's id begins with them


@dataclass(frozen=True)
class LabelledFile:
    """A file and its true label.

    `id` is that of the document in its run, by which a file that has changed since is found out; None: it has none.
    `confidence` is how sure its source was of the label, None where it does not say.
    """

    path: Path
    label: str
    id: str | None = None
    confidence: float | None = None


@dataclass(frozen=True)
class JudgedDocument:
    """A document that was judged: where it lies and what was read of it.

    `content` is the SHA-256 of the file. `characters` are those that were extracted, None where the text was not read
    again. `remark` is what extraction had to say of a text that it gave; `excerpt` is the beginning of the text.
    """

    path: str
    label: str
    content: str
    characters: int | None
    format: str
    remark: str
    excerpt: str
    confidence: float | None = None


@dataclass(frozen=True)
class Unjudged:
    """A labelled file without a prediction: `status` names the reason's kind."""

    path: str
    label: str
    status: str
    reason: str


@dataclass(frozen=True)
class JudgedFiles:
    """All files, in order: those that the model was asked about, with its logits (N, L), and the others.

    `places` (N,) are the places of the judged ones among all files.
    """

    documents: tuple[JudgedDocument, ...]
    places: NDArray[np.int64]
    logits: NDArray[np.float32]
    unjudged: tuple[Unjudged, ...]


def judge_files(engine: Engine, files: Sequence[LabelledFile], store: TextStore) -> JudgedFiles:
    """Read files into the store, an empty one or one of the same settings, and ask the model for their logits.

    A file that is gone, has changed since its run or holds no text is among `unjudged`, with the reason.

    Raises:
        ArtifactError: the model is no classifier.
    """
    entries = store.fill([file.path for file in files], lambda paths: read_as_trained(paths, engine))
    unjudged, places = [], []
    for place, (file, entry) in enumerate(zip(files, entries, strict=True)):
        status, reason = _problem(file, entry)
        if status:
            unjudged.append(Unjudged(str(file.path), file.label, status, reason))
        else:
            places.append(place)
    texts = store.texts([str(entries[place].content) for place in places])
    logits = [np.empty((0, len(engine.artifact.labels)), np.float32)]
    documents = []
    for start in range(0, len(places), _TEXTS_AT_ONCE):
        chunk = places[start : start + _TEXTS_AT_ONCE]
        read = [texts[start + offset] for offset in range(len(chunk))]
        logits.append(engine.logits(read))
        documents += [_judged(files[place], entries[place], text) for place, text in zip(chunk, read, strict=True)]
    return JudgedFiles(tuple(documents), np.asarray(places, np.int64), np.concatenate(logits), tuple(unjudged))


def content_id(content: str) -> str:
    """What the id of a document begins with, from the SHA-256 of its file."""
    return content[:_ID_DIGITS]


def is_content_of(document_id: str, content: str) -> bool:
    """Whether a document of that id has this content; a second document of one content has a number behind its id."""
    return document_id.split("-")[0] == content_id(content)


def read_as_trained(paths: Sequence[Path], engine: Engine) -> Iterator[Document]:
    """The texts of files, in order, as far as the model was trained to read them."""
    return extract_files(paths, engine.artifact.extract)


def _problem(file: LabelledFile, entry: Entry) -> tuple[str, str]:
    """Why a file cannot be judged: a status and a reason; two empty texts where it can."""
    if not file.path.exists():
        return "gone", "there is no such file any more" if file.id else "there is no such file"
    if entry.content is not None and file.id is not None and not is_content_of(file.id, entry.content):
        return "changed", "its content is not that which the run was given"
    return ("", "") if entry.status == "ok" else (entry.status, entry.reason)


def _judged(file: LabelledFile, entry: Entry, text: str) -> JudgedDocument:
    return JudgedDocument(
        path=str(file.path),
        label=file.label,
        content=str(entry.content),
        characters=len(text),
        format=entry.format,
        remark=entry.reason,
        excerpt=text[:EXCERPT_CHARS],
        confidence=file.confidence,
    )
