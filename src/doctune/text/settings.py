"""What shapes the text of a file. The key of these settings is part of every cache that holds texts."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from doctune.errors import ConfigError

# Raise it with every change that can alter the text or the status of any file.
EXTRACTOR_VERSION = 3
PDF_BACKENDS = ("pymupdf", "pypdfium2")


@dataclass(frozen=True)
class ExtractSettings:
    """How much of a file is read, by what, and how its text is prepared.

    Attributes:
        max_chars: characters of prepared text to keep, counted from the start; None keeps all of it. The text under a
            bound is always a prefix of the whole text.
        max_bytes: containers (PDF, Office, e-mail, ...) larger than this are `too_large`. Plain text and binaries
            are read only as far as needed, whatever their size.
        pdf_backend: "pymupdf" (AGPL-3.0 or commercial) or "pypdfium2" (Apache-2.0 / BSD-3-Clause).
        normalise: unicode NFC, one kind of line end, no control characters, no runs of blanks.
        scrub: replace personal data (e-mail addresses, phone and card numbers, IBANs, IP addresses, keys) by
            placeholders such as `[EMAIL]`.
    """

    max_chars: int | None = 6000
    max_bytes: int = 512 * 1024 * 1024
    pdf_backend: str = "pymupdf"
    normalise: bool = True
    scrub: bool = False

    def __post_init__(self) -> None:
        if self.pdf_backend not in PDF_BACKENDS:
            raise ConfigError(f"pdf_backend is {self.pdf_backend!r}; use one of: {', '.join(PDF_BACKENDS)}.")
        if self.max_chars is not None and self.max_chars < 1:
            raise ConfigError(f"max_chars is {self.max_chars}; use a number from 1, or None for the whole text.")
        if self.max_bytes < 1:
            raise ConfigError(f"max_bytes is {self.max_bytes}; use a number of bytes from 1.")

    def key(self) -> str:
        """16 hex digits, equal in every process and on every machine for equal settings and extractor version."""
        import hashlib
        import json

        facts = json.dumps({"version": EXTRACTOR_VERSION, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(facts.encode()).hexdigest()[:16]
