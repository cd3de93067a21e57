"""Explanations for the terminal: marks that need no color, and colors where there are any."""

from __future__ import annotations

import io
import unicodedata

from rich.console import Console
from rich.text import Text

from doctune.inference.explanation import Attribution, Explanation, Passage, Piece
from doctune.reports.explain import (
    MARKED,
    METHOD_SENTENCE,
    STRONG,
    between,
    completeness_sentence,
    largest,
    outcome_sentence,
    range_sentence,
    top_words,
    warning_sentence,
)
from doctune.reports.numbers import percent, whole

LEGEND = (
    "{+word+} adds to the score, [-word-] takes from it; {++word++} and [--word--] at least half as much as the "
    f"strongest word, what is below {100 * MARKED:.0f} % of it is not marked. The method: {METHOD_SENTENCE}\n"
)
# By sign and strength: what stands before and after a word, and its style.
_MARKS = {
    (1, 1): ("{+", "+}", "cyan"),
    (1, 2): ("{++", "++}", "bold cyan"),
    (-1, 1): ("[-", "-]", "yellow"),
    (-1, 2): ("[--", "--]", "bold yellow"),
}


def as_text(explanation: Explanation, *, is_colored: bool = False) -> str:
    """An explanation for a person; with the escape sequences of a terminal where it `is_colored`."""
    stream = io.StringIO()
    console = Console(
        file=stream, force_terminal=is_colored, color_system="standard" if is_colored else None, highlight=False
    )
    for block in _blocks(explanation):
        console.print(block, soft_wrap=True)
    return stream.getvalue()


def _blocks(explanation: Explanation) -> list[Text]:
    head = [outcome_sentence(explanation), range_sentence(explanation), *explanation.notes]
    return [
        Text(_visible(explanation.path), style="bold"),
        Text("\n".join(f"  {_visible(line)}" for line in head if line)),
        *([_chunk_table(explanation)] if explanation.chunks else []),
        *(block for attribution in explanation.attributions for block in _attribution(attribution)),
        Text(),
    ]


def _chunk_table(explanation: Explanation) -> Text:
    rows = [
        f"  {percent(chunk.weight):>7}  chunk {chunk.number:<4} {whole(chunk.start):>9}  {_visible(chunk.opening)}"
        for chunk in explanation.chunks
    ]
    return Text("\n".join(["", "   weight              from character, first words", *rows]))


def _attribution(attribution: Attribution) -> list[Text]:
    scale = largest(attribution)
    blocks = [
        Text(f"\n  {_visible(attribution.scalar)}", style="bold"),
        Text(f"  {completeness_sentence(attribution)}"),
    ]
    if warning := warning_sentence(attribution.completeness):
        blocks.append(Text(f"  Warning: {warning}", style="red"))
    for word, sign in (("adds most", 1), ("takes most", -1)):
        if found := top_words(attribution, sign):
            named = ", ".join(f"{_visible(text)} {value:+.3g}" for text, value in found)
            blocks.append(Text(f"  {word}: {named}"))
    return blocks + [_passage(passage, scale) for passage in attribution.passages]


def _passage(passage: Passage, scale: float) -> Text:
    text = Text(f"\n  {passage.name}:\n    ")
    for characters, word in between(passage):
        shown = _visible(characters).replace("\n", "\n    ")
        before, after, style = _mark(word, scale) if word and characters.strip() else ("", "", "")
        text.append(f"{before}{shown}{after}", style=style)
    return text


def _mark(word: Piece, scale: float) -> tuple[str, str, str]:
    share = word.attribution / scale
    if abs(share) < MARKED:
        return "", "", ""
    return _MARKS[1 if share > 0 else -1, 2 if abs(share) >= STRONG else 1]


def _visible(text: str) -> str:
    """Control characters, which could steer the terminal, and bytes of file names that are no text spelled out."""
    return "".join(
        letter if letter in "\n\t" or unicodedata.category(letter) not in ("Cc", "Cs") else f"⟨U+{ord(letter):04X}⟩"
        for letter in text
    )
