"""The chunks of long documents on disk: cut once per tokenizer, settings and corpus, then memory-mapped.

Shapes: N documents, C chunks of all of them together, in document order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from doctune.corpus.arrays import GrowingArray
from doctune.corpus.store import mark_used
from doctune.corpus.tokens import definition
from doctune.files import written_whole
from doctune.text.chunks import ChunkSettings, chunk

# name -> type and shape of a row: a token's, a chunk's (ends, spans), a document's (the others).
_ARRAYS: dict[str, tuple[type, tuple[int, ...]]] = {
    "ids": (np.int32, ()),
    "ends": (np.int64, ()),
    "spans": (np.int64, (2,)),
    "num_chunks": (np.int64, ()),
    "num_available": (np.int64, ()),
    "is_estimated": (np.bool_, ()),
}
_LAST = "is_estimated"


class ChunkTokens:
    """The chunks that were kept of documents.

    `num_chunks` (N,) are those kept, `num_available` (N,) those that there are; where that `is_estimated` (N,), only
    the document's beginning was tokenised. `spans` (C, 2) are the characters that a chunk stands for.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ids, self._ends, self.spans, self.num_chunks, self.num_available, self.is_estimated = (
            np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS
        )

    def __reduce__(self) -> tuple[type[ChunkTokens], tuple[Path]]:
        """A worker process maps the files again; pickling the maps would copy all of them."""
        return ChunkTokens, (self.folder,)

    def __len__(self) -> int:
        return len(self.num_chunks)

    def chunk(self, row: int) -> NDArray[np.int32]:
        """The token ids of one chunk, special tokens included."""
        begin = self._ends[row - 1] if row else 0
        ids: NDArray[np.int32] = self._ids[begin : self._ends[row]]
        return ids

    @cached_property
    def first_rows(self) -> NDArray[np.int64]:
        """The row of each document's first chunk, (N,)."""
        rows: NDArray[np.int64] = np.cumsum(self.num_chunks) - self.num_chunks
        return rows

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each chunk, (C,)."""
        return np.diff(self._ends, prepend=0)

    def num_truncated(self) -> int:
        """Documents that have more chunks than were kept."""
        return int((self.num_available > self.num_chunks).sum())

    def num_without_text(self) -> int:
        """Documents without any token: their one chunk has special tokens only."""
        spans = self.spans[self.first_rows]
        return int((spans[:, 0] == spans[:, 1]).sum())

    def kept_share(self) -> float:
        """The share of the chunks of longer documents that was kept."""
        is_longer = self.num_available > self.num_chunks
        return float(self.num_chunks[is_longer].sum() / self.num_available[is_longer].sum())


class DocumentChunks(Sequence[range]):
    """The chunks of some documents, in their order: for each document the rows that it has in `tokens`.

    Args:
        tokens: the chunks of all documents.
        documents: places of the chosen ones, (N,).
        max_chunks: at most so many of each, from its first; None: all that were kept.
    """

    def __init__(self, tokens: ChunkTokens, documents: NDArray[np.int64], max_chunks: int | None = None) -> None:
        self.tokens = tokens
        self._first_rows = tokens.first_rows[documents]
        kept = tokens.num_chunks[documents]
        self.num_chunks: NDArray[np.int64] = kept if max_chunks is None else np.minimum(kept, max_chunks)

    def __len__(self) -> int:
        return len(self._first_rows)

    def __getitem__(self, index: int) -> range:  # type: ignore[override]  # slices are not needed
        first = int(self._first_rows[index])
        return range(first, first + int(self.num_chunks[index]))

    def lengths(self) -> NDArray[np.int64]:
        """Tokens of all chunks of each document, (N,)."""
        up_to = np.concatenate([[0], np.cumsum(self.tokens.lengths)])
        lengths: NDArray[np.int64] = up_to[self._first_rows + self.num_chunks] - up_to[self._first_rows]
        return lengths


def cut_documents(
    cache: Path,
    tokenizer: Tokenizer,
    settings: ChunkSettings,
    source: str,
    contents: Iterable[str],
    texts: Sequence[str],
) -> ChunkTokens:
    """The chunks of `texts`, from the cache where the same tokenizer has cut the same contents before.

    Args:
        cache: the cache folder.
        tokenizer: the model's.
        settings: how it cuts.
        source: what shaped the texts, such as the name of their store.
        contents: what identifies each text; with the rest it is the cache's key.
        texts: the texts in the same order, of any length; read, one after the other, only when the cache has no such
            entry.
    """
    folder = cache / "chunks" / _key(tokenizer, settings, source, contents)
    if not (folder / f"{_LAST}.npy").exists():  # named last: its presence means that all of it is there
        _write(folder, tokenizer, settings, texts)
    mark_used(folder)
    return ChunkTokens(folder)


def describe_chunks(tokens: ChunkTokens) -> str:
    """How many chunks there are: "400 documents, 5,210 chunks (13.0 each); 2 documents have no token."."""
    num_documents, num_chunks = len(tokens), len(tokens.lengths)
    said = f"{num_documents:,} documents, {num_chunks:,} chunks ({num_chunks / max(1, num_documents):.1f} each)"
    empty = tokens.num_without_text()
    return f"{said}; {empty:,} documents have no token." if empty else f"{said}."


def describe_truncation(tokens: ChunkTokens, settings: ChunkSettings) -> str | None:
    """How many documents are longer than what is read of them; None where none is."""
    longer = tokens.num_truncated()
    if not longer:
        return None
    about = "about " if tokens.is_estimated.any() else ""
    verb = "is" if longer == 1 else "are"
    return (
        f"{longer:,} of {len(tokens):,} documents {verb} longer than {_chunks(settings.max_chunks)}; data.keep="
        f"{settings.keep} reads {about}{tokens.kept_share():.0%} of their chunks. To read more: data.max_chunks."
    )


def _chunks(count: int) -> str:
    return "1 chunk" if count == 1 else f"{count:,} chunks"


def _key(tokenizer: Tokenizer, settings: ChunkSettings, source: str, contents: Iterable[str]) -> str:
    shaped_by = [source, asdict(settings), definition(tokenizer, settings.chunk_length)]
    digest = hashlib.sha256(json.dumps(shaped_by, sort_keys=True).encode())
    for content in contents:
        digest.update(content.encode())
    return digest.hexdigest()[:16]


def _write(folder: Path, tokenizer: Tokenizer, settings: ChunkSettings, texts: Sequence[str]) -> None:
    with ExitStack() as files:
        arrays: dict[str, GrowingArray] = {}
        for name, (dtype, row) in reversed(_ARRAYS.items()):  # they get their names in the order of `_ARRAYS`
            temporary = files.enter_context(written_whole(folder / f"{name}.npy"))
            arrays[name] = files.enter_context(GrowingArray(temporary, dtype, row))
        for cut in chunk(tokenizer, texts, **asdict(settings)):
            for piece in cut.chunks:
                arrays["ends"].append(arrays["ids"].append(piece.ids))
                arrays["spans"].append((piece.start, piece.end))
            arrays["num_chunks"].append(len(cut.chunks))
            arrays["num_available"].append(cut.num_available)
            arrays["is_estimated"].append(cut.is_estimated)
