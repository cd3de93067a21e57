"""Bytes of unknown encoding -> text, block by block.

The order is: byte-order mark, UTF-16 by its zero bytes, strict UTF-8, a declaration in the text itself, then chardet on
a window around the first byte that is not ASCII. What is decided never depends on how much will be read.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import BinaryIO

BLOCK_BYTES = 32 * 1024
DETECT_BYTES = 8 * 1024
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DECLARATION = re.compile(
    rb"""(?:<\?xml[^>]*?encoding|<meta[^>]*?charset|coding[:=])\s*=?\s*["']?\s*([\w.:-]+)""", re.I
)
_CONTROL = bytes(set(range(32)) - set(b"\t\n\r\f\b\x1b")) + b"\x7f"
_CONTROL_TABLE = dict.fromkeys(_CONTROL)
MAX_CONTROL_SHARE = 0.02
_WORDS_BYTES = 1024
_BREAKS = frozenset(" \n\u3000\u3001\u3002\uff0c,.")
# What only adds characters to the encoding found. Not iso8859-2 -> cp1250: these disagree on letters.
_SUPERSETS = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "euc_kr": "cp949",
    "gb2312": "gb18030",
    "gbk": "gb18030",
}


def is_text(sample: bytes) -> bool:
    """Whether the first bytes of a file read as text in some encoding."""
    if not sample or starts_with_bom(sample):
        return True
    return not _is_full_of_controls(sample) or _utf16_without_bom(sample) is not None


def _is_full_of_controls(sample: bytes) -> bool:
    return b"\0" in sample or len(sample) - len(sample.translate(None, _CONTROL)) > MAX_CONTROL_SHARE * len(sample)


def starts_with_bom(sample: bytes) -> bool:
    """Whether a byte-order mark names the encoding."""
    return any(sample.startswith(mark) for mark, _ in _BOMS)


def decode_blocks(file: BinaryIO) -> Iterator[str]:
    """Decode a file from its start; bytes that fit no encoding become U+FFFD."""
    file.seek(0)
    decoder: codecs.IncrementalDecoder | None = None
    while block := file.read(BLOCK_BYTES):
        if decoder is None and is_plain_ascii(block):
            yield block.decode("ascii")
            continue
        if decoder is None:
            decoder = codecs.getincrementaldecoder(choose_encoding(block))("replace")
        yield decoder.decode(block)
    if decoder is not None:
        yield decoder.decode(b"", True)


def decode(content: bytes) -> str:
    """Decode bytes that are in memory."""
    encoding = "ascii" if is_plain_ascii(content[:BLOCK_BYTES]) and content.isascii() else choose_encoding(content)
    return content.decode(encoding, "replace")


def is_plain_ascii(block: bytes) -> bool:
    """Whether a block is ASCII and nothing that only looks like it (ISO-2022, UTF-16)."""
    return block.isascii() and b"\0" not in block and b"\x1b$" not in block


def choose_encoding(block: bytes) -> str:
    """The name of the Python codec for text that starts, or first leaves ASCII, in this block."""
    for mark, encoding in _BOMS:
        if block.startswith(mark):
            return encoding
    if _is_full_of_controls(block[:DETECT_BYTES]) and (utf16 := _utf16_without_bom(block)):
        return utf16
    if _is_utf8(block):
        return "utf-8"
    return _declared(block) or _detected(block)


def _utf16_without_bom(block: bytes) -> str | None:
    """UTF-16 shows as zeros at every other place (binaries have them at both), or as words in another script."""
    block = block[: len(block) // 2 * 2]
    half = len(block) // 2
    if half == 0:
        return None
    even, odd = block[::2].count(0), block[1::2].count(0)
    if odd > 0.4 * half and even < 0.05 * half:
        return _if_readable(block, "utf-16-le")
    if even > 0.4 * half and odd < 0.05 * half:
        return _if_readable(block, "utf-16-be")
    return next((name for name in ("utf-16-le", "utf-16-be") if _reads_as_words(block, name)), None)


def _if_readable(block: bytes, encoding: str) -> str | None:
    """The encoding, unless it turns the block into control characters: then the zeros meant something else."""
    text = block.decode(encoding, "replace")
    return encoding if len(text.translate(_CONTROL_TABLE)) >= (1 - MAX_CONTROL_SHARE) * len(text) else None


def _reads_as_words(block: bytes, encoding: str) -> bool:
    """Whether a sample is letters with blanks or stops between them; chance does not make that of a binary."""
    import unicodedata

    try:
        text = codecs.getincrementaldecoder(encoding)("strict").decode(block[:_WORDS_BYTES])
    except UnicodeDecodeError:
        return False
    num_wordlike = sum(unicodedata.category(character)[0] in "LMNPZ" or character in "\r\n\t" for character in text)
    num_breaks = sum(character in _BREAKS for character in text)
    return len(text) >= 16 and num_wordlike >= 0.97 * len(text) and num_breaks >= 0.01 * len(text)


def _is_utf8(block: bytes) -> bool:
    """Strict UTF-8 but for a last character that the block cuts; a stray bad byte among many good ones is allowed."""
    try:
        block.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start >= len(block) - 3 and error.reason == "unexpected end of data":
            return True
        text = block.decode("utf-8", "replace")
        bad = text.count("\ufffd")
        good = sum(not character.isascii() for character in text) - bad
        return b"\x1b$" not in block and good > 20 * bad
    return b"\x1b$" not in block


def _declared(block: bytes) -> str | None:
    """The encoding that an XML declaration, an HTML meta tag or a coding line names, where it fits the bytes."""
    match = _DECLARATION.search(block[:1024])
    if match is None:
        return None
    try:
        name = codecs.lookup(match[1].decode("ascii")).name
        decoder = codecs.getincrementaldecoder(name)("strict")
        decoder.decode(block)
    except (LookupError, ValueError, TypeError):
        return None
    # Browsers read the label latin-1 as cp1252: the bytes 0x80 to 0x9f are quotes and dashes, not control codes.
    return "cp1252" if name == "iso8859-1" else name


def _detected(block: bytes) -> str:
    import chardet

    first = next((place for place, byte in enumerate(block) if byte > 127 or byte == 0x1B), 0)
    start = max(0, min(first - DETECT_BYTES // 4, len(block) - DETECT_BYTES))
    found = chardet.detect(block[start : start + DETECT_BYTES], prefer_superset=False, compat_names=False)["encoding"]
    try:
        name = codecs.lookup(found).name if found else "cp1252"
    except LookupError:
        return "cp1252"
    return _SUPERSETS.get(name, name)
