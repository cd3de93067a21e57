"""Word packages (docx, docm, dotx, dotm; Transitional and Strict) as a stream of their XML.

Order of the text: headers, body, footnotes, endnotes, comments, footers. Kept: tables (a line per row, tabs between
cells), text boxes, content controls, tracked insertions, equations. Left out: tracked deletions, field codes, and
`mc:Fallback`, which repeats what stands before it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from xml.parsers import expat

from doctune.text.ooxml import Relationship, main_part, relationships
from doctune.text.reading import Reading
from doctune.text.refusal import Refused
from doctune.text.xmlscan import ATTRIBUTES, Prefixes, Unusual, read_text, unescape
from doctune.text.xmlstream import Attributes, stream_text

_WORD = (
    "http://schemas.openxmlformats.org/wordprocessingml/2006/main",
    "http://purl.oclc.org/ooxml/wordprocessingml/main",
    "http://schemas.microsoft.com/office/word/2003/wordml",
)
_MATH = (
    "http://schemas.openxmlformats.org/officeDocument/2006/math",
    "http://purl.oclc.org/ooxml/officeDocument/math",
)
_DRAWING = (
    "http://schemas.openxmlformats.org/drawingml/2006/main",
    "http://purl.oclc.org/ooxml/drawingml/main",
)
_COMPATIBILITY = ("http://schemas.openxmlformats.org/markup-compatibility/2006",)
_BEFORE_BODY = ("header",)
_AFTER_BODY = ("footnotes", "endnotes", "comments", "diagramData", "footer")


def read(reading: Reading) -> Iterator[str]:
    """The text of the document, as it is unpacked; parts that fail are left out with a remark.

    Raises:
        Refused: the document part itself cannot be read any further.
    """
    package = reading.package
    body = main_part(package)
    if not body:
        raise Refused("damaged", "the Word package has no document part")
    references = relationships(package, body, (*_BEFORE_BODY, *_AFTER_BODY))
    yield from _side_parts(reading, references, _BEFORE_BODY)
    failure = None
    try:
        yield from _part_text(reading, body)
    except Refused as refusal:
        failure = refusal
    yield from _side_parts(reading, references, _AFTER_BODY)
    if failure is not None:
        raise failure


def _side_parts(reading: Reading, references: list[Relationship], kinds: tuple[str, ...]) -> Iterator[str]:
    """Headers and the like; a text that several of them repeat is given once."""
    seen: set[str] = set()
    for kind in kinds:
        for reference in references:
            if reference.kind != kind or not reading.package.has(reference.target):
                continue
            text = _side_text(reading, reference)
            if text.strip() and text not in seen:
                seen.add(text)
                yield text


def _side_text(reading: Reading, reference: Relationship) -> str:
    pieces: list[str] = []
    try:
        pieces.extend(_part_text(reading, reference.target))
    except Refused as refusal:
        reading.lose(reference.target, refusal)
    return "".join(pieces)


def _part_text(reading: Reading, name: str) -> Iterator[str]:
    return read_text(lambda: reading.package.open(name), WordScanner(), WordEvents)


class WordScanner:
    """Finds the text of WordprocessingML under the prefixes that Word gives its namespaces."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self._cell_depth = 0
        self._is_in_text = False
        # The element whose content is left out, and how many of its kind are open.
        self._skipped = ""
        self._skip_depth = 0

    def scan(self, xml: str) -> int:
        """Collect the text in `xml`; how many characters are done with: all.

        Raises:
            Unusual: other prefixes, or elements within a text.
        """
        _PREFIXES.check(xml)
        if self._is_in_text and not xml.startswith(_TEXT_ENDS):
            raise Unusual
        self._is_in_text = False
        for text, text_end, name, attributes in _ELEMENT.findall(xml):
            if self._is_in_text:
                raise Unusual
            if not name:
                self._is_in_text = not text_end
                if not self._skipped:
                    self.pieces.append(unescape(text))
            elif self._skipped:
                self._go_on_skipping(name, attributes)
            else:
                self._take(name, is_empty=attributes.endswith("/"))
        return len(xml)

    def _go_on_skipping(self, name: str, attributes: str) -> None:
        if name == self._skipped and not attributes.endswith("/"):
            self._skip_depth += 1
        elif name == f"/{self._skipped}":
            self._skip_depth -= 1
            if not self._skip_depth:
                self._skipped = ""

    def _take(self, name: str, *, is_empty: bool) -> None:
        if mark := _MARKS.get(name):
            self.pieces.append(mark)
        elif name in ("/w:p", "/a:p") or (is_empty and name in ("w:p", "a:p")):
            self.pieces.append(" " if self._cell_depth else "\n")
        elif name == "/w:tc" or (is_empty and name == "w:tc"):
            self._cell_depth -= not is_empty
            self.pieces.append("\t")
        elif name == "w:tc":
            self._cell_depth += 1
        elif name == "w:tr" and is_empty:
            self.pieces.append("\n")
        elif name in _LEFT_OUT and not is_empty:
            self._skipped, self._skip_depth = name, 1
        elif name in _TEXT_STARTS and not is_empty:
            raise Unusual


