"""One file being read: its bytes, the settings, and what was found wrong with it on the way."""

from __future__ import annotations

import contextlib
import io
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from doctune.text.package import Package
from doctune.text.refusal import Refused
from doctune.text.settings import ExtractSettings

HEAD_BYTES = 8192
# Their messages mean nothing without their names.
_SLIPS = (LookupError, AttributeError, TypeError, AssertionError, ArithmeticError)
# A file of at most this size is read at once, which costs less than the seeks of a reader that wants parts of it.
IN_MEMORY_BYTES = 256 * 1024


class Reading:
    """What a format reader gets: an open file, its first bytes, the settings, and a place for remarks.

    `remarks` become the reason of the document: a reader adds one for every part that it had to leave out. It sets
    `has_pages` where every piece that it yields is a page, an empty one for a page that was left out.
    """

    def __init__(self, file: BinaryIO, size: int, suffix: str, path: Path | None, settings: ExtractSettings) -> None:
        self.file = file
        self.size = size
        self.suffix = suffix
        self.path = path
        self.settings = settings
        self.remarks: list[str] = []
        self.has_losses = False
        self.has_pages = False
        self.head = file.read(HEAD_BYTES)
        self._package: Package | None = None

    @property
    def package(self) -> Package:
        """The file as a zip package, opened once.

        Raises:
            Refused: it is not one, or nothing in it can be found any more.
        """
        if self._package is None:
            self._package = Package(self.file)
        return self._package

    def content(self) -> bytes:
        """All bytes of the file.

        Raises:
            Refused: there are more than `max_bytes` of them.
        """
        self.check_size()
        self.file.seek(0)
        return self.file.read()

    def check_size(self) -> None:
        """Refuse a container that is larger than `max_bytes`."""
        if self.size > self.settings.max_bytes:
            raise Refused("too_large", f"{self.size} bytes; at most {self.settings.max_bytes} are read (max_bytes)")

    def remark(self, text: str) -> None:
        """Add a remark, once."""
        if text not in self.remarks:
            self.remarks.append(text)

    def lose(self, what: str, refusal: Refused) -> None:
        """Go on without a part that cannot be read.

        Raises:
            Refused: the whole file unpacks to too much, which no other part can mend.
        """
        if refusal.status == "too_large":
            raise refusal
        self.has_losses = True
        self.remark(f"{what} could not be read: {refusal.reason}")


@contextlib.contextmanager
def open_reading(source: Path | bytes, name: str, settings: ExtractSettings) -> Iterator[Reading]:
    """Open a path or bytes for reading.

    Raises:
        Refused: the path cannot be opened or is not a regular file.
    """
    if isinstance(source, bytes):
        yield Reading(io.BytesIO(source), len(source), _suffix(name), None, settings)
        return
    file, size = _open_regular(source)
    with file:
        yield Reading(file, size, _suffix(source), source, settings)


def _suffix(path: Path | str) -> str:
    return os.path.splitext(path)[1].lower()


def _open_regular(path: Path) -> tuple[BinaryIO, int]:
    """Open a file, and nothing that could block or never end (pipes, devices, folders); its size comes with it."""
    try:
        facts = os.stat(path)
        if not stat.S_ISREG(facts.st_mode):
            kind = "a folder" if stat.S_ISDIR(facts.st_mode) else "a device, pipe or socket"
            raise Refused("unreadable", f"{kind}, not a regular file")
        if facts.st_size > IN_MEMORY_BYTES:
            return open(path, "rb"), facts.st_size
        with open(path, "rb", buffering=0) as file:
            content = file.read(IN_MEMORY_BYTES)
        return io.BytesIO(content), len(content)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else describe(error)
        raise Refused("unreadable", reason) from error


def describe(error: BaseException) -> str:
    """An exception as one short line that is the same in every process (no memory addresses).

    What a library says of a file stands alone; a slip in the library's own code is said to be one, with its kind.
    """
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", " ".join(str(error).split()))
    if text and not isinstance(error, _SLIPS):
        return text[:200]
    return f"its reader failed ({type(error).__name__}{': ' if text else ''}{text})"[:200]
