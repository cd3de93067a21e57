"""The plain libraries as people use them, and how a set of files is timed against them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

Extract = Callable[[Path], str]


def python_docx_text(path: Path) -> str:
    """Paragraphs and tables of a Word file."""
    import docx

    document = docx.Document(str(path))
    lines = [paragraph.text for paragraph in document.paragraphs]
    lines += ["\t".join(cell.text for cell in row.cells) for table in document.tables for row in table.rows]
    return "\n".join(lines)


def openpyxl_text(path: Path) -> str:
    """Values of an Excel file in read-only mode."""
    import openpyxl

    workbook = openpyxl.load_workbook(path, read_only=True, data_only=True)
    rows = (row for sheet in workbook.worksheets for row in sheet.iter_rows(values_only=True))
    return "\n".join("\t".join(str(value) for value in row if value is not None) for row in rows)


def pymupdf_text(path: Path) -> str:
    """The whole text of a PDF."""
    import pymupdf

    with pymupdf.open(path) as document:
        return "\n".join(page.get_text() for page in document)


def three_libraries_text(path: Path) -> str:
    """The library that goes with the suffix."""
    readers: dict[str, Extract] = {".docx": python_docx_text, ".xlsx": openpyxl_text, ".pdf": pymupdf_text}
    return readers[path.suffix.lower()](path)


def doctune_text(path: Path) -> str:
    """The first 4,000 characters through doctune, in this process."""
    from doctune.text.extract import ExtractSettings, extract

    return extract(path, ExtractSettings(max_chars=4000)).text


def text_or_none(extract: Extract, path: Path) -> str | None:
    """The text that an extractor makes of a file; None if it ends in an exception."""
    try:
        return extract(path)
    except Exception:  # whatever way a peer has to refuse a file
        return None


def num_with_text(extract: Extract, paths: Sequence[Path]) -> int:
    """How many files give any text."""
    return sum(bool((text_or_none(extract, path) or "").strip()) for path in paths)


def seconds_per_file(extracts: Sequence[Extract], paths: Sequence[Path], repeats: int) -> list[list[list[float]]]:
    """Processor seconds by extractor, repeat and file; the extractors take turns, each reading all files in its turn.

    Processor time is what one core would take; unlike the wall clock it does not count what else the machine does.
    Turns let whatever slows the machine down for a while slow down all of them.
    """
    times: list[list[list[float]]] = [[] for _ in extracts]
    for _ in range(repeats):
        for of_extract, extract in zip(times, extracts, strict=True):
            of_extract.append([_seconds(extract, path) for path in paths])
    return times


def _seconds(extract: Extract, path: Path) -> float:
    start = time.process_time()
    extract(path)
    return time.process_time() - start
