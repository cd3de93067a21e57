"""The records that travel between the parts of doctune."""

from __future__ import annotations

from bisect import bisect_right
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
    reason that says so. Every other status has an empty text and a reason. `page_starts` are the characters at which
    pages begin, in formats that have any; texts that come from the store are without.
    """

    path: str
    status: Status
    reason: str
    format: str
    text: str
    page_starts: tuple[int, ...] = ()

    def page_at(self, place: int) -> int | None:
        """The page, from 1, of the character at `place`; None in a document without pages."""
        return max(1, bisect_right(self.page_starts, place)) if self.page_starts else None


@dataclass(frozen=True)
class Prediction:
    """The label that a classifier gives one text: `score` is its probability, `probabilities` are in label order."""

    label: str
    score: float
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class FilePrediction:
    """What a classifier says of one file: nothing where it has no text, for the document's reason."""

    document: Document
    prediction: Prediction | None


@dataclass(frozen=True)
class Answer:
    """A span of a document that answers a question: `text` are the document's characters from `start` up to `end`.

    `score` is its probability among all candidates of all documents that were asked together and, for a model that may
    give no answer, giving none. `sentence` is the one around it and begins at `sentence_start`; `page`, from 1, is that
    on which the answer begins, None in a document without pages.
    """

    text: str
    score: float
    start: int
    end: int
    sentence: str
    sentence_start: int
    path: str = ""
    page: int | None = None
