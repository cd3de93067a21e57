"""Zip packages (OOXML, OpenDocument, EPUB) read as streams, with a bound on what they may unpack to."""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from typing import BinaryIO

from doctune.text.refusal import Refused

MAX_UNPACKED_BYTES = 256 * 1024 * 1024
_LOCAL_HEADER = struct.Struct("<4sHHHHHIIIHH")
_STORED, _DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED


class Package:
    """The parts of a zip file by name; a damaged directory is rebuilt from the headers before each part.

    All parts together may unpack to `MAX_UNPACKED_BYTES`: a zip bomb ends there.
    """

    def __init__(self, file: BinaryIO) -> None:
        file.seek(0)
        self._file = file
        self._unpacked = 0
        # Found by `ooxml.main_part` when first asked for.
        self.main_part: str | None = None
        try:
            self._zip: zipfile.ZipFile | None = zipfile.ZipFile(file)
            self._parts: dict[str, _Entry | zipfile.ZipInfo] = dict(self._zip.NameToInfo)
        except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
            self._zip = None
            self._parts = dict(_entries_by_header(file))
        if not self._parts:
            raise Refused("damaged", "a zip file without a single readable entry")
        self._folded = {_fold(name): name for name in self._parts}

    @property
    def names(self) -> list[str]:
        """Names of the parts in the order of the directory."""
        return list(self._parts)

    def has(self, name: str) -> bool:
        """Whether the part is there; case and the direction of slashes do not matter."""
        return _fold(name) in self._folded

    def open(self, name: str) -> Part:
        """Open a part for reading from its start.

        Raises:
            Refused: there is no such part, it is encrypted, or its compression is unknown.
        """
        stored = self._folded.get(_fold(name))
        if stored is None:
            raise Refused("damaged", f"the part {name} is missing")
        entry = self._parts[stored]
        if entry.flag_bits & 0x1:
            raise Refused("encrypted", f"the part {name} is encrypted")
        try:
            return Part(self, self._stream(entry))
        except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as error:
            raise Refused("damaged", f"the part {name} cannot be opened: {error}") from error

    def _stream(self, entry: _Entry | zipfile.ZipInfo) -> BinaryIO:
        if isinstance(entry, _Entry):
            return entry.open(self._file)
        assert self._zip is not None
        return self._zip.open(entry)  # type: ignore[return-value]

    def declared_bytes(self) -> int:
        """What all parts unpack to, as the directory has it; zipfile never gives more than that."""
        return sum(entry.file_size for entry in self._parts.values())

    def refuse_bomb(self) -> None:
        """Refuse a package that no library should be given, since it unpacks to too much."""
        if self.declared_bytes() > MAX_UNPACKED_BYTES:
            raise Refused("too_large", _too_large())

    def spend(self, num_bytes: int) -> None:
        """Count unpacked bytes.

        Raises:
            Refused: the package has unpacked to more than it may.
        """
        self._unpacked += num_bytes
        if self._unpacked > MAX_UNPACKED_BYTES:
            raise Refused("too_large", _too_large())


class Part:
    """A part being unpacked: `read(n)` counts what came out and names damage as damage."""

    def __init__(self, package: Package, stream: BinaryIO) -> None:
        self._package = package
        self._stream = stream

    def read(self, num_bytes: int = -1) -> bytes:
        """The next bytes, empty at the end; all of the rest by default (never more than the package may unpack)."""
        limit = MAX_UNPACKED_BYTES + 1 if num_bytes < 0 else num_bytes
        try:
            block = self._stream.read(limit)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError) as error:
            raise Refused("damaged", f"compressed data is broken: {error}") from error
        self._package.spend(len(block))
        return block


class _Entry:
    """A part found by its local header in a file without a usable directory."""

    def __init__(self, start: int, size: int, method: int, flag_bits: int, file_size: int) -> None:
        self.start, self.size, self.method = start, size, method
        self.flag_bits, self.file_size = flag_bits, file_size

    def open(self, file: BinaryIO) -> BinaryIO:
        file.seek(self.start)
        raw = file.read(self.size)
        if self.method == _STORED:
            return io.BytesIO(raw)
        if self.method == _DEFLATED:
            return _Inflating(raw)  # type: ignore[return-value]
        raise NotImplementedError(f"compression method {self.method}")


class _Inflating:
    """Inflates as far as the data goes: a cut stream ends without an error."""

    def __init__(self, raw: bytes) -> None:
        self._pending = raw
        self._inflate = zlib.decompressobj(-15)

    def read(self, num_bytes: int) -> bytes:
        block = self._inflate.decompress(self._pending, num_bytes)
        self._pending = self._inflate.unconsumed_tail
        return block


def _entries_by_header(file: BinaryIO) -> dict[str, _Entry]:
    """Find parts by their local headers; each reaches to the next header at most."""
    file.seek(0)
    data = file.read()
    starts = [match.start() for match in re.finditer(rb"PK\x03\x04", data)]
    entries = {}
    for start, after in zip(starts, [*starts[1:], len(data)], strict=True):
        if start + _LOCAL_HEADER.size > len(data):
            break
        _, _, flags, method, _, _, _, packed, size, name_size, extra_size = _LOCAL_HEADER.unpack_from(data, start)
        name_start = start + _LOCAL_HEADER.size
        name = data[name_start : name_start + name_size].decode("utf-8", "replace")
        body = name_start + name_size + extra_size
        # A header that promises its sizes for later (bit 3) has zeros here.
        length = packed if packed and body + packed <= after else after - body
        entries[name] = _Entry(body, max(length, 0), method, flags, size)
    return entries


def _fold(name: str) -> str:
    return name.replace("\\", "/").lstrip("/").lower()


def _too_large() -> str:
    return f"unpacks to more than {MAX_UNPACKED_BYTES // 2**20} MB"
