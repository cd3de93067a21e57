"""Rich Text Format through striprtf."""

from __future__ import annotations

import re
from collections.abc import Iterator

from doctune.text.reading import Reading

# Pictures are hexadecimal or binary runs inside a group; the library would walk them character by character.
_PICTURE_DATA = re.compile(r"[0-9a-fA-F\s]{2000,}")


def read(reading: Reading) -> Iterator[str]:
    """The whole text at once: the library has no way to stop early."""
    from striprtf.striprtf import rtf_to_text

    # LibreOffice marks character styles as ignorable in the middle of a group; the library would ignore their text.
    content = reading.content().decode("latin-1").replace(r"\*\cs", r"\cs")
    yield rtf_to_text(_PICTURE_DATA.sub(" ", content), encoding=_codepage(content), errors="replace")


def _codepage(content: str) -> str:
    match = re.search(r"\\ansicpg(\d+)", content[:4096])
    return f"cp{match[1]}" if match and match[1] != "0" else "cp1252"
