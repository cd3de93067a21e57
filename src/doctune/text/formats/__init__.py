"""One reader per file format: a function from a `Reading` to pieces of text, imported when its format is first met.

A reader yields text in reading order as soon as it has some, so that a bounded extraction can stop it early, and raises
`Refused` when there is no more to be had.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Generator

from doctune.text.reading import Reading

Reader = Callable[[Reading], Generator[str, None, None]]

# format -> module of this package and its function
READERS = {
    "pdf": "pdf:read",
    "docx": "word:read",
    "word_xml": "word:read_flat",
    "xlsx": "excel:read",
    "xls": "calamine:read",
    "xlsb": "calamine:read",
    "ods": "calamine:read",
    "pptx": "powerpoint:read",
    "odt": "opendocument:read",
    "rtf": "rtf:read",
    "epub": "epub:read",
    "email": "mail:read",
    "html": "html:read",
    "notebook": "notebook:read",
    "text": "plain:read",
    "code": "plain:read",
    "csv": "plain:read",
    "json": "plain:read",
    "xml": "plain:read",
    "markdown": "plain:read",
    "binary": "binary:read",
}
# What is tried when a reader found nothing in a damaged file.
FALLBACKS = {
    "docx": "word_library:read",
    "xlsx": "excel_library:read",
    "pptx": "powerpoint_strict:read",
    "pdf": "pdf:read_otherwise",
}
# The packages whose name on the index is not that of their module.
PACKAGES = {"docx": "python-docx", "pptx": "python-pptx", "python_calamine": "python-calamine"}


@functools.cache
def load(place: str) -> Reader:
    """The function that `module:function` of this package names."""
    module, _, function = place.partition(":")
    reader: Reader = getattr(importlib.import_module(f"{__name__}.{module}"), function)
    return reader
