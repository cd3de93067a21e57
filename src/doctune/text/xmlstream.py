"""XML parts of a package read as a stream: text comes out while the part is still being unpacked.

Expat never opens another file or address by itself; document types, and with them entities, are refused.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Protocol
from xml.parsers import expat

from doctune.text.refusal import Hostile, Refused

# A model wants some 5,000 characters, which plain paragraphs have in 6 KB of XML: larger pieces read more than that.
CHUNK_BYTES = 4 * 1024
# Stands between namespace and local name in the names that handlers get.
SEPARATOR = " "
Attributes = dict[str, str]


class Readable(Protocol):
    """A part of a package, or a file."""

    def read(self, num_bytes: int, /) -> bytes:
        """The next bytes, fewer only at the end."""


class Events(Protocol):
    """What a format does with the XML of a part: it is told the events and collects text in `pieces`."""

    pieces: list[str]

    def attach(self, parser: expat.XMLParserType) -> None:
        """Set the handlers on the parser."""


def stream_text(part: Readable, events: Events) -> Iterator[str]:
    """The text that the events collect, after each chunk.

    Raises:
        Refused: the XML is not well formed or declares a document type; the text before that was given.
    """
    for pieces in stream_pieces(part, events):
        yield "".join(pieces)


def stream_pieces(part: Readable, events: Events) -> Iterator[list[str]]:
    """The pieces that the events collect, after each chunk that has any; the list is emptied for the next ones.

    Raises:
        Refused: as `stream_text`.
    """
    parser = guarded_parser()
    events.attach(parser)
    # Handlers hold on to the list's `append`: it is emptied, not replaced.
    for is_last, chunk in _chunks(part):
        try:
            parser.Parse(chunk, is_last)
        except (expat.ExpatError, ValueError, LookupError) as error:
            if events.pieces:
                yield events.pieces
            raise Refused("damaged", f"XML is broken: {error}") from error
        if events.pieces:
            yield events.pieces
            events.pieces.clear()


def _chunks(part: Readable) -> Iterator[tuple[bool, bytes]]:
    is_last = False
    while not is_last:
        chunk = part.read(CHUNK_BYTES)
        is_last = len(chunk) < CHUNK_BYTES
        yield False, chunk
    # On its own: where it finds that the XML is cut, expat drops what it was given with the news.
    yield True, b""


def guarded_parser() -> expat.XMLParserType:
    """An expat parser with namespaces that stops at a document type declaration."""
    parser = expat.ParserCreate(namespace_separator=SEPARATOR)
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = _refuse_document_type
    return parser


def _refuse_document_type(*_: object) -> None:
    raise Hostile("damaged", "its XML declares a document type, which Office files never do (an entity attack?)")


def stream_elements(part: Readable, names: Container[str]) -> Iterator[tuple[str, Attributes]]:
    """The elements of these local names, with their attributes by local name.

    Raises:
        Refused: the XML is broken; the elements before that were given.
    """
    parser = guarded_parser()
    found: list[tuple[str, Attributes]] = []

    def start(name: str, attributes: Attributes) -> None:
        if (local := local_name(name)) in names:
            found.append((local, {local_name(attribute): value for attribute, value in attributes.items()}))

    parser.StartElementHandler = start
    for is_last, chunk in _chunks(part):
        try:
            parser.Parse(chunk, is_last)
        except (expat.ExpatError, ValueError, LookupError) as error:
            yield from found
            raise Refused("damaged", f"XML is broken: {error}") from error
        yield from found
        found.clear()


def local_name(name: str) -> str:
    """The name of an element or attribute without its namespace."""
    return name.rpartition(SEPARATOR)[2]
