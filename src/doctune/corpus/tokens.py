"""Token ids on disk: every document is tokenised once per tokenizer, window and corpus, then memory-mapped.

Shapes: N documents, W windows of all of them together.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from doctune.corpus.arrays import GrowingArray
from doctune.corpus.store import mark_used
from doctune.files import written_whole
from doctune.text.windows import leading_windows

_TEXTS_PER_BATCH = 512


class Tokens(Sequence[NDArray[np.int32]]):
    """The leading windows of documents as one flat memory map; as a sequence, the first window of each document.

    Window w is `ids[offsets[w]:offsets[w + 1]]`; the windows of document d are `starts[d]` to `starts[d + 1] - 1`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ids = np.load(folder / "ids.npy", mmap_mode="r")
        self._offsets = np.load(folder / "offsets.npy", mmap_mode="r")
        self._starts = np.load(folder / "starts.npy", mmap_mode="r")

    def __reduce__(self) -> tuple[type[Tokens], tuple[Path]]:
        """A worker process maps the files again; pickling the map would copy all of it."""
        return Tokens, (self.folder,)

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: int) -> NDArray[np.int32]:  # type: ignore[override]  # slices are not needed
        return self.window(index, 0)

    def window(self, index: int, number: int) -> NDArray[np.int32]:
        """Window `number` of a document, from 0."""
        row = self._starts[index] + number
        return self._ids[self._offsets[row] : self._offsets[row + 1]]

    def num_windows(self, index: int) -> int:
        """How many windows a document has; at least one."""
        return int(self._starts[index + 1] - self._starts[index])

    def lengths(self) -> NDArray[np.int64]:
        """Tokens in the first window of each document, shape (N,)."""
        return np.diff(self._offsets)[self._starts[:-1]]


def tokenise(
    cache: Path,
    tokenizer: Tokenizer,
    max_length: int,
    source: str,
    contents: Iterable[str],
    texts: Sequence[str],
    windows: int = 1,
) -> Tokens:
    """The leading windows of `texts`, from the cache where the same tokenizer has cut the same contents before.

    Args:
        cache: the cache folder.
        source: what shaped the texts, such as the name of their store.
        contents: what identifies each text; with the rest it is the cache's key.
        texts: the texts in the same order; read only when the cache has no such entry.
        windows: at most so many windows of each text are kept.
    """
    folder = cache / "tokens" / _key(tokenizer, max_length, windows, source, contents)
    if not (folder / "starts.npy").exists():  # written last: its presence means that all of it is there
        _write(folder, _windows(tokenizer, max_length, windows, texts))
    mark_used(folder)
    return Tokens(folder)


def _key(tokenizer: Tokenizer, max_length: int, windows: int, source: str, contents: Iterable[str]) -> str:
    digest = hashlib.sha256(json.dumps([source, windows, definition(tokenizer, max_length)], sort_keys=True).encode())
    for content in contents:
        digest.update(content.encode())
    return digest.hexdigest()[:16]


def definition(tokenizer: Tokenizer, max_length: int) -> dict[str, Any]:
    """What a tokenizer does to a text, for a cache's key."""
    found: dict[str, Any] = json.loads(tokenizer.to_str())
    found.update(truncation=max_length, padding=None)  # these two are state, left by whoever used it last
    return found


def _windows(
    tokenizer: Tokenizer, max_length: int, windows: int, texts: Sequence[str]
) -> Iterator[Sequence[Sequence[int]]]:
    iterator = iter(texts)
    while batch := list(islice(iterator, _TEXTS_PER_BATCH)):
        yield from leading_windows(tokenizer, batch, max_length, windows)


def _write(folder: Path, documents: Iterator[Sequence[Sequence[int]]]) -> None:
    offsets, starts = array("q", [0]), array("q", [0])
    with written_whole(folder / "ids.npy") as temporary, GrowingArray(temporary, np.int32) as flat:
        for windows in documents:
            offsets.extend(flat.append(window) for window in windows)
            starts.append(starts[-1] + len(windows))
    for name, values in {"offsets.npy": offsets, "starts.npy": starts}.items():
        with written_whole(folder / name) as temporary, temporary.open("wb") as stream:
            np.save(stream, np.asarray(values, dtype=np.int64))
