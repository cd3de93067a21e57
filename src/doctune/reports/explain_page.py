"""Explanations as one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Sequence

from doctune.documents import Document
from doctune.inference.explanation import Attribution, Explanation, Passage, Piece
from doctune.reports.explain import (
    MARKED,
    METHOD_SENTENCE,
    between,
    completeness_sentence,
    largest,
    outcome_sentence,
    range_sentence,
    top_words,
    warning_sentence,
)
from doctune.reports.numbers import counted, percent, whole
from doctune.reports.page import bar, document, escaped, isolated, path_code

STYLE = """
:root { --for: 43, 95, 168; --against: 214, 118, 0; }
@media (prefers-color-scheme: dark) { :root { --for: 96, 156, 240; --against: 232, 140, 30; } }
h2 { overflow-wrap: anywhere; }
h3 { font-size: .95rem; margin: 1.2rem 0 .3rem; overflow-wrap: anywhere; }
.label { color: var(--soft); font-size: .8rem; margin: .6rem 0 .2rem; }
.passage { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: .7rem 1rem;
  margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.9; tab-size: 4; }
mark { color: inherit; border-radius: 3px; padding: .05em 0; }
mark.for { background: rgba(var(--for), calc(var(--share) * .7)); }
mark.against { background: rgba(var(--against), calc(var(--share) * .7)); }
mark.for.clear { text-decoration: underline solid rgb(var(--for)) 2px; text-underline-offset: .25em; }
mark.against.clear { text-decoration: underline wavy rgb(var(--against)) 1.5px; text-underline-offset: .25em; }
article p { overflow-wrap: anywhere; }
td.opening { text-align: left; white-space: normal; overflow-wrap: anywhere; }
th.opening { text-align: left; }
"""
# Below it a color could not be seen.
_COLORED = 0.02


def page(explanations: Sequence[Explanation], left_out: Sequence[Document]) -> str:
    """The whole page."""
    title = f"Why: {counted(len(explanations), 'document')} explained"
    body = [
        f"<h1>{escaped(title)}</h1>",
        _legend(),
        *(_section(explanation) for explanation in explanations),
        _left_out(left_out),
    ]
    return document(title, "\n".join(part for part in body if part), style=STYLE)


def _legend() -> str:
    adds = '<mark class="for clear" style="--share:1">adds to the score</mark>'
    takes = '<mark class="against clear" style="--share:1">takes from it</mark>'
    return (
        f'<p class="legend">{adds} (straight line), {takes} (wavy line). The stronger the color, the more; lines from '
        f"{100 * MARKED:.0f} % of the strongest word on. Rest the pointer on a word to read its attribution.</p>"
        f'<p class="soft">The method: {escaped(METHOD_SENTENCE)}</p>'
    )


def _section(explanation: Explanation) -> str:
    sentences = [range_sentence(explanation), *explanation.notes]
    return "".join(
        [
            f"<section><h2>{path_code(explanation.path)}</h2>",
            f'<article class="info"><p>{escaped(outcome_sentence(explanation))}</p>',
            *(f'<p class="soft">{escaped(sentence)}</p>' for sentence in sentences if sentence),
            "</article>",
            _chunk_table(explanation) if explanation.chunks else "",
            *(_attribution(attribution) for attribution in explanation.attributions),
            "</section>",
        ]
    )


def _chunk_table(explanation: Explanation) -> str:
    rows = "".join(
        f'<tr><td>{chunk.number}</td><td>{percent(chunk.weight)}</td><td class="wide">{bar(chunk.weight)}</td>'
        f'<td>{whole(chunk.start)}</td><td class="opening">{isolated(chunk.opening)}</td></tr>'
        for chunk in explanation.chunks
    )
    return (
        '<h3>How much each chunk counts</h3><div class="scroll"><table><thead><tr><th>chunk</th><th>weight</th>'
        '<th class="wide"></th><th>from character</th><th class="opening">first words</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _attribution(attribution: Attribution) -> str:
    scale = largest(attribution)
    warning = warning_sentence(attribution.completeness)
    tops = [(words, top_words(attribution, sign)) for words, sign in (("Adds most", 1), ("Takes most", -1))]
    return "".join(
        [
            f"<h3>{escaped(_sentence_like(attribution.scalar))}</h3>",
            f'<p class="soft">{escaped(completeness_sentence(attribution))}</p>',
            f'<article class="warning"><p>{escaped(warning)}</p></article>' if warning else "",
            *(f"<p>{words}: {_named(found)}.</p>" for words, found in tops if found),
            *(_passage(passage, scale) for passage in attribution.passages),
        ]
    )


def _sentence_like(words: str) -> str:
    return words[:1].upper() + words[1:]


def _named(words: Sequence[tuple[str, float]]) -> str:
    return ", ".join(f'{isolated(word)} <span class="soft">{value:+.3g}</span>' for word, value in words)


def _passage(passage: Passage, scale: float) -> str:
    marked = "".join(_marked(characters, word, scale) for characters, word in between(passage))
    return f'<p class="label">{escaped(passage.name)}</p><p class="passage" dir="auto">{marked}</p>'


def _marked(characters: str, word: Piece | None, scale: float) -> str:
    if word is None or abs(word.attribution) / scale < _COLORED or not characters.strip():
        return escaped(characters)
    share = abs(word.attribution) / scale
    kind = "for" if word.attribution > 0 else "against"
    clear = " clear" if share >= MARKED else ""
    return (
        f'<mark class="{kind}{clear}" style="--share:{share:.2f}" title="{word.attribution:+.3g}">'
        f"{escaped(characters)}</mark>"
    )


def _left_out(documents: Sequence[Document]) -> str:
    if not documents:
        return ""
    items = "".join(
        f"<li>{path_code(document.path)} ({escaped(document.status)}): {escaped(document.reason)}</li>"
        for document in documents
    )
    return f"<section><h2>Left out</h2><ul>{items}</ul></section>"
