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

from doctune.text.formats.excel_sheet import SHEET_NAMESPACES, SheetEvents, SheetScanner
from doctune.text.formats.excel_strings import MAX_CELL_CHARS, SharedStrings
from doctune.text.ooxml import main_part, relationships
from doctune.text.package import Package
from doctune.text.reading import Reading
from doctune.text.refusal import Refused
from doctune.text.xmlscan import read_elements, read_text
from doctune.text.xmlstream import SEPARATOR, Attributes, stream_text

_DRAWING = (
    "http://schemas.openxmlformats.org/drawingml/2006/main",
    "http://purl.oclc.org/ooxml/drawingml/main",
)
_DATE_FORMAT_IDS = frozenset([*range(14, 23), *range(27, 37), *range(45, 48), *range(50, 59)])
_STYLE_ELEMENTS = ("numFmt", "cellXfs", "cellStyles", "xf")
_NOT_DATE_CODE = re.compile(r'"[^"]*"|\[[^\]]*\]|\\.|_.|\*.')


def read(reading: Reading) -> Iterator[str]:
    """The text of the sheets in their order; sheets that fail are left out with a remark.

    Raises:
        Refused: there is no workbook part, or no sheet of it could be read to its end.
    """
    workbook = Workbook(reading)
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


def _sheet_text(workbook: Workbook, name: str, part: str) -> Iterator[str]:
    """The rows of a sheet, below its name if it has any."""
    is_named = False
    texts = read_text(
        lambda: workbook.package.open(part),
        SheetScanner(workbook.text_of_cell),
        lambda: SheetEvents(workbook.text_of_cell),
    )
    for text in texts:
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


class Workbook:
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
        self._strings: SharedStrings | None = None
        self._date_styles: frozenset[int] | None = None

    def _find_sheets(self) -> list[tuple[str, str]]:
        parts = {reference.id: reference.target for reference in self._references if reference.kind == "worksheet"}
        sheets = []
        try:
            for element, attributes in read_elements(lambda: self.package.open(self._part), ("workbookPr", "sheet")):
                if element == "workbookPr" and attributes.get("date1904") in ("1", "true"):
                    self._epoch = datetime.datetime(1904, 1, 1)
                name = attributes.get("name", "")
                part = parts.get(attributes.get("id", "")) if element == "sheet" else None
                if part and self.package.has(part):
                    sheets.append((name, part))
                elif part:
                    self._reading.lose(f"the sheet {name!r}", Refused("damaged", "its part is missing"))
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

    def text_of_cell(self, type_: str, style: str, value: str, formula: str) -> str:
        """What a cell shows: its attributes `t` and `s`, its stored value, and its formula if it has no value."""
        if not value:
            return f"={formula}" if formula else ""
        if type_ == "s":
            return self._string(value.strip())
        if type_ in ("", "n"):
            return self._number(value, style)
        if type_ == "b":
            return "TRUE" if value == "1" else "FALSE"
        return value[:MAX_CELL_CHARS]

    def _string(self, index: str) -> str:
        """A shared string by the number in the cell; "" if there is none."""
        if self._strings is None:
            part = self._referred("sharedStrings")
            if part is None:
                self._reading.lose("the shared strings", Refused("damaged", "their part is missing"))
            self._strings = SharedStrings(self.package, part)
        return self._strings.get(int(index)) if index.isascii() and index.isdigit() and len(index) < 10 else ""

    def _number(self, value: str, style: str) -> str:
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


def _date_styles(package: Package, part: str) -> frozenset[int]:
    """The cell styles (places in cellXfs) whose number format is a date or a time."""
    date_codes: set[str] = set()
    styles: list[str] = []
    is_cell_style = False
    try:
        for element, attributes in read_elements(lambda: package.open(part), _STYLE_ELEMENTS):
            if element == "numFmt" and is_date_code(attributes.get("formatCode", "")):
                date_codes.add(attributes.get("numFmtId", ""))
            elif element in ("cellXfs", "cellStyles"):
                is_cell_style = element == "cellXfs"
            elif element == "xf" and is_cell_style:
                styles.append(attributes.get("numFmtId", "0"))
    except Refused as refusal:
        if refusal.status != "damaged":
            raise
    builtin = {str(number) for number in _DATE_FORMAT_IDS}
    return frozenset(place for place, code in enumerate(styles) if code in date_codes or code in builtin)


def is_date_code(code: str) -> bool:
    """Whether a number format such as `yyyy-mm-dd` shows a date or a time of day."""
    return re.search("[dmyhs]", _NOT_DATE_CODE.sub("", code.split(";")[0]).lower().replace("general", "")) is not None


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


_RUNS = frozenset(f"{space}{SEPARATOR}t" for space in (*SHEET_NAMESPACES, *_DRAWING))
_PARAGRAPHS = frozenset(
    [*(f"{s}{SEPARATOR}p" for s in _DRAWING), *(f"{s}{SEPARATOR}comment" for s in SHEET_NAMESPACES)]
)
