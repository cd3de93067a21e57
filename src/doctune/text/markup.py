"""Text out of markup through lxml's event interface: nothing is built or fetched, no entity is expanded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from doctune.text.refusal import Hostile, Refused

_BLOCKS = frozenset(
    "address article aside blockquote body br caption dd details dialog div dl dt fieldset figcaption figure footer"  # noqa: SIM905
    " form h1 h2 h3 h4 h5 h6 head header hgroup hr legend li main menu nav ol option p pre section summary table tbody"
    " tfoot thead title tr ul".split()
)
_CELLS = frozenset(["td", "th"])
_UNSEEN = frozenset(["script", "style", "template", "object", "applet"])
_SPACE = re.compile(r"\s+")


class HtmlText:
    """Collects what a reader of the page would see, with its title, description and image texts."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self._num_unseen = 0
        self._num_pre = 0

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        """An element begins."""
        if tag in _UNSEEN:
            self._num_unseen += 1
        elif tag == "pre":
            self._num_pre += 1
        self._separate(tag)
        if tag == "img" and attributes.get("alt"):
            self.pieces.append(f" {attributes['alt']} ")
        elif tag == "meta" and attributes.get("name", "").lower() == "description":
            self.pieces.append(attributes.get("content", "") + "\n")

    def end(self, tag: str) -> None:
        """An element ends."""
        if tag in _UNSEEN:
            self._num_unseen = max(0, self._num_unseen - 1)
        elif tag == "pre":
            self._num_pre = max(0, self._num_pre - 1)
        self._separate(tag)

    def _separate(self, tag: str) -> None:
        if tag in _BLOCKS:
            self.pieces.append("\n")
        elif tag in _CELLS:
            self.pieces.append("\t")

    def data(self, text: str) -> None:
        """Characters."""
        if not self._num_unseen:
            self.pieces.append(text if self._num_pre else _SPACE.sub(" ", text))

    def close(self) -> None:
        """The end of the document."""


def html_text(blocks: Iterable[str]) -> Iterator[str]:
    """The visible text of an HTML page that comes in blocks; HTML is never damaged, only odd."""
    from lxml import etree  # type: ignore[import-untyped]

    target = HtmlText()
    # Attributes of elements that hide text are rare; what stylesheets hide is not known here.
    parser = etree.HTMLParser(target=target, encoding="utf-8", no_network=True, remove_comments=True, remove_pis=True)
    for block in blocks:
        parser.feed(block.encode("utf-8", "replace"))
        yield from _take(target.pieces)
    parser.close()
    yield from _take(target.pieces)


def xml_text(blocks: Iterable[bytes], target: XmlTarget) -> Iterator[str]:
    """The text that a target collects from XML that comes in blocks.

    Raises:
        Refused: the XML is broken; the text before that was given.
    """
    from lxml import etree

    parser = etree.XMLParser(target=target, resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        for block in blocks:
            parser.feed(block)
            yield from _take(target.pieces)
        parser.close()
    except etree.XMLSyntaxError as error:
        yield from _take(target.pieces)
        raise Refused("damaged", f"XML is broken: {error.msg}") from error
    yield from _take(target.pieces)


class XmlTarget:
    """A collector of text for `xml_text`; formats say what their elements mean in `start` and `end`."""

    def __init__(self) -> None:
        self.pieces: list[str] = []

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        """An element begins; tags are `{namespace}name`."""

    def end(self, tag: str) -> None:
        """An element ends."""

    def data(self, text: str) -> None:
        """Characters."""

    def doctype(self, *_: object) -> None:
        """Document types are refused: no package that these formats allow has one."""
        raise Hostile("damaged", "its XML declares a document type (an entity attack?)")

    def close(self) -> None:
        """The end of the document."""


def _take(pieces: list[str]) -> Iterator[str]:
    if pieces:
        text = "".join(pieces)
        pieces.clear()
        yield text
