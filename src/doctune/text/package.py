"""Zip packages (OOXML, OpenDocument, EPUB) read as streams, with a bound on what they may unpack to."""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from typing import BinaryIO, Protocol

from doctune.text.refusal import Refused

MAX_UNPACKED_BYTES = 256 * 1024 * 1024
_LOCAL_HEADER = struct.Struct("<4sHHHHHIIIHH")
# Without versions, time, disk and attributes.
_DIRECTORY_ENTRY = struct.Struct("<4s4x2H4x3I3H8xI")
_DIRECTORY_END = struct.Struct("<4s4H2IH")
# The end record may be followed by a comment of at most this many bytes.
_MAX_COMMENT_BYTES = 0xFFFF
_IN_ZIP64 = 0xFFFFFFFF
_PACKED_BLOCK_BYTES = 64 * 1024
_STORED, _DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
_ENCRYPTED_FLAG, _UTF8_FLAG = 0x1, 0x800
# Patched data and strong encryption.
_UNKNOWN_FLAGS = 0x20 | 0x40


class Package:
    """The parts of a zip file by name; a damaged directory is rebuilt from the headers before each part.

    Ordinary directories are read here, a tenth of the work that `zipfile` makes of it; whatever is out of the ordinary
    is left to `zipfile`. All parts together may unpack to `MAX_UNPACKED_BYTES`: a zip bomb ends there.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._unpacked = 0
        # Found by `ooxml.main_part` when first asked for.
        self.main_part: str | None = None
        self._zip: zipfile.ZipFile | None = None
        self._parts: Mapping[str, _Entry | zipfile.ZipInfo] = _entries_by_directory(file) or self._entries_otherwise()
        if not self._parts:
            raise Refused("damaged", "a zip file without a single readable entry")
        self._folded: dict[str, str] | None = None

    def _entries_otherwise(self) -> Mapping[str, _Entry | zipfile.ZipInfo]:
        try:
            self._file.seek(0)
            self._zip = zipfile.ZipFile(self._file)
            return self._zip.NameToInfo
        except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
            return _entries_by_header(self._file)

    @property
    def names(self) -> list[str]:
        """Names of the parts in the order of the directory."""
        return list(self._parts)

    def has(self, name: str) -> bool:
        """Whether the part is there; case and the direction of slashes do not matter."""
        return self._stored_name(name) is not None

    def _stored_name(self, name: str) -> str | None:
        if name in self._parts:
            return name
        if self._folded is None:
            self._folded = {_fold(stored): stored for stored in self._parts}
        return self._folded.get(_fold(name))

    def open(self, name: str) -> Part:
        """Open a part for reading from its start.

        Raises:
            Refused: there is no such part, it is encrypted, or its compression is unknown.
        """
        stored = self._stored_name(name)
        if stored is None:
            raise Refused("damaged", f"the part {name} is missing")
        entry = self._parts[stored]
        if entry.flag_bits & _ENCRYPTED_FLAG:
            raise Refused("encrypted", f"the part {name} is encrypted")
        try:
            return Part(self, self._stream(entry))
        except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as error:
            raise Refused("damaged", f"the part {name} cannot be opened: {error}") from error

    def _stream(self, entry: _Entry | zipfile.ZipInfo) -> _Stream:
        if isinstance(entry, _Entry):
            return _Unpacking(self._file, entry)
        assert self._zip is not None
        return self._zip.open(entry)

    def declared_bytes(self) -> int:
        """What all parts unpack to, as the directory has it; no more than that is given of any part."""
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


class _Stream(Protocol):
    """The unpacked bytes of a part."""

    def read(self, num_bytes: int, /) -> bytes:
        """The next bytes, fewer only at the end."""


class Part:
    """A part being unpacked: `read(n)` counts what came out and names damage as damage."""

    def __init__(self, package: Package, stream: _Stream) -> None:
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
    """Where a part lies in the file; `checksum` is None for one that was found without a directory.

    `start` is the place of its data if that is known, else of its local header.
    """

    __slots__ = ("checksum", "file_size", "flag_bits", "method", "name", "num_packed", "start")

    def __init__(
        self,
        name: bytes,
        start: int,
        num_packed: int,
        method: int,
        flag_bits: int,
        file_size: int,
        checksum: int | None,
    ) -> None:
        self.name, self.start, self.num_packed, self.method = name, start, num_packed, method
        self.flag_bits, self.file_size, self.checksum = flag_bits, file_size, checksum

    def data_start(self, file: BinaryIO) -> int:
        """The place of the first packed byte.

        Raises:
            BadZipFile: the local header is not the one that the directory speaks of.
        """
        if self.checksum is None:
            return self.start
        file.seek(self.start)
        header = file.read(_LOCAL_HEADER.size + len(self.name))
        if not header.startswith(b"PK\x03\x04") or header[_LOCAL_HEADER.size :] != self.name:
            raise zipfile.BadZipFile("its header is not where the directory says")
        name_size, extra_size = _LOCAL_HEADER.unpack_from(header)[-2:]
        return self.start + int(_LOCAL_HEADER.size + name_size + extra_size)


class _Unpacking:
    """One part being read; several of a package may be open at once.

    A part of the directory must have its size and checksum; one found without a directory is read as far as it goes.
    """

    def __init__(self, file: BinaryIO, entry: _Entry) -> None:
        if entry.method not in (_STORED, _DEFLATED) or entry.flag_bits & _UNKNOWN_FLAGS:
            raise NotImplementedError(f"compression method {entry.method} is not known")
        self._file = file
        self._place = entry.data_start(file)
        self._num_packed = entry.num_packed
        self._num_left = entry.file_size if entry.checksum is not None else MAX_UNPACKED_BYTES + 1
        self._expected = entry.checksum
        self._checksum = 0
        self._inflate = zlib.decompressobj(-15) if entry.method == _DEFLATED else None
        self._pending = b""
        self._is_finished = self._num_left <= 0
        self._is_small = self._expected is not None and self._num_packed <= _PACKED_BLOCK_BYTES

    def read(self, num_bytes: int, /) -> bytes:
        """The next bytes, fewer only at the end.

        Raises:
            EOFError, BadZipFile, zlib.error: the part is cut or its bytes are not what they were.
        """
        if self._is_small and num_bytes >= self._num_left > 0:
            return self._read_whole()
        self._is_small = False
        blocks = []
        while num_bytes > 0 and not self._is_finished:
            block = self._read_some(min(num_bytes, self._num_left))
            self._num_left -= len(block)
            num_bytes -= len(block)
            self._is_finished = self._num_left <= 0 or self._is_at_end()
            self._check(block)
            blocks.append(block)
        return b"".join(blocks)

    def _read_whole(self) -> bytes:
        """All of a part that nothing was read of yet."""
        packed = self._read_packed(self._num_packed)
        block = packed[: self._num_left] if self._inflate is None else self._inflate.decompress(packed, self._num_left)
        self._is_small, self._is_finished, self._num_left = False, True, 0
        self._check(block)
        return block

    def _read_some(self, num_bytes: int) -> bytes:
        if self._inflate is None:
            return self._read_packed(num_bytes)
        block = self._inflate.decompress(self._pending or self._read_packed(_PACKED_BLOCK_BYTES), num_bytes)
        self._pending = self._inflate.unconsumed_tail
        return block

    def _is_at_end(self) -> bool:
        if self._inflate is not None and self._inflate.eof:
            return True
        return not self._pending and self._num_packed <= 0

    def _read_packed(self, num_bytes: int) -> bytes:
        size = min(self._num_packed, num_bytes)
        self._file.seek(self._place)
        packed = self._file.read(size)
        if len(packed) < size and self._expected is not None:
            raise EOFError("it ends too early")
        self._place += len(packed)
        self._num_packed = self._num_packed - len(packed) if packed else 0
        return packed

    def _check(self, block: bytes) -> None:
        if self._expected is None:
            return
        self._checksum = zlib.crc32(block, self._checksum)
        if self._is_finished and self._checksum != self._expected:
            raise zipfile.BadZipFile("its checksum is wrong")


def _entries_by_directory(file: BinaryIO) -> dict[str, _Entry]:
    """The parts that an ordinary directory lists; none where anything about it is out of the ordinary (zip64, rare
    compression, bytes before the archive, damage).
    """
    size = file.seek(0, 2)
    tail_start = max(0, size - _MAX_COMMENT_BYTES - _DIRECTORY_END.size)
    file.seek(tail_start)
    tail = file.read()
    place = tail.rfind(b"PK\x05\x06")
    if place < 0 or len(tail) - place < _DIRECTORY_END.size:
        return {}
    *_, num_bytes, start, _ = _DIRECTORY_END.unpack_from(tail, place)
    if start + num_bytes != tail_start + place:
        return {}
    if start >= tail_start:
        return _parse_directory(tail[start - tail_start : place])
    file.seek(start)
    return _parse_directory(file.read(num_bytes))


def _parse_directory(directory: bytes) -> dict[str, _Entry]:
    entries: dict[str, _Entry] = {}
    place = 0
    while place < len(directory):
        name_start = place + _DIRECTORY_ENTRY.size
        if name_start > len(directory):
            return {}
        mark, flags, method, checksum, packed, size, num_name, num_extra, num_comment, start = (
            _DIRECTORY_ENTRY.unpack_from(directory, place)
        )
        if mark != b"PK\x01\x02" or _IN_ZIP64 in (packed, size, start) or method not in (_STORED, _DEFLATED):
            return {}
        raw = directory[name_start : name_start + num_name]
        name = _decoded_name(raw, flags)
        if not name:
            return {}
        entries[name] = _Entry(raw, start, packed, method, flags, size, checksum)
        place = name_start + num_name + num_extra + num_comment
    return entries


def _decoded_name(raw: bytes, flags: int) -> str:
    """A part's name; "" if it is out of the ordinary."""
    try:
        return "" if b"\0" in raw else raw.decode("utf-8" if flags & _UTF8_FLAG or raw.isascii() else "cp437")
    except UnicodeDecodeError:
        return ""


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
        raw = data[name_start : name_start + name_size]
        body = name_start + name_size + extra_size
        # A header that promises its sizes for later (bit 3) has zeros here.
        length = packed if packed and body + packed <= after else after - body
        entries[raw.decode("utf-8", "replace")] = _Entry(raw, body, max(length, 0), method, flags, size, None)
    return entries


def _fold(name: str) -> str:
    return name.replace("\\", "/").lstrip("/").lower()


def _too_large() -> str:
    return f"unpacks to more than {MAX_UNPACKED_BYTES // 2**20} MB"
