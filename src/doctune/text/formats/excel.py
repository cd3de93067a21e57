"""Excel packages (xlsx, xlsm, xltx, xltm; Transitional and Strict) as a stream of their XML.

A line per row, tabs between cells, the sheet's name above its first row. Cells are taken as they come, so that a sheet
that claims a million columns costs what its cells cost. Formulas give their cached value, or themselves where the
writer stored none. Dates are ISO dates. Text boxes and comments follow the cells.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from xml.parsers import expat

from doctune.text.ooxml import main_part, relationships
from doctune.text.package import Package, Part
from doctune.text.reading import Reading
from doctune.text.refusal import Refused
from doctune.text.xmlstream import CHUNK_BYTES, SEPARATOR, Attributes, for_each_element, guarded_parser, stream_text

_SHEET = (
    "http://schemas.openxmlformats.org/spreadsheetml/2006/main",
    "http://purl.oclc.org/ooxml/spreadsheetml/main",
)
_DRAWING = (
    "http://schemas.openxmlformats.org/drawingml/2006/main",
    "http://purl.oclc.org/ooxml/drawingml/main",
)
# What one cell can hold in Excel; a longer shared string is not one that Excel wrote.
MAX_CELL_CHARS = 32_767
_DATE_FORMAT_IDS = frozenset([*range(14, 23), *range(27, 37), *range(45, 48), *range(50, 59)])
_NOT_DATE_CODE = re.compile(r'"[^"]*"|\[[^\]]*\]|\\.|_.|\*.')
_HEADER_CODE = re.compile(r'&"[^"]*"|&K[0-9A-Fa-f]{6}|&\d+|&[A-Z]')


def read(reading: Reading) -> Iterator[str]:
    """The text of the sheets in their order; sheets that fail are left out with a remark.

    Raises:
        Refused: there is no workbook part, or no sheet of it could be read to its end.
    """
    workbook = _Workbook(reading)
    failures = []
    for name, part in workbook.sheets:
        try:
            yield from _sheet_text(workbook, name, part)
        except Refused as refusal:
            failures.append(refusal)
            reading.lose(f"the sheet {name!r}", refusal)
        yield from _side_texts(reading, part)
    if failures and len(failures) == len(workbook.sheets):
        reading.remarks.clear()
        raise failures[0]


def _sheet_text(workbook: _Workbook, name: str, part: str) -> Iterator[str]:
    """The rows of a sheet, below its name if it has any."""
    is_named = False
    for text in stream_text(workbook.package.open(part), _SheetEvents(workbook)):
        if not is_named:
            yield f"{name}\n"
            is_named = True
        yield text


def _side_texts(reading: Reading, sheet: str) -> Iterator[str]:
    """Text boxes and comments of a sheet."""
    for reference in relationships(reading.package, sheet, ("drawing", "comments")):
        if reading.package.has(reference.target):
            try:
                yield from stream_text(reading.package.open(reference.target), _RunEvents())
            except Refused as refusal:
                reading.lose(reference.target, refusal)


class _Workbook:
    """Sheets in their order, and what their cells refer to: shared strings and date formats, read when needed."""

    def __init__(self, reading: Reading) -> None:
        self.package = reading.package
        self._reading = reading
        self._part = main_part(self.package)
        if not self._part:
            raise Refused("damaged", "the Excel package has no workbook part")
        self._references = relationships(self.package, self._part, ("worksheet", "sharedStrings", "styles"))
        self._epoch = datetime.datetime(1899, 12, 30)
        self.sheets = self._find_sheets()
        self._strings: _SharedStrings | None = None
        self._date_styles: frozenset[int] | None = None

    def _find_sheets(self) -> list[tuple[str, str]]:
        parts = {reference.id: reference.target for reference in self._references if reference.kind == "worksheet"}
        sheets = []

        def visit(element: str, attributes: Attributes) -> None:
            if element == "workbookPr" and attributes.get("date1904") in ("1", "true"):
                self._epoch = datetime.datetime(1904, 1, 1)
            if element == "sheet":
                part = next((parts[value] for key, value in attributes.items() if _is_id(key) and value in parts), "")
                if part and self.package.has(part):
                    sheets.append((attributes.get("name", ""), part))

        try:
            for_each_element(self.package.open(self._part), visit)
        except Refused as refusal:
            self._reading.lose("the list of sheets", refusal)
        return sheets or [("", part) for part in parts.values() if self.package.has(part)] or self._orphans()

    def _orphans(self) -> list[tuple[str, str]]:
        """Sheets that a damaged package still holds but nothing refers to."""
        return [("", name) for name in self.package.names if re.search(r"worksheets/[^/]*\.xml$", name)]

    def _referred(self, kind: str) -> str | None:
        for reference in self._references:
            if reference.kind == kind and self.package.has(reference.target):
                return reference.target
        return None

    def string(self, index: str) -> str:
        """A shared string by the number in the cell; "" if there is none."""
        if self._strings is None:
            part = self._referred("sharedStrings")
            self._strings = _SharedStrings(self.package, part)
        return self._strings.get(int(index)) if index.isascii() and index.isdigit() and len(index) < 10 else ""

    def number(self, value: str, style: str | None) -> str:
        """A number as Excel shows its value: a date as an ISO date, no rounding noise."""
        try:
            number = float(value)
        except ValueError:
            return value
        if style and style != "0" and style.isdigit() and self._is_date(int(style)):
            return self._date(number, value)
        return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)

    def _is_date(self, style: int) -> bool:
        if self._date_styles is None:
            part = self._referred("styles")
            self._date_styles = _date_styles(self.package, part) if part else frozenset()
        return style in self._date_styles

    def _date(self, number: float, value: str) -> str:
        try:
            moment = self._epoch + datetime.timedelta(seconds=round(number * 86400))
        except (OverflowError, ValueError):
            return value
        if 0 <= number < 1:
            return moment.time().isoformat()
        return moment.date().isoformat() if moment.time() == datetime.time() else moment.isoformat(" ")


def _is_id(attribute: str) -> bool:
    return attribute.endswith(f"{SEPARATOR}id")


def _date_styles(package: Package, part: str) -> frozenset[int]:
    """The cell styles (places in cellXfs) whose number format is a date or a time."""
    date_codes: set[str] = set()
    styles: list[str] = []
    is_cell_style = False

    def visit(element: str, attributes: Attributes) -> None:
        nonlocal is_cell_style
        if element == "numFmt" and is_date_code(attributes.get("formatCode", "")):
            date_codes.add(attributes.get("numFmtId", ""))
        elif element in ("cellXfs", "cellStyles"):
            is_cell_style = element == "cellXfs"
        elif element == "xf" and is_cell_style:
            styles.append(attributes.get("numFmtId", "0"))

    try:
        for_each_element(package.open(part), visit)
    except Refused as refusal:
        if refusal.status != "damaged":
            raise
    builtin = {str(number) for number in _DATE_FORMAT_IDS}
    return frozenset(place for place, code in enumerate(styles) if code in date_codes or code in builtin)


def is_date_code(code: str) -> bool:
    """Whether a number format such as `yyyy-mm-dd` shows a date or a time of day."""
    return re.search("[dmyhs]", _NOT_DATE_CODE.sub("", code.split(";")[0]).lower().replace("general", "")) is not None


class _SharedStrings:
    """The strings that cells share, read only as far as a cell asks for."""

    def __init__(self, package: Package, part: str | None) -> None:
        self._strings: list[str] = []
        self._pieces: list[str] = []
        self._is_phonetic = False
        self._part: Part | None = package.open(part) if part else None
        self._parser = guarded_parser()
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end

    def get(self, index: int) -> str:
        """The string at a place, "" if the list ends before it.

        Raises:
            Refused: the list is broken before that place.
        """
        while len(self._strings) <= index and self._part is not None:
            self._read_on(self._part)
        return self._strings[index] if index < len(self._strings) else ""

    def _read_on(self, part: Part) -> None:
        chunk = part.read(CHUNK_BYTES)
        is_last = len(chunk) < CHUNK_BYTES
        try:
            self._parser.Parse(chunk, is_last)
        except (expat.ExpatError, ValueError, LookupError) as error:
            self._part = None
            raise Refused("damaged", f"the shared strings are broken: {error}") from error
        if is_last:
            self._part = None

    def _start(self, name: str, _: Attributes) -> None:
        local = name.rpartition(SEPARATOR)[2]
        if local == "t" and not self._is_phonetic:
            self._parser.CharacterDataHandler = self._pieces.append
        elif local == "rPh":
            self._is_phonetic = True

    def _end(self, name: str) -> None:
        local = name.rpartition(SEPARATOR)[2]
        if local == "t":
            self._parser.CharacterDataHandler = None
        elif local == "rPh":
            self._is_phonetic = False
        elif local == "si":
            self._strings.append("".join(self._pieces)[:MAX_CELL_CHARS])
            self._pieces.clear()


class _SheetEvents:
    """Collects the rows of a worksheet: only filled cells, however far apart they claim to be."""

    def __init__(self, workbook: _Workbook) -> None:
        self.pieces: list[str] = []
        self._workbook = workbook
        self._row: list[str] = []
        self._characters: list[str] = []
        self._begin_cell("", None)

    def attach(self, parser: expat.XMLParserType) -> None:
        """Set the handlers on the parser."""
        self._parser = parser
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end

    def _start(self, name: str, attributes: Attributes) -> None:
        element = _ELEMENTS.get(name)
        if element == "c":
            self._begin_cell(attributes.get("t", ""), attributes.get("s"))
        elif element in _TEXT_ELEMENTS:
            self._characters.clear()
            self._parser.CharacterDataHandler = self._characters.append

    def _end(self, name: str) -> None:
        element = _ELEMENTS.get(name)
        if element in _TEXT_ELEMENTS:
            self._parser.CharacterDataHandler = None
            self._keep(element, "".join(self._characters))
        elif element == "c":
            text = self._text_of_cell()
            if text:
                self._row.append(" ".join(text.split("\n")))
        elif element == "row" and self._row:
            self.pieces.append("\t".join(self._row) + "\n")
            self._row.clear()

    def _begin_cell(self, type_: str, style: str | None) -> None:
        self._type, self._style, self._value, self._formula = type_, style, "", ""

    def _keep(self, element: str | None, text: str) -> None:
        if element == "v":
            self._value = text
        elif element == "t":
            self._value += text
        elif element == "f":
            self._formula = text
        elif shown := " ".join(_HEADER_CODE.sub(" ", text.replace("&&", "&")).split()):
            self.pieces.append(shown + "\n")

    def _text_of_cell(self) -> str:
        if not self._value:
            return f"={self._formula}" if self._formula else ""
        if self._type == "s":
            return self._workbook.string(self._value.strip())
        if self._type in ("", "n"):
            return self._workbook.number(self._value, self._style)
        if self._type == "b":
            return "TRUE" if self._value == "1" else "FALSE"
        return self._value[:MAX_CELL_CHARS]


_TEXT_ELEMENTS = frozenset(["v", "t", "f", "oddHeader", "oddFooter"])
_ELEMENTS = {f"{space}{SEPARATOR}{local}": local for space in _SHEET for local in ("row", "c", *_TEXT_ELEMENTS)}


class _RunEvents:
    """Collects the runs of text boxes and comments, a line per paragraph."""

    def __init__(self) -> None:
        self.pieces: list[str] = []

    def attach(self, parser: expat.XMLParserType) -> None:
        """Set the handlers on the parser."""
        self._parser = parser
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end

    def _start(self, name: str, _: Attributes) -> None:
        if name in _RUNS:
            self._parser.CharacterDataHandler = self.pieces.append

    def _end(self, name: str) -> None:
        if name in _RUNS:
            self._parser.CharacterDataHandler = None
        elif name in _PARAGRAPHS:
            self.pieces.append("\n")


_RUNS = frozenset(f"{space}{SEPARATOR}t" for space in (*_SHEET, *_DRAWING))
_PARAGRAPHS = frozenset([*(f"{s}{SEPARATOR}p" for s in _DRAWING), *(f"{s}{SEPARATOR}comment" for s in _SHEET)])
