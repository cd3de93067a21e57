"""Texts that stand in a manifest itself, kept as files, so that everything after it reads files only."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from doctune.files import write_text


def inline_folder(texts: Path, source: Path) -> Path:
    """The folder for the texts of one manifest; made when missing, and marked as used for `corpus.store.prune`."""
    place = os.fsencode(os.path.abspath(source))
    folder = Path(os.path.abspath(texts)) / f"{source.stem}-{hashlib.sha256(place).hexdigest()[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    os.utime(folder)
    return folder


def keep_text(text: str, path: Path) -> None:
    """Write a text, unless the file holds it already: what was extracted from it before is then found again.

    Raises:
        UnicodeEncodeError: the text holds half of a surrogate pair, which no file can.
    """
    encoded = text.encode("utf-8")
    if not path.is_file() or path.read_bytes() != encoded:
        write_text(path, text)
