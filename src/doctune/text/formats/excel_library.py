"""Excel through openpyxl, for packages that our own reader makes nothing of."""

from __future__ import annotations

from collections.abc import Iterator

from doctune.text.reading import Reading


def read(reading: Reading) -> Iterator[str]:
    """A line per row with the stored values; links to other workbooks are not followed."""
    import openpyxl

    reading.file.seek(0)
    workbook = openpyxl.load_workbook(reading.file, read_only=True, data_only=True, keep_links=False)
    for sheet in workbook.worksheets:
        # A stated dimension that is wrong hides cells.
        sheet.reset_dimensions()
        for row in sheet.iter_rows(values_only=True):
            cells = [str(value) for value in row if value is not None]
            if cells:
                yield "\t".join(cells) + "\n"
