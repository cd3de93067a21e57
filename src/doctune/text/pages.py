"""Where the pages of a document begin in its prepared text.

Preparing a text moves its characters, but no rule of it looks for visible ones beyond a line break, which ends every
page: as many visible characters stand before a page as the pages before it have when each is prepared alone. The one
exception, a private key over two pages that is scrubbed, shows in the total, and no page is named then.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate

_VISIBLE = re.compile(r"\S+")


def num_visible(text: str) -> int:
    """Characters that are no white space."""
    return len("".join(text.split()))


def page_starts(text: str, counts: Sequence[int]) -> tuple[int, ...]:
    """Where each page begins in a prepared text; nothing where the pages are not those of the text.

    A page without visible characters begins where the next one does, at the end of the text if there is none.

    Args:
        text: of all pages, prepared.
        counts: visible characters of each page, prepared alone.
    """
    if num_visible(text) != sum(counts):
        return ()
    words = _VISIBLE.finditer(text)
    word, seen = next(words, None), 0
    starts = []
    for before in accumulate(counts[:-1], initial=0):
        while word is not None and seen + len(word[0]) <= before:
            seen += len(word[0])
            word = next(words, None)
        starts.append(len(text) if word is None else word.start() + before - seen)
    return tuple(starts[: len(counts)])
