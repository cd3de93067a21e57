"""HTML and XHTML: the text that a reader of the page would see."""

from __future__ import annotations

from collections.abc import Iterator

from doctune.text.encoding import decode_blocks
from doctune.text.markup import html_text
from doctune.text.reading import Reading


def read(reading: Reading) -> Iterator[str]:
    """Title, description and visible text, block by block."""
    yield from html_text(decode_blocks(reading.file))
