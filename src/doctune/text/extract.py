"""One contract for every format: a path or bytes in; text, status and reason out."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

from doctune.documents import Document
from doctune.errors import ConfigError
from doctune.text import formats
from doctune.text.pages import num_visible, page_starts
from doctune.text.prepare import CONTEXT_CHARS, prepare_text
from doctune.text.reading import Reading, describe, open_reading
from doctune.text.refusal import Refused
from doctune.text.settings import EXTRACTOR_VERSION, ExtractSettings
from doctune.text.sniff import sniff

__all__ = ["EXTRACTOR_VERSION", "ExtractSettings", "extract"]

MAX_REASON_CHARS = 1000
# After these a text read so far depends on the machine rather than on the file: it is not kept.
_WITHOUT_TEXT = frozenset(["encrypted", "unsupported", "unreadable", "out_of_memory"])


def extract(source: Path | str | bytes, settings: ExtractSettings | None = None, *, name: str = "") -> Document:
    """Read one file in this process, without limits of time and memory (`sandbox.extract_files` has them).

    Args:
        source: a path, or the content of a file.
        settings: how much is read and how it is prepared; the defaults of `ExtractSettings` if None.
        name: for bytes, the name that stands in `Document.path`; its suffix breaks ties between kinds of text. No name
            ever reaches the text.

    Returns:
        The document; bad content gives a status and a reason, never an exception.

    Raises:
        ConfigError: the library that reads this format cannot be imported; the message names the package to install.
    """
    settings = settings or ExtractSettings()
    path = Path(source) if isinstance(source, str) else source
    shown = name if isinstance(path, bytes) else str(source)
    form = ""
    try:
        with open_reading(path, name, settings) as reading:
            form = _format_of(reading)
            return _read(reading, form, shown)
    except Exception as error:
        if isinstance(error, ImportError) and not _is_want_of_memory(error):
            raise ConfigError(_missing_package(error)) from error
        refusal = _refusal(error)
        return Document(shown, refusal.status, refusal.reason, form, "")


def _format_of(reading: Reading) -> str:
    if reading.size == 0:
        raise Refused("empty", "the file has no bytes")
    return sniff(reading)


def _read(reading: Reading, form: str, shown: str) -> Document:
    raw, refusal = _collect(reading, formats.READERS[form])
    if not raw.prepared() and refusal and refusal.may_try_another and form in formats.FALLBACKS:
        raw, refusal = _read_otherwise(reading, form, raw, refusal)
    text = raw.prepared()
    if refusal and (not text or refusal.status in _WITHOUT_TEXT):
        return Document(shown, refusal.status, refusal.reason, form, "")
    if refusal:
        reading.remark(f"partly read ({refusal.status}): {refusal.reason}")
    reason = "; ".join(reading.remarks)[:MAX_REASON_CHARS]
    if not text and reading.has_losses:
        return Document(shown, "damaged", reason, form, "")
    if not text:
        return Document(shown, "empty", reason or "there is no text in it", form, "")
    return Document(shown, "ok", reason, form, text, raw.page_starts())


def _read_otherwise(reading: Reading, form: str, raw: RawText, refusal: Refused) -> tuple[RawText, Refused | None]:
    """What the format's second reader makes of a file that gave the first one nothing."""
    if form != "pdf":
        reading.package.refuse_bomb()
    try:
        second, _ = _collect(reading, formats.FALLBACKS[form])
    except ImportError:  # a second reader may be done without: whoever cannot accept its licence uninstalls it
        return raw, refusal
    if not second.prepared():
        return raw, refusal
    reading.remark(f"read another way, since at first: {refusal.reason}")
    return second, None


def _collect(reading: Reading, reader: str) -> tuple[RawText, Refused | None]:
    """The text of a file as far as it is wanted, and what ended the reading early if anything did.

    Raises:
        ImportError: the reader's library is not there.
    """
    raw = RawText(reading.settings)
    try:
        with closing(formats.load(reader)(reading)) as pieces:
            for piece in pieces:
                raw.add(piece, is_page=reading.has_pages)
                if raw.is_enough():
                    break
    except ImportError:
        raise
    except Exception as error:
        return raw, _refusal(error)
    return raw, None


def _refusal(error: Exception) -> Refused:
    """What an exception of a parser says about the file that caused it."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, MemoryError) or _is_want_of_memory(error):
        return Refused("out_of_memory", "reading it needs more memory than it may have")
    if isinstance(error, RecursionError):
        return Refused("damaged", "nested too deeply")
    if isinstance(error, OSError):
        return Refused("unreadable", describe(error))
    # Parsers raise every kind of exception on damaged input.
    return Refused("damaged", describe(error))


def _is_want_of_memory(error: Exception) -> bool:
    """Whether a library could not be loaded only because the process holds too much already."""
    return isinstance(error, ImportError) and re.search("failed to map|allocate memory", str(error)) is not None


def _missing_package(error: ImportError) -> str:
    """What to install, in one sentence."""
    module = (error.name or "").partition(".")[0]
    if not module:
        return f"The library of a file format cannot be imported: {error}."
    package = formats.PACKAGES.get(module, module)
    return f"The package {package}, which reads this file format, cannot be imported ({error}): pip install {package}."


class RawText:
    """Text as it comes from a reader, until there is enough of it to prepare `max_chars` characters."""

    def __init__(self, settings: ExtractSettings) -> None:
        self._settings = settings
        self._pieces: list[str] = []
        self._num_chars = 0
        self._page_counts: list[int] = []
        is_prepared = settings.normalise or settings.scrub
        # What a character becomes can depend on the text after it.
        self._needed = None if settings.max_chars is None else settings.max_chars + CONTEXT_CHARS * is_prepared
        self._next_check = self._needed
        self._prepared: str | None = None

    def add(self, piece: str, *, is_page: bool = False) -> None:
        """Take the next piece; `is_page` where it is the whole of the next page."""
        if is_page:
            self._page_counts.append(num_visible(self._prepare_piece(piece)))
        self._pieces.append(piece)
        self._num_chars += len(piece)
        self._prepared = None

    def is_enough(self) -> bool:
        """Whether the bound is reached; the text is prepared each time it has doubled, so this stays cheap."""
        if self._needed is None or self._next_check is None or self._num_chars < self._next_check:
            return False
        if len(self._prepare()) >= self._needed:
            return True
        self._next_check = 2 * self._num_chars
        return False

    def prepared(self) -> str:
        """The prepared text, cut to the bound."""
        text = self._prepare()
        limit = self._settings.max_chars
        if limit is None or len(text) <= limit:
            return text if text.strip() else ""
        return text[:limit].rstrip() if self._settings.normalise else text[:limit]

    def page_starts(self) -> tuple[int, ...]:
        """Where the pages that the prepared text shows begin in it; empty where there are none."""
        if not self._page_counts:
            return ()
        length = len(self.prepared())
        return tuple(start for start in page_starts(self._prepare(), self._page_counts) if start < length)

    def _prepare(self) -> str:
        if self._prepared is None:
            self._pieces = ["".join(self._pieces)]
            self._prepared = self._prepare_piece(self._pieces[0])
        return self._prepared

    def _prepare_piece(self, piece: str) -> str:
        return prepare_text(piece, normalise=self._settings.normalise, scrub=self._settings.scrub)
