"""PDF through MuPDF (default) or PDFium, page by page."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

from doctune.text.reading import Reading, describe
from doctune.text.refusal import Refused

_END_OF_OBJECT = b"endobj"
_LAYOUT_MODULES = ("pymupdf.layout", "pymupdf4llm")


def read(reading: Reading) -> Iterator[str]:
    """The text of the pages in order; pages that fail are left out with a remark.

    Raises:
        Refused: a password is needed, or there is no page.
    """
    reading.check_size()
    read_pages = _read_with_pdfium if reading.settings.pdf_backend == "pypdfium2" else _read_with_mupdf
    yield from read_pages(reading)


def read_otherwise(reading: Reading) -> Iterator[str]:
    """The same with the backend that was not chosen, for files that the chosen one cannot open."""
    read_pages = _read_with_mupdf if reading.settings.pdf_backend == "pypdfium2" else _read_with_pdfium
    yield from read_pages(reading)


def _read_with_mupdf(reading: Reading) -> Iterator[str]:
    pymupdf = _import_mupdf()
    pymupdf.TOOLS.mupdf_display_errors(False)
    pymupdf.TOOLS.mupdf_display_warnings(False)
    with _open_with_mupdf(pymupdf, reading) as document:
        if document.is_encrypted:  # found out when it was opened; `needs_pass` would derive the key once more
            raise Refused("encrypted", "the PDF needs a password")
        if document.is_repaired:
            reading.remark("the PDF was damaged and had to be repaired")
        yield from _pages(reading, len(document), lambda number: _mupdf_page(pymupdf, document, number))


def _mupdf_page(pymupdf: Any, document: Any, number: int) -> str:
    """What `get_text("text")` gives, without the boxes that it works out and does not use for text."""
    return str(document[number].get_textpage(flags=pymupdf.TEXTFLAGS_TEXT).extractText())


def _import_mupdf() -> Any:
    """PyMuPDF without its optional layout models, which would load ONNX Runtime (0.7 s) and are never asked here."""
    if "pymupdf" in sys.modules:
        return sys.modules["pymupdf"]
    added = [name for name in _LAYOUT_MODULES if sys.modules.setdefault(name, None) is None]  # type: ignore[arg-type]
    try:
        return importlib.import_module("pymupdf")
    finally:
        for name in added:
            del sys.modules[name]


def _open_with_mupdf(pymupdf: Any, reading: Reading) -> Any:
    try:
        if reading.path is not None:
            return pymupdf.open(reading.path, filetype="pdf")
        return pymupdf.open(stream=reading.content(), filetype="pdf")
    except (RuntimeError, ValueError):
        return _open_what_is_left(pymupdf, reading)


def _open_what_is_left(pymupdf: Any, reading: Reading) -> Any:
    """A file that was cut within an object opens once that object is gone."""
    content = reading.content()
    end = content.rfind(_END_OF_OBJECT)
    try:
        if end > 0:
            return pymupdf.open(stream=content[: end + len(_END_OF_OBJECT)] + b"\n", filetype="pdf")
    except (RuntimeError, ValueError) as error:
        # The library's own message ends with the path, which has no place in a reason.
        raise Refused("damaged", "MuPDF finds no PDF in it that it can open") from error
    raise Refused("damaged", "MuPDF finds no PDF in it that it can open")


def _read_with_pdfium(reading: Reading) -> Iterator[str]:
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(reading.content())
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            raise Refused("encrypted", "the PDF needs a password") from error
        raise Refused("damaged", describe(error)) from error
    try:
        yield from _pages(reading, len(document), lambda number: _pdfium_page(document, number))
    finally:
        document.close()


def _pdfium_page(document: Any, number: int) -> str:
    page = document[number]
    try:
        text_page = page.get_textpage()
        try:
            return str(text_page.get_text_bounded())
        finally:
            text_page.close()
    finally:
        page.close()


def _pages(reading: Reading, num_pages: int, text_of: Callable[[int], str]) -> Iterator[str]:
    if num_pages == 0:
        raise Refused("damaged", "the PDF has no pages that can be found")
    reading.has_pages = True
    for number in range(num_pages):
        try:
            text = text_of(number)
        except (RuntimeError, ValueError) as error:
            reading.lose(f"page {number + 1}", Refused("damaged", describe(error)))
            yield ""
            continue
        yield text + "\n"
