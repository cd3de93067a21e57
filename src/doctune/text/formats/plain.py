"""Plain text, source code, CSV, JSON, XML, Markdown: the text is the file."""

from __future__ import annotations

from collections.abc import Iterator

from doctune.text.encoding import decode_blocks
from doctune.text.reading import Reading


def read(reading: Reading) -> Iterator[str]:
    """The decoded text, block by block, so that a bounded reading touches only the start of the file."""
    yield from decode_blocks(reading.file)
