"""Where the sentence around a place in a text begins and ends, by rules, without a model.

A sentence ends at a line break, at 。！？ and their kin, and after . ! ? … with its closing quotes and brackets, if
white space follows and the next character is no lower-case letter. A full stop ends none

- after a title or a shortening such as Mr., e.g. or vs., and before a number after p., No. or a month;
- after an initial or letters with stops (J. Smith, U.S. Army), unless the next word commonly opens a sentence, as in
  "of the U.S. The next …".

Decimals, file names and addresses have no white space after their stops. What the rules get wrong: a sentence that
begins in lower case (iPhone), or that ends in a shortening and goes on with a name, joins the next one.
"""

from __future__ import annotations

import re

# How far a sentence is followed on either side of its place: text without an end costs no more, and none is longer.
MAX_CHARS = 2000
_OVERHANG = 16  # an end just before a place may have begun this far back: stops, quotes, brackets
_BREAKS = "\n\r\v\f\x85\u2028\u2029"
_IDEOGRAPHIC = "。！？｡"
# Stops are taken as one run and closers are counted, so that every character is looked at once.
_END = re.compile(
    rf"[{_BREAKS}]"
    rf"|[{_IDEOGRAPHIC}]++[\"'”’»」』）)\]]{{0,4}}+"
    rf"|(?<![.!?…؟۔।])[.!?…؟۔।]++[\"'”’»)\]}}]{{0,4}}+(?=\s|\Z)"
)
_GAP = 32  # white space between two sentences that is looked past
_WORD_BEFORE = 16
_OPENING = "\"'“‘«([{"
_TITLES = "mr mrs ms messrs mme dr prof st mt rev hon pres gov sen rep gen col maj capt cmdr lt sgt adm"
_CONNECTORS = "e.g i.e cf vs viz al approx"
_NEVER_LAST = frozenset(f"{_TITLES} {_CONNECTORS}".split())
_NUMBERED = "no nos p pp vol fig figs eq sec ch art ca c jan feb mar apr jun jul aug sep sept oct nov dec"
_BEFORE_NUMBER = frozenset(_NUMBERED.split())
_OPENING_WORDS = """
    the a an this that these those it its he she they we you i his her their in on at by for from with as after
    before then during when while since although however but and there where who what which how why many most some
"""
_OPENERS = frozenset(_OPENING_WORDS.split())
_LETTERS_WITH_STOPS = re.compile(r"(?:[A-Z]|(?:[A-Za-z]{1,2}\.)+[A-Za-z])\Z")
_NEXT_WORD = re.compile(r"\w{1,16}")


def sentence_around(context: str, start: int, end: int) -> tuple[int, int]:
    """The characters of the sentence that holds `context[start:end]`, or of all sentences that it touches.

    White space at the ends of the place and of the sentence does not count. The result reaches at most MAX_CHARS beyond
    the place on either side, and is cut between words there, so the time does not grow with the text.

    Raises:
        ValueError: start and end are no place in the text.
    """
    if not 0 <= start <= end <= len(context):
        raise ValueError(f"start {start} and end {end} are no place in a text of {len(context)} characters.")
    start, end = _stripped(context, start, end)
    return _stripped(context, _begin(context, start), _finish(context, max(end, start + 1)))


def _begin(context: str, start: int) -> int:
    """After the last end of a sentence at or before `start`, or as far back as is looked."""
    low = max(0, start - MAX_CHARS)
    begin = None
    for match in _END.finditer(context, max(0, low - _OVERHANG), start):
        if low <= match.end() <= start and _is_end(context, match):
            begin = match.end()
    return begin if begin is not None else _word_from(context, low, start)


def _finish(context: str, end: int) -> int:
    """The first end of a sentence at or after `end`, or as far on as is looked."""
    high = min(len(context), end + MAX_CHARS)
    for match in _END.finditer(context, max(0, end - _OVERHANG), min(len(context), high + 1)):
        if end <= match.end() <= high and _is_end(context, match):
            return match.end()
    return _word_to(context, end, high)


def _is_end(context: str, match: re.Match[str]) -> bool:
    """Whether a candidate ends a sentence, by what stands around it."""
    first = match[0][0]
    if first in _BREAKS or first in _IDEOGRAPHIC:
        return True
    following = context[match.end() : match.end() + _GAP]
    if following and not following[0].isspace():
        return False  # the search stopped here, the text does not
    rest = following.lstrip()
    if not rest or any(mark in _BREAKS for mark in following[: len(following) - len(rest)]):
        return True
    return not rest[0].islower() and not (match[0] == "." and _is_shortening(context, match.start(), rest))


def _is_shortening(context: str, stop: int, rest: str) -> bool:
    """Whether the full stop at `stop` belongs to the word before it; `rest` is what follows."""
    words = context[max(0, stop - _WORD_BEFORE) : stop].split()
    word = words[-1].lstrip(_OPENING) if words and not context[stop - 1].isspace() else ""
    if word.lower() in _NEVER_LAST:
        return True
    if word.lower() in _BEFORE_NUMBER and rest[0].isdigit():
        return True
    if not _LETTERS_WITH_STOPS.match(word):
        return False
    opener = _NEXT_WORD.match(rest.lstrip(_OPENING))
    return opener is None or opener[0].lower() not in _OPENERS


def _word_from(context: str, low: int, start: int) -> int:
    """The first whole word from `low` on; `low` itself at the text's beginning, or where one word fills all of it."""
    if low == 0:
        return low
    for place in range(low, start):
        if context[place - 1].isspace():
            return place
    return low


def _word_to(context: str, end: int, high: int) -> int:
    """The end of the last whole word up to `high`; `high` itself at the text's end, or where one word fills all."""
    if high == len(context):
        return high
    for place in range(high, end, -1):
        if context[place].isspace():
            return place
    return high


def _stripped(context: str, start: int, end: int) -> tuple[int, int]:
    """The same place without white space at its ends; a blank place becomes empty, where it begins."""
    text = context[start:end]
    if not text.strip():
        return start, start
    return end - len(text.lstrip()), start + len(text.rstrip())
