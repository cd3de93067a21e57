"""Compiled and other binaries: the first bytes in hexadecimal, then the printable runs."""

from __future__ import annotations

import re
from collections.abc import Iterator

from doctune.text.reading import Reading

HEX_BYTES = 64
MIN_RUN = 6
# Runs are cut where blocks meet; the size is fixed so that a bounded text stays a prefix of the whole one.
BLOCK_BYTES = 256 * 1024
_RUN = re.compile(rb"[\x20-\x7e]{%d,}|(?:[\x20-\x7e]\0){%d,}" % (MIN_RUN, MIN_RUN))


def read(reading: Reading) -> Iterator[str]:
    """The signature as hex digits, then one line for each printable run (ASCII or UTF-16)."""
    yield reading.head[:HEX_BYTES].hex(" ") + "\n"
    reading.file.seek(0)
    while block := reading.file.read(BLOCK_BYTES):
        for run in _RUN.finditer(block):
            yield run[0].replace(b"\0", b"").decode("ascii") + "\n"
