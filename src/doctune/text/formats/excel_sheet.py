"""The rows of an Excel worksheet: only filled cells, however far apart they claim to be."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from xml.parsers import expat

from doctune.text.xmlscan import ATTRIBUTES, Prefixes, Unusual, prefix_of_root, unescape
from doctune.text.xmlstream import SEPARATOR, Attributes

SHEET_NAMESPACES = (
    "http://schemas.openxmlformats.org/spreadsheetml/2006/main",
    "http://purl.oclc.org/ooxml/spreadsheetml/main",
)
_HEADER_CODE = re.compile(r'&"[^"]*"|&K[0-9A-Fa-f]{6}|&\d+|&[A-Z]')
_CELL_ATTRIBUTE = re.compile(r"""\s([st])\s*=\s*["']([^"'&]*)["']""")
# Type and style of a cell, its value, and its formula -> what it shows.
TextOfCell = Callable[[str, str, str, str], str]


class _Rows:
    """A line per row, tabs between cells."""

    def __init__(self, text_of_cell: TextOfCell) -> None:
        self.pieces: list[str] = []
        self._text_of_cell = text_of_cell
        self._row: list[str] = []

    def _add_cell(self, type_: str, style: str, value: str, formula: str) -> None:
        if text := self._text_of_cell(type_, style, value, formula):
            self._row.append(text.replace("\n", " "))

    def _end_row(self) -> None:
        if self._row:
            self.pieces.append("\t".join(self._row) + "\n")
            self._row.clear()

    def _add_header(self, text: str) -> None:
        """A header or footer of the printed page, without its codes for fonts and page numbers."""
        if shown := " ".join(_HEADER_CODE.sub(" ", text.replace("&&", "&")).split()):
            self.pieces.append(shown + "\n")


class SheetScanner(_Rows):
    """Finds rows and cells under one prefix, or none."""

    _prefix: str | None = None

    def scan(self, xml: str) -> int:
        """Collect the elements that `xml` holds whole; how many characters are done with.

        Raises:
            Unusual: several prefixes, or elements within a value.
        """
        if self._prefix is None:
            self._prefix = prefix_of_root(xml)
        prefixes, element, inner = _patterns(self._prefix)
        prefixes.check(xml)
        for match in element.finditer(xml):
            kind = match.lastgroup
            if kind == "value":
                self._add_cell(*_type_and_style(match["attributes"]), unescape(match["value"]), "")
            elif kind == "row":
                self._end_row()
            elif kind == "content":
                self._add_cell(*_type_and_style(match["attributes"]), *_value_and_formula(inner, match["content"]))
            elif kind == "header":
                self._add_header(unescape(match["header"]))
            elif kind in ("open", "open_header"):
                return match.start()
        return len(xml)


def _type_and_style(attributes: str) -> tuple[str, str]:
    found = dict(_CELL_ATTRIBUTE.findall(attributes))
    return found.get("t", ""), found.get("s", "")


def _value_and_formula(inner: re.Pattern[str], content: str) -> tuple[str, str]:
    value = formula = ""
    for match in inner.finditer(content):
        if match["strange"] is not None:
            raise Unusual
        name, text = match["name"], unescape(match["text"] or "")
        if name == "v":
            value = text
        elif name == "t":
            value += text
        else:
            formula = text
    return value, formula


@functools.lru_cache(maxsize=16)
def _patterns(prefix: str) -> tuple[Prefixes, re.Pattern[str], re.Pattern[str]]:
    """What the prefix stands for, what a sheet holds and what a cell holds."""
    p = re.escape(prefix)
    element = (
        rf"<(?:{p}c(?=[\s/>])(?P<attributes>{ATTRIBUTES})"
        rf"(?:(?<=/)>|><{p}v>(?P<value>[^<]*)</{p}v></{p}c>|>(?P<content>.*?)</{p}c>|(?P<open>))"
        rf"|(?P<row>/{p}row)[\s>]"
        rf"|{p}odd(?:Header|Footer)(?=[\s/>]){ATTRIBUTES}"
        rf"(?:(?<=/)>|>(?P<header>[^<]*)</{p}odd(?:Header|Footer)>|(?P<open_header>)))"
    )
    inner = rf"<{p}(?P<name>[vtf])(?=[\s/>]){ATTRIBUTES}(?:(?<=/)>|>(?P<text>[^<]*)</{p}(?P=name)\s*>|(?P<strange>))"
    prefixes = Prefixes(((prefix.rstrip(":"),), SHEET_NAMESPACES))
    return prefixes, re.compile(element, re.S), re.compile(inner)


class SheetEvents(_Rows):
    """Collects rows and cells from the events of a parser."""

    def __init__(self, text_of_cell: TextOfCell) -> None:
        super().__init__(text_of_cell)
        self._characters: list[str] = []
        self._begin_cell({})

    def attach(self, parser: expat.XMLParserType) -> None:
        """Set the handlers on the parser."""
        self._parser = parser
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end

    def _start(self, name: str, attributes: Attributes) -> None:
        element = _ELEMENTS.get(name)
        if element == "c":
            self._begin_cell(attributes)
        elif element in _TEXT_ELEMENTS:
            self._characters.clear()
            self._parser.CharacterDataHandler = self._characters.append

    def _end(self, name: str) -> None:
        element = _ELEMENTS.get(name)
        if element in _TEXT_ELEMENTS:
            self._parser.CharacterDataHandler = None
            self._keep(element, "".join(self._characters))
        elif element == "c":
            self._add_cell(self._type, self._style, self._value, self._formula)
        elif element == "row":
            self._end_row()

    def _begin_cell(self, attributes: Attributes) -> None:
        self._type, self._style = attributes.get("t", ""), attributes.get("s", "")
        self._value = self._formula = ""

    def _keep(self, element: str | None, text: str) -> None:
        if element == "v":
            self._value = text
        elif element == "t":
            self._value += text
        elif element == "f":
            self._formula = text
        else:
            self._add_header(text)


_TEXT_ELEMENTS = frozenset(["v", "t", "f", "oddHeader", "oddFooter"])
_ELEMENTS = {
    f"{space}{SEPARATOR}{local}": local for space in SHEET_NAMESPACES for local in ("row", "c", *_TEXT_ELEMENTS)
}
