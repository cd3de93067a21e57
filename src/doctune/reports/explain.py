"""What is said of an explanation in every form, and the form for programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from doctune.decode.multi_task import TargetPrediction
from doctune.documents import Answer, Document
from doctune.inference.explanation import (
    MAX_RELATIVE_DELTA,
    MOST_STEPS,
    Attribution,
    Completeness,
    Explanation,
    Passage,
    Piece,
)
from doctune.reports.numbers import counted, decimal, percent, whole

SCHEMA = 1
METHOD = {
    "name": "layer integrated gradients",
    "layer": "word embeddings",
    "baseline": "the same text with padding in place of every token that is not a special one",
    "quadrature": "Gauss-Legendre",
    "source": "Sundararajan, Taly and Yan, Axiomatic Attribution for Deep Networks, ICML 2017",
}
METHOD_SENTENCE = (
    "layer integrated gradients (Sundararajan et al. 2017) on the word embeddings, from padding in place of the text."
)
# The share of the largest attribution from which a word is marked, and from which it is marked as strong.
MARKED, STRONG = 0.15, 0.5
_WORDS_NAMED = 6


def for_programs(explanations: Iterable[Explanation], left_out: Iterable[Document]) -> dict[str, Any]:
    """Everything, as plain containers."""
    return {
        "schema": SCHEMA,
        "method": METHOD,
        "explanations": [_record(explanation) for explanation in explanations],
        "left_out": [
            {"path": document.path, "status": document.status, "reason": document.reason} for document in left_out
        ],
    }


def outcome_sentence(explanation: Explanation) -> str:
    """What is explained, and what the model says where that is something else."""
    outcome = explanation.outcome
    if isinstance(outcome, TargetPrediction):
        return _target_sentence(outcome, explanation.subject, explanation.attributions[0].probability)
    if isinstance(outcome, Answer):
        page = "" if outcome.page is None else f"page {outcome.page}, "
        place = f"{page}characters {outcome.start:,} to {outcome.end:,}"
        return f"Answer to {explanation.subject!r}: {outcome.text!r} ({place}), probability {decimal(outcome.score)}."
    if explanation.subject == outcome.label:
        return f"Label {outcome.label!r}, probability {decimal(outcome.score)}."
    return (
        f"Label {explanation.subject!r}, probability {decimal(explanation.attributions[0].probability)}. Predicted is "
        f"{outcome.label!r}, probability {decimal(outcome.score)}."
    )


def _target_sentence(outcome: TargetPrediction, label: str, probability: float) -> str:
    """Of a label of one of several targets."""
    named = f"Label {label!r} of the target {outcome.target!r}, probability {decimal(probability)}."
    if outcome.labels == (label,):
        return named
    told = ", ".join(map(repr, outcome.labels))
    if label in outcome.labels:
        return f"{named} All that apply: {told}."
    return f"{named} Predicted: {told}." if told else f"{named} No label is probable enough to apply."


def range_sentence(explanation: Explanation) -> str:
    """How much of the text was read; empty where one window holds all of it."""
    if explanation.chunks:
        start, end = min(each.start for each in explanation.chunks), max(each.end for each in explanation.chunks)
        chunks = counted(len(explanation.chunks), "chunk")
        return f"Read: {chunks} between the characters {start:,} and {end:,} of {whole(explanation.num_chars)}."
    read = explanation.attributions[0].passages[-1]  # a question comes before its context
    start, end = read.start, read.start + len(read.text)
    if start == 0 and end == explanation.num_chars:
        return ""
    return f"Read: characters {start:,} to {end:,} of {whole(explanation.num_chars)}."


def completeness_sentence(attribution: Attribution) -> str:
    """The check that attributions add up, in numbers."""
    check = attribution.completeness
    share = "" if check.relative_delta is None else f", which is {percent(check.relative_delta)}"
    return (
        f"It is {check.score:.3f} (probability {decimal(attribution.probability)}), and {check.baseline_score:.3f} "
        f"({decimal(attribution.baseline_probability)}) with padding instead: the text adds {check.difference:+.3f}. "
        f"The attributions sum to {check.total:+.3f}, {abs(check.delta):.2g} off{share}, with "
        f"{counted(check.steps, 'step')}."
    )


def warning_sentence(check: Completeness) -> str:
    """What to think of attributions that do not add up; empty where they do."""
    if check.holds:
        return ""
    size = f"{abs(check.delta):.2g}" if check.relative_delta is None else percent(check.relative_delta)
    finer = f", or compute them more finely with --steps {2 * check.steps}" if 2 * check.steps <= MOST_STEPS else ""
    return (
        f"The attributions are {size} off the difference they explain, more than {percent(MAX_RELATIVE_DELTA)}: take "
        f"them as a tendency{finer}."
    )


def largest(attribution: Attribution) -> float:
    """The size of the largest attribution of a word; 1 where all are 0, so that it can be divided by."""
    sizes = (abs(word.attribution) for passage in attribution.passages for word in passage.words)
    return max(sizes, default=0.0) or 1.0


def top_words(attribution: Attribution, sign: int) -> list[tuple[str, float]]:
    """The words that add most to the score (`sign` is 1) or take most from it (-1), with their attributions."""
    found = [
        (shown(passage, word), word.attribution)
        for passage in attribution.passages
        for word in passage.words
        if sign * word.attribution > 0 and passage.characters(word).strip()
    ]
    return sorted(found, key=lambda each: -abs(each[1]))[:_WORDS_NAMED]


def shown(passage: Passage, piece: Piece) -> str:
    """The characters of a word on one line."""
    return " ".join(passage.characters(piece).split())


def between(passage: Passage) -> list[tuple[str, Piece | None]]:
    """A passage as words and what stands between them, in order: together they are its text."""
    parts: list[tuple[str, Piece | None]] = []
    place = passage.start
    for word in passage.words:
        gap = passage.text[place - passage.start : max(place, word.start) - passage.start]
        parts += [(gap, None)] if gap else []
        begin = max(place, word.start)
        parts.append((passage.text[begin - passage.start : word.end - passage.start], word))
        place = max(place, word.end)
    return parts


def _record(explanation: Explanation) -> dict[str, Any]:
    return {
        "path": explanation.path,
        "num_chars": explanation.num_chars,
        **_outcome(explanation),
        "attributions": [_attribution(each) for each in explanation.attributions],
        "chunks": [asdict(each) for each in explanation.chunks],
        "notes": list(explanation.notes),
    }


def _outcome(explanation: Explanation) -> dict[str, Any]:
    outcome = explanation.outcome
    if isinstance(outcome, Answer):
        return {"question": explanation.subject, "answer": asdict(outcome)}
    if isinstance(outcome, TargetPrediction):
        predicted = {"labels": list(outcome.labels)}
        return {"target": outcome.target, "label": explanation.subject, "predicted": predicted}
    return {"label": explanation.subject, "predicted": {"label": outcome.label, "probability": outcome.score}}


def _attribution(attribution: Attribution) -> dict[str, Any]:
    check = attribution.completeness
    return {
        "scalar": attribution.scalar,
        "probability": attribution.probability,
        "baseline_probability": attribution.baseline_probability,
        "completeness": {
            "score": check.score,
            "baseline_score": check.baseline_score,
            "difference": check.difference,
            "sum": check.total,
            "delta": check.delta,
            "relative_delta": check.relative_delta,
            "steps": check.steps,
            "warning": warning_sentence(check) or None,
        },
        "passages": [_passage(each) for each in attribution.passages],
    }


def _passage(passage: Passage) -> dict[str, Any]:
    return {
        "name": passage.name,
        "start": passage.start,
        "text": passage.text,
        "words": _pieces(passage, passage.words),
        "tokens": _pieces(passage, passage.tokens),
    }


def _pieces(passage: Passage, pieces: Sequence[Piece]) -> list[dict[str, Any]]:
    return [{"text": passage.characters(piece), **asdict(piece)} for piece in pieces]
