"""The strings that the cells of an Excel workbook share."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from xml.parsers import expat

from doctune.text.package import Package
from doctune.text.refusal import Refused
from doctune.text.xmlscan import ATTRIBUTES, Unusual, prefix_of_root, scan_pieces, unescape
from doctune.text.xmlstream import Attributes, local_name, stream_pieces

# What one cell can hold in Excel; a longer shared string is not one that Excel wrote.
MAX_CELL_CHARS = 32_767


class SharedStrings:
    """The strings that cells share, read only as far as a cell asks for."""

    def __init__(self, package: Package, part: str | None) -> None:
        self._strings: list[str] = []
        self._more = self._read(package, part) if part else iter(())
        self._failure: Refused | None = None

    def get(self, index: int) -> str:
        """The string at a place, "" if the list ends before it.

        Raises:
            Refused: the list is broken before that place.
        """
        while index >= len(self._strings):
            more = self._next()
            if more is None:
                return ""
            self._strings += [string[:MAX_CELL_CHARS] for string in more]
        return self._strings[index]

    def _next(self) -> list[str] | None:
        if self._failure is not None:
            raise self._failure
        try:
            return next(self._more, None)
        except Refused as refusal:
            self._failure = refusal
            raise

    def _read(self, package: Package, part: str) -> Iterator[list[str]]:
        try:
            yield from scan_pieces(package.open(part), StringScanner())
        except (Unusual, Refused):
            self._strings.clear()
            yield from stream_pieces(package.open(part), StringEvents())


class StringScanner:
    """Finds shared strings; a piece is a string without its phonetic guide."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self._prefix: str | None = None

    def scan(self, xml: str) -> int:
        """Collect the strings that `xml` holds whole; how many characters are done with.

        Raises:
            Unusual: elements within a text.
        """
        if self._prefix is None:
            self._prefix = prefix_of_root(xml)
        string, phonetic, text = _patterns(self._prefix)
        for match in string.finditer(xml):
            if match.lastgroup == "text":
                self.pieces.append(unescape(match["text"]))
            elif match.lastgroup == "runs":
                self.pieces.append("".join(_texts(text, phonetic.sub("", match["runs"]))))
            elif match.lastgroup == "open":
                return match.start()
            else:
                self.pieces.append("")
        return len(xml)


def _texts(pattern: re.Pattern[str], runs: str) -> Iterator[str]:
    for match in pattern.finditer(runs):
        if match.lastgroup == "strange":
            raise Unusual
        yield unescape(match["text"] or "")


@functools.lru_cache(maxsize=16)
def _patterns(prefix: str) -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """A string, a phonetic guide in it, and a text in what is left; each text is empty, plain or strange."""
    p = re.escape(prefix)
    string = (
        rf"<{p}si(?=[\s/>]){ATTRIBUTES}(?:(?<=/)>|"
        rf'><{p}t(?: xml:space="preserve")?>(?P<text>[^<]*)</{p}t></{p}si>|>(?P<runs>.*?)</{p}si>|(?P<open>))'
    )
    text = rf"<{p}t(?=[\s/>]){ATTRIBUTES}(?:(?<=/)>|>(?P<text>[^<]*)</{p}t\s*>|(?P<strange>))"
    return re.compile(string, re.S), re.compile(rf"<{p}rPh(?=[\s>]).*?</{p}rPh>", re.S), re.compile(text)


class StringEvents:
    """Collects shared strings; a piece is a string without its phonetic guide."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self._runs: list[str] = []
        self._is_phonetic = False

    def attach(self, parser: expat.XMLParserType) -> None:
        """Set the handlers on the parser."""
        self._parser = parser
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end

    def _start(self, name: str, _: Attributes) -> None:
        local = local_name(name)
        if local == "t" and not self._is_phonetic:
            self._parser.CharacterDataHandler = self._runs.append
        elif local == "rPh":
            self._is_phonetic = True

    def _end(self, name: str) -> None:
        local = local_name(name)
        if local == "t":
            self._parser.CharacterDataHandler = None
        elif local == "rPh":
            self._is_phonetic = False
        elif local == "si":
            self.pieces.append("".join(self._runs))
            self._runs.clear()
