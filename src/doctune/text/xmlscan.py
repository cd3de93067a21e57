"""XML parts as people's programs write them, read by regular expressions: several times as fast as a parser's events.

A scanner finds the text of a format by one expression. It relies on tags that pair up, UTF-8 and the usual prefixes;
whatever is out of the ordinary (another encoding, other prefixes, comments, CDATA, a document type, tags that do not
pair up, an unknown reference) is `Unusual`, and the part is left to the events of `xmlstream`, which say what is wrong
with it if anything is.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from typing import Protocol

from doctune.text.refusal import Refused
from doctune.text.xmlstream import CHUNK_BYTES, Attributes, Events, Readable, stream_elements, stream_text

# The attributes of an element, whatever their values hold.
ATTRIBUTES = r"""[^>"']*+(?:(?:"[^"]*+"|'[^']*+')[^>"']*+)*+"""
# More than this in one place, in bytes or characters, is not worth looking at again with every chunk.
_MAX_WAITING = 64 * 1024
# Parts that are read whole are lists of references, sheets or styles.
_MAX_WHOLE_BYTES = 1024 * 1024
_ROOT = re.compile(rb"<([\w.:-]+)[\s>]")
_ATTRIBUTE = re.compile(r"""([\w.-]+)\s*=\s*(["'])(.*?)\2""", re.S)
_BINDING = re.compile(r"""xmlns(?::([^\s=]+))?\s*=\s*["']([^"']*)""")
_ENCODING = re.compile(rb"""encoding\s*=\s*["'](?:utf-?8|(?:us-)?ascii)["']""", re.I)
_REFERENCE = re.compile(r"&(?:(?:#x([0-9a-fA-F]{1,6})|#([0-9]{1,7})|(lt|gt|amp|quot|apos));)?")
_NAMED = {"lt": "<", "gt": ">", "amp": "&", "quot": '"', "apos": "'"}


class Unusual(Exception):  # noqa: N818  (nothing is wrong with the part)
    """The part is written in a way that a scanner does not know."""


class Scanner(Protocol):
    """Finds the text of a format in well-formed XML and collects it in `pieces`."""

    pieces: list[str]

    def scan(self, xml: str) -> int:
        """Take the elements that `xml` holds whole; how many of its characters are done with.

        Raises:
            Unusual: the part must be read in another way.
        """


def read_text(open_part: Callable[[], Readable], scanner: Scanner, events: Callable[[], Events]) -> Iterator[str]:
    """The text of a part, piece by piece: by the scanner as far as it goes, else by events from the start.

    Both give the same text; what was given already is not given again.

    Raises:
        Refused: the XML is broken; the text before that was given.
    """
    num_given = 0
    try:
        for pieces in scan_pieces(open_part(), scanner):
            text = "".join(pieces)
            num_given += len(text)
            yield text
    except (Unusual, Refused):
        for text in stream_text(open_part(), events()):
            if len(text) > num_given:
                yield text[num_given:]
            num_given = max(0, num_given - len(text))


def scan_pieces(part: Readable, scanner: Scanner) -> Iterator[list[str]]:
    """The pieces that the scanner collects, after each chunk that has any; the list is emptied for the next ones.

    Raises:
        Unusual, Refused: the part must be read in another way.
    """
    waiting = ""
    for xml in _ordinary_xml(part):
        waiting += xml
        waiting = waiting[scanner.scan(waiting) :]
        if len(waiting) > _MAX_WAITING:
            raise Unusual
        if scanner.pieces:
            yield scanner.pieces
            scanner.pieces.clear()
    if waiting:
        raise Unusual


def _ordinary_xml(part: Readable) -> Iterator[str]:
    """The XML of a part behind its declaration, cut before tags: each tag comes with all of the text that follows it.

    Raises:
        Unusual: its tags do not pair up, it is not in UTF-8, has much text in one place, or has comments, CDATA,
            instructions or a document type.
    """
    rest = b""
    num_open = 0
    is_first, is_last = True, False
    while not is_last:
        chunk = part.read(CHUNK_BYTES)
        is_last = len(chunk) < CHUNK_BYTES
        if is_first:
            chunk = _without_declaration(chunk)
            is_first = False
        rest += chunk
        if len(rest) > _MAX_WAITING:
            raise Unusual
        # Only a tag begins with this; what looks like its end may be within an attribute.
        end = len(rest) if is_last else max(0, rest.rfind(b"<"))
        whole, rest = rest[:end], rest[end:]
        _check_ordinary(whole)
        num_open += whole.count(b"<") - 2 * whole.count(b"</") - whole.count(b"/>")
        yield _decoded(whole)
    if num_open:
        raise Unusual


def _check_ordinary(xml: bytes) -> None:
    if (b"!" in xml and b"<!" in xml) or (b"?" in xml and b"<?" in xml):
        raise Unusual


def _decoded(xml: bytes) -> str:
    if b"\r" in xml:
        xml = xml.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    try:
        return xml.decode()
    except UnicodeDecodeError as error:
        raise Unusual from error


def _without_declaration(xml: bytes) -> bytes:
    xml = xml.removeprefix(b"\xef\xbb\xbf")
    if not xml.startswith(b"<?xml "):
        return xml
    declaration, mark, rest = xml.partition(b"?>")
    if not mark or (b"encoding" in declaration and _ENCODING.search(declaration) is None):
        raise Unusual
    return rest


def read_elements(
    open_part: Callable[[], Readable], names: tuple[str, ...], mention: re.Pattern[str] | None = None
) -> Iterator[tuple[str, Attributes]]:
    """The elements of these local names in a small part, such as a list of references, with their attributes.

    Attributes go by their local names.

    Args:
        open_part: opens the part at its start, as often as needed.
        names: of the elements.
        mention: elements whose attributes have nothing of this need not be given.

    Raises:
        Refused: the XML is broken; the elements before that were given.
    """
    try:
        xml = _whole_xml(open_part())
    except (Unusual, Refused):
        yield from stream_elements(open_part(), names)
        return
    for name, raw in _element(names).findall(xml):
        if mention is None or mention.search(raw):
            attributes = {attribute: value for attribute, _, value in _ATTRIBUTE.findall(raw)}
            yield name, {key: unescape(value) for key, value in attributes.items()} if "&" in raw else attributes


def _whole_xml(part: Readable) -> str:
    """All of a part that ends with the end of what it begins with.

    Raises:
        Unusual: it does not, is large, not in UTF-8, or has comments, CDATA, instructions or a document type.
    """
    content = _without_declaration(part.read(_MAX_WHOLE_BYTES)).strip()
    root = _ROOT.match(content)
    if root is None or not content.endswith(b"</%s>" % root[1]):
        raise Unusual
    _check_ordinary(content)
    return _decoded(content)


@functools.cache
def _element(names: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf"<(?:[\w.-]+:)?({'|'.join(names)})(?=[\s/>])({ATTRIBUTES})>")


def unescape(text: str) -> str:
    """Text with its references (`&amp;`, `&#8211;`) resolved.

    Raises:
        Unusual: one of them is none.
    """
    return _REFERENCE.sub(_resolved, text) if "&" in text else text


def _resolved(match: re.Match[str]) -> str:
    hexadecimal, decimal, name = match.groups()
    if name:
        return _NAMED[name]
    code = int(hexadecimal, 16) if hexadecimal else int(decimal or "0")
    if not 0x20 <= code < 0x11_0000 and code not in (0x9, 0xA, 0xD):
        raise Unusual
    return chr(code)


class Prefixes:
    """The prefixes that a scanner relies on, and the namespaces that they stand for."""

    def __init__(self, *usual: tuple[tuple[str, ...], tuple[str, ...]]) -> None:
        self._by_prefix = {prefix: number for number, (prefixes, _) in enumerate(usual) for prefix in prefixes}
        self._by_namespace = {space: number for number, (_, spaces) in enumerate(usual) for space in spaces}
        self._are_usual = functools.lru_cache(maxsize=256)(self._find_out)

    def check(self, xml: str) -> None:
        """Look at all declarations of namespaces.

        Raises:
            Unusual: one of them gives a prefix another namespace, or a namespace another prefix.
        """
        if "xmlns" not in xml:
            return
        first, _, rest = xml.partition(">")
        # Programs begin all of their parts with the same declarations, under different names.
        if "xmlns" in first and not self._are_usual(first.partition(" ")[2]):
            raise Unusual
        if "xmlns" in rest and not self._find_out(rest):
            raise Unusual

    def _find_out(self, xml: str) -> bool:
        bindings = _BINDING.findall(xml)
        return all(self._by_prefix.get(prefix) == self._by_namespace.get(space) for prefix, space in bindings)


def prefix_of_root(xml: str) -> str:
    """What stands before the local names of a part's elements, its colon included, by the first one; "" for nothing."""
    match = re.match(r"\s*<([\w.-]+:)?", xml)
    return match[1] or "" if match else ""
