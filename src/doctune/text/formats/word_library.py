"""Word through python-docx, for packages that our own reader makes nothing of."""

from __future__ import annotations

from collections.abc import Iterator

from doctune.text.reading import Reading


def read(reading: Reading) -> Iterator[str]:
    """Paragraphs and tables of the body in their order."""
    import docx
    from docx.table import Table

    reading.file.seek(0)
    for block in docx.Document(reading.file).iter_inner_content():
        if isinstance(block, Table):
            for row in block.rows:
                yield "\t".join(dict.fromkeys(cell.text for cell in row.cells)) + "\n"
        else:
            yield block.text + "\n"
