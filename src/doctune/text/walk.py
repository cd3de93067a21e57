"""Which files there are: regular ones, below folders recursively, in an order that no file system decides."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from doctune.errors import DataError


def walk_files(roots: Iterable[Path]) -> Iterator[Path]:
    """Absolute paths of all regular files at or below the roots, each once, sorted by name within each folder.

    Hidden files and Office lock files (`~$...`) are files like others. A folder that may not be listed is given itself,
    so that it shows as unreadable. Links below a root are not followed, so that nothing outside it is read; a root
    itself may be a link, since somebody named it.

    Raises:
        DataError: a root does not exist.
    """
    seen: set[str] = set()
    for root in roots:
        path = os.path.abspath(root)
        if not os.path.exists(path):
            raise DataError(f"{root} does not exist; give files or folders that do.")
        for file in _below(path) if os.path.isdir(path) else [path]:
            if file not in seen:
                seen.add(file)
                yield Path(file)


def _below(folder: str) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
    except OSError:
        yield folder
        return
    for entry in ordered:
        if entry.is_dir(follow_symlinks=False):
            yield from _below(entry.path)
        elif stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode):
            yield entry.path