_PREFIXES = Prefixes((("w",), _WORD), (("m",), _MATH), (("a",), _DRAWING), (("mc", "ve"), _COMPATIBILITY))
_MARKS = {"w:tab": "\t", "w:ptab": "\t", "w:br": "\n", "w:cr": "\n", "/w:tr": "\n", "w:noBreakHyphen": "-"}
_LEFT_OUT = frozenset(["w:pPr", "w:del", "w:moveFrom", "mc:Fallback", "ve:Fallback"])
_TEXT_STARTS = frozenset(["w:t", "m:t", "a:t"])
_TEXT_ENDS = tuple(f"</{name}>" for name in _TEXT_STARTS)
# A text as nearly all are written; else a tag that matters, and its attributes.
_ELEMENT = re.compile(
    r'<(?:[wma]:t(?: xml:space="preserve")?>([^<]*)(</[wma]:t>)?'
    r"|(/?(?:w:(?:p|pPr|tc|tr|tab|ptab|br|cr|t|noBreakHyphen|del|moveFrom)|[ma]:t|a:p|(?:mc|ve):Fallback))"
    rf"(?=[\s/>])({ATTRIBUTES})>)"
)


class WordEvents:
    """Collects the text of WordprocessingML."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self._skipping = 0
        self._cell_depth = 0

    def attach(self, parser: expat.XMLParserType) -> None:
        """Set the handlers on the parser."""
        self._parser = parser
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end

    def _start(self, name: str, attributes: Attributes) -> None:
        if self._skipping:
            self._skipping += 1
        elif act := _STARTS.get(name):
            act(self)

    def _end(self, name: str) -> None:
        if self._skipping:
            self._skipping -= 1
        elif act := _ENDS.get(name):
            act(self)

    def _skip(self) -> None:
        self._skipping = 1

    def _open_text(self) -> None:
        self._parser.CharacterDataHandler = self.pieces.append

    def _close_text(self) -> None:
        self._parser.CharacterDataHandler = None

    def _tab(self) -> None:
        self.pieces.append("\t")

    def _break(self) -> None:
        self.pieces.append("\n")

    def _hyphen(self) -> None:
        self.pieces.append("-")

    def _end_paragraph(self) -> None:
        self.pieces.append(" " if self._cell_depth else "\n")

    def _open_cell(self) -> None:
        self._cell_depth += 1

    def _close_cell(self) -> None:
        self._cell_depth -= 1
        self.pieces.append("\t")


_Act = Callable[[WordEvents], None]


def _by_name(table: dict[tuple[str, ...], dict[str, _Act]]) -> dict[str, _Act]:
    return {
        f"{namespace} {local}": act
        for namespaces, acts in table.items()
        for namespace in namespaces
        for local, act in acts.items()
    }


_STARTS = _by_name(
    {
        _WORD: {
            "t": WordEvents._open_text,
            "tab": WordEvents._tab,
            "ptab": WordEvents._tab,
            "br": WordEvents._break,
            "cr": WordEvents._break,
            "noBreakHyphen": WordEvents._hyphen,
            "tc": WordEvents._open_cell,
            # Tab stops, not tabs; text that was moved away or deleted; nothing else in these holds text.
            "pPr": WordEvents._skip,
            "moveFrom": WordEvents._skip,
            "del": WordEvents._skip,
        },
        _MATH: {"t": WordEvents._open_text},
        _DRAWING: {"t": WordEvents._open_text},
        _COMPATIBILITY: {"Fallback": WordEvents._skip},
    }
)
_ENDS = _by_name(
    {
        _WORD: {
            "t": WordEvents._close_text,
            "p": WordEvents._end_paragraph,
            "tc": WordEvents._close_cell,
            "tr": WordEvents._break,
        },
        _MATH: {"t": WordEvents._close_text},
        _DRAWING: {"t": WordEvents._close_text, "p": WordEvents._end_paragraph},
    }
)


def read_flat(reading: Reading) -> Iterator[str]:
    """Word as one XML file (Word 2003 XML, or a package written flat): the same elements without a zip around them."""
    reading.check_size()
    reading.file.seek(0)
    yield from stream_text(reading.file, WordEvents())
