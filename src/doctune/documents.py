"""The records that travel between the parts of doctune."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Status = Literal[
    "ok",
    "empty",
    "encrypted",
    "damaged",
    "unsupported",
    "too_large",
    "timeout",
    "out_of_memory",
    "crashed",
    "unreadable",
]
STATUSES: tuple[str, ...] = get_args(Status)


@dataclass(frozen=True)
class Document:
    """The text of one file, or the reason why there is none.

    `status` is "ok" when there is text; a damaged document that could be partly read has its text, status "ok" and a
    reason that says so. Every other status has an empty text and a reason.
    """

    path: str
    status: Status
    reason: str
    format: str
    text: str


@dataclass(frozen=True)
class Prediction:
    """The label that a classifier gives one text: `score` is its probability, `probabilities` are in label order."""

    label: str
    score: float
    probabilities: tuple[float, ...]
