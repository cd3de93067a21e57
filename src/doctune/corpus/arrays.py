"""Arrays on disk that are written row by row and read as memory maps."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


class GrowingArray:
    """An .npy file that grows: the header with the final length is written on leaving.

    Args:
        path: the file.
        dtype: of its values.
        row: the shape of a row; () for an array of one dimension.
    """

    def __init__(self, path: Path, dtype: Any, row: tuple[int, ...] = ()) -> None:
        self._stream = path.open("wb")
        self._dtype = np.dtype(dtype)
        self._row = row
        self._length = 0
        self._write_header()

    def append(self, rows: ArrayLike) -> int:
        """Add rows and return the length so far."""
        added = np.asarray(rows, dtype=self._dtype).reshape(-1, *self._row)
        self._stream.write(added.tobytes())
        self._length += len(added)
        return self._length

    def _write_header(self) -> None:
        # NumPy pads headers to a multiple of 64 bytes and reserves digits for growing arrays, so that both fit in 128.
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": (self._length, *self._row)}
        np.lib.format.write_array_header_1_0(self._stream, header)

    def __enter__(self) -> GrowingArray:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if kind is None:
            self._stream.seek(0)
            self._write_header()
        self._stream.close()
