"""Where the contents of a text store stand: a sorted index, memory-mapped, so that memory does not grow with it."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from doctune.corpus.batches import batched
from doctune.files import written_whole

# Half of a SHA-256: two files never share one.
_KEY = np.dtype("S16")
_PLACE = np.dtype(np.int32)
_CONTENTS_AT_ONCE = 4096


class TextIndex:
    """The part and the row of each content in the parts of a store.

    It is kept beside them as `index-<parts>.bin`: the keys of all contents, sorted, and behind them their places.

    Args:
        folder: that of the parts.
        parts: by their names, in order; of a content in several the first counts.

    Raises:
        FileNotFoundError: another process, which has other parts, has removed it just now.
    """

    def __init__(self, folder: Path, parts: Mapping[str, pa.Table]) -> None:
        count = sum(map(len, parts.values()))
        if not count:
            self._keys, self._places = np.empty(0, _KEY), np.empty((0, 2), _PLACE)
            return
        file = folder / f"index-{hashlib.sha256(''.join(parts).encode()).hexdigest()[:16]}.bin"
        if not file.exists() or file.stat().st_size != count * (_KEY.itemsize + 2 * _PLACE.itemsize):
            _write(file, [*parts.values()])
        self._keys = np.memmap(file, _KEY, "r", shape=count)
        self._places = np.memmap(file, _PLACE, "r", offset=count * _KEY.itemsize, shape=(count, 2))

    def look_up(self, contents: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """The part and the row of each content, shape (N, 2), and whether it is known at all, shape (N,)."""
        keys = np.array([_key(content) for content in contents], _KEY)
        if not len(self._keys):
            return np.zeros((len(keys), 2), _PLACE), np.zeros(len(keys), bool)
        found = np.searchsorted(self._keys, keys).clip(max=len(self._keys) - 1)
        return self._places[found], self._keys[found] == keys

    def places(self, contents: Iterable[str]) -> NDArray[np.int32]:
        """The part and the row of each content, shape (N, 2).

        Raises:
            KeyError: one is not known.
        """
        found = [np.empty((0, 2), _PLACE)]
        for some in batched(contents, _CONTENTS_AT_ONCE):
            places, is_known = self.look_up(some)
            if not is_known.all():
                raise KeyError(some[int(is_known.argmin())])
            found.append(places)
        return np.concatenate(found)

    def unknown(self, contents: Iterable[str]) -> Iterator[str]:
        """Those that it does not have, in order."""
        for some in batched(contents, _CONTENTS_AT_ONCE):
            _, is_known = self.look_up(some)
            yield from (content for content, known in zip(some, is_known.tolist(), strict=True) if not known)


def _key(content: str) -> bytes:
    return bytes.fromhex(content[:32])


def _write(file: Path, parts: Sequence[pa.Table]) -> None:
    """Write the index of these parts, and remove those of others."""
    keys = np.concatenate([np.array([_key(c) for c in part.column("content").to_pylist()], _KEY) for part in parts])
    of_part = np.repeat(np.arange(len(parts), dtype=_PLACE), [len(part) for part in parts])
    rows = np.concatenate([np.arange(len(part), dtype=_PLACE) for part in parts])
    order = np.argsort(keys, kind="stable")
    with written_whole(file) as temporary, temporary.open("wb") as stream:
        for values in (keys, np.stack([of_part, rows], axis=1)):
            stream.write(values[order].tobytes())
    for old in file.parent.glob("index-*.bin"):
        if old != file:
            with contextlib.suppress(PermissionError):  # Windows keeps what another process has mapped
                old.unlink(missing_ok=True)
