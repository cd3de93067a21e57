"""Jupyter notebooks: the cells' sources, and the outputs that are text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from doctune.text.encoding import decode
from doctune.text.reading import Reading, describe
from doctune.text.refusal import Refused


def read(reading: Reading) -> Iterator[str]:
    """Cell by cell, each source followed by its text outputs; images are left out.

    Raises:
        Refused: the JSON is broken or holds no cells.
    """
    try:
        notebook = json.loads(decode(reading.content()))
    except ValueError as error:
        raise Refused("damaged", describe(error)) from error
    for cell in _cells(notebook):
        yield _joined(cell.get("source", cell.get("input", ""))) + "\n\n"
        for output in _dicts(cell.get("outputs")):
            data = output.get("data")
            shown = data.get("text/plain", "") if isinstance(data, dict) else output.get("text", "")
            yield _joined(shown) + "\n"


def _cells(notebook: Any) -> list[dict[str, Any]]:
    """Cells of format 4, or of the worksheets of format 3."""
    if not isinstance(notebook, dict):
        raise Refused("damaged", "a notebook must be a JSON object")
    cells = _dicts(notebook.get("cells"))
    return cells or [cell for sheet in _dicts(notebook.get("worksheets")) for cell in _dicts(sheet.get("cells"))]


def _dicts(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _joined(value: object) -> str:
    """Notebooks store text as a string or as a list of lines."""
    return "".join(line for line in value if isinstance(line, str)) if isinstance(value, list) else str(value or "")
