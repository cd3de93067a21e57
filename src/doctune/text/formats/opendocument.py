"""OpenDocument text and presentations (odt, ott, odp) through lxml: paragraphs, tables, notes, headers and footers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from doctune.text.markup import XmlTarget, xml_text
from doctune.text.reading import Reading
from doctune.text.refusal import Refused
from doctune.text.xmlstream import CHUNK_BYTES

_TEXT = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}"
_TABLE = "{urn:oasis:names:tc:opendocument:xmlns:table:1.0}"
_STYLE = "{urn:oasis:names:tc:opendocument:xmlns:style:1.0}"
_PARAGRAPHS = frozenset([f"{_TEXT}p", f"{_TEXT}h"])
_HEADERS = frozenset([f"{_STYLE}header", f"{_STYLE}footer"])
MAX_REPEATED_BLANKS = 100


def read(reading: Reading) -> Iterator[str]:
    """Headers and footers of the page styles, then the content.

    Raises:
        Refused: the content is encrypted, missing or broken.
    """
    package = reading.package
    if package.has("META-INF/manifest.xml") and b"encryption-data" in package.open("META-INF/manifest.xml").read():
        raise Refused("encrypted", "the document needs a password")
    try:
        yield from _part_text(reading, "styles.xml", _OpenDocumentText(within=_HEADERS))
    except Refused as refusal:
        reading.lose("styles.xml", refusal)
    yield from _part_text(reading, "content.xml", _OpenDocumentText())


def _part_text(reading: Reading, name: str, target: XmlTarget) -> Iterator[str]:
    part = reading.package.open(name)
    yield from xml_text(iter(lambda: part.read(CHUNK_BYTES), b""), target)


class _OpenDocumentText(XmlTarget):
    """Collects paragraphs; `within` restricts them to those inside certain elements."""

    def __init__(self, within: frozenset[str] = frozenset()) -> None:
        super().__init__()
        self._within = within
        self._num_within = 0 if within else 1
        self._num_paragraphs = 0
        self._num_cells = 0

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        """An element begins."""
        if tag in _PARAGRAPHS:
            self._num_paragraphs += 1
        elif tag in self._within:
            self._num_within += 1
        elif tag == f"{_TABLE}table-cell":
            self._num_cells += 1
        elif self._num_paragraphs and self._num_within:
            self._blank(tag, attributes)

    def _blank(self, tag: str, attributes: Mapping[str, str]) -> None:
        if tag == f"{_TEXT}s":
            count = attributes.get(f"{_TEXT}c", "1")
            self.pieces.append(" " * min(int(count) if count.isdigit() else 1, MAX_REPEATED_BLANKS))
        elif tag == f"{_TEXT}tab":
            self.pieces.append("\t")
        elif tag == f"{_TEXT}line-break":
            self.pieces.append("\n")

    def end(self, tag: str) -> None:
        """An element ends."""
        if tag in _PARAGRAPHS:
            self._num_paragraphs -= 1
            if self._num_within:
                self.pieces.append(" " if self._num_cells else "\n")
        elif tag in self._within:
            self._num_within -= 1
        elif tag == f"{_TABLE}table-cell":
            self._num_cells -= 1
            self.pieces.append("\t")
        elif tag == f"{_TABLE}table-row":
            self.pieces.append("\n")

    def data(self, text: str) -> None:
        """Characters."""
        if self._num_paragraphs and self._num_within:
            self.pieces.append(text)
