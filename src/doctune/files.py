"""Whole or not at all: every file is written beside its place and renamed into it."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from doctune.errors import ConfigError


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a temporary path in the same folder; when the block ends well it replaces `path`, else it is removed.

    Raises:
        ConfigError: `path` is a folder, a device or a pipe, which cannot be replaced.
    """
    if os.path.lexists(path) and not path.is_file():
        raise ConfigError(f"{path} is no regular file, so no finished file can take its place. Name another one.")
    path = Path(os.path.realpath(path))  # through a link: the file that it names, not the link itself
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file whole."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole; NaN and infinity are refused, since JSON has neither."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
