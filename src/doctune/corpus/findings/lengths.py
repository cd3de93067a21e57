"""How long texts are, in characters and tokens, and which of them the model's window cuts."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doctune.corpus.findings.record import Finding, counted

_QUANTILES = {"min": 0.0, "p10": 0.1, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p90": 0.9, "p99": 0.99, "max": 1.0}
_TEXTS_PER_BATCH = 256
# Word pieces as subword tokenizers cut them, roughly: six characters at most, each mark and each CJK sign alone.
_CJK = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_PIECE = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]{{1,6}}|[^\w\s]|_")

Lengths = NDArray[np.int64]


@dataclass(frozen=True)
class TokenCounter:
    """How tokens are counted: `name` for the reader, `count` from texts to their lengths without special tokens."""

    name: str
    count: Callable[[Sequence[str]], Sequence[int]]


@dataclass(frozen=True)
class AuditSettings:
    """What the model will read.

    Attributes:
        max_length: tokens of its window, special tokens included.
        special_tokens: how many of them are not text.
        max_chars: the bound under which the texts were extracted; one that reaches it may go on. None: no bound.
    """

    max_length: int = 512
    special_tokens: int = 2
    max_chars: int | None = None


def estimated_tokens(texts: Sequence[str]) -> list[int]:
    """About as many tokens as a subword tokenizer would give, without one at hand."""
    return [len(_PIECE.findall(text)) for text in texts]


ESTIMATE = TokenCounter("an estimate, in pieces of at most 6 characters", estimated_tokens)


def measure_lengths(texts: Sequence[str], counter: TokenCounter) -> tuple[Lengths, Lengths]:
    """Characters and tokens of each text, shape (N,) each."""
    num_chars, num_tokens = np.zeros(len(texts), np.int64), np.zeros(len(texts), np.int64)
    for start in range(0, len(texts), _TEXTS_PER_BATCH):
        places = range(start, min(start + _TEXTS_PER_BATCH, len(texts)))
        batch = [texts[place] for place in places]
        num_chars[places.start : places.stop] = [len(text) for text in batch]
        num_tokens[places.start : places.stop] = counter.count(batch)
    return num_chars, num_tokens


def cut_by_window(num_chars: Lengths, num_tokens: Lengths, settings: AuditSettings) -> NDArray[np.bool_]:
    """Which texts do not fit into the window, shape (N,); one that reaches the extraction's bound counts as cut."""
    is_cut = num_tokens + settings.special_tokens > settings.max_length
    return is_cut if settings.max_chars is None else is_cut | (num_chars >= settings.max_chars)


def length_findings(is_cut: NDArray[np.bool_], settings: AuditSettings, counter: TokenCounter) -> list[Finding]:
    """How many documents the window cuts."""
    num_cut = int(is_cut.sum())
    if not num_cut:
        return []
    return [
        Finding(
            "cut_documents",
            "info",
            f"{counted(num_cut, 'document is', 'documents are')} longer than {settings.max_length} tokens "
            f"({num_cut / len(is_cut):.0%}; counted by {counter.name}). A model with that window does not read "
            "all of them. If what decides comes later, raise data.max_length or classify them in chunks.",
            num_cut,
        )
    ]


def length_table(
    num_chars: Lengths, num_tokens: Lengths, is_cut: NDArray[np.bool_], settings: AuditSettings, counter: TokenCounter
) -> dict[str, Any]:
    """How long the texts are and how many the window cuts, as plain values."""
    at_bound = 0 if settings.max_chars is None else int((num_chars >= settings.max_chars).sum())
    return {
        "characters": _quantiles(num_chars),
        "tokens": _quantiles(num_tokens),
        "counted_by": counter.name,
        "max_length": settings.max_length,
        "cut": int(is_cut.sum()),
        "cut_share": round(float(is_cut.mean()), 4) if len(is_cut) else None,
        "read_up_to_chars": settings.max_chars,
        "at_that_bound": at_bound,
    }


def _quantiles(values: Lengths) -> dict[str, int]:
    if not len(values):
        return {}
    found = np.quantile(values, list(_QUANTILES.values()), method="inverted_cdf")
    return {name: int(value) for name, value in zip(_QUANTILES, found, strict=True)}
