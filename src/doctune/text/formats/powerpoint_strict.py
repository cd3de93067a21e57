"""PowerPoint packages that python-pptx refuses (Strict OOXML above all): the text runs of each slide's XML."""

from __future__ import annotations

import re
from collections.abc import Iterator

from doctune.text.formats.word import WordEvents
from doctune.text.reading import Reading
from doctune.text.refusal import Refused
from doctune.text.xmlstream import stream_text

_SLIDE = re.compile(r"ppt/(slides|notesSlides)/(?:slide|notesSlide)(\d+)\.xml", re.I)


def read(reading: Reading) -> Iterator[str]:
    """The paragraphs of slides and notes by their number; slides that fail are left out with a remark."""
    for name in _slides(reading.package.names):
        try:
            yield from stream_text(reading.package.open(name), WordEvents())
        except Refused as refusal:
            reading.lose(name, refusal)


def _slides(names: list[str]) -> list[str]:
    """Slides in order, each before its notes."""
    found = [(int(match[2]), match[1] != "slides", name) for name in names if (match := _SLIDE.fullmatch(name))]
    return [name for *_, name in sorted(found)]
