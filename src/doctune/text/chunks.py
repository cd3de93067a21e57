"""A document -> overlapping chunks of token ids. Training and inference cut their chunks here, so that they agree.

A text is tokenised in pieces that end where a word does, and only ids and places are kept of them: 12 bytes per token,
where the tokenizer's own result for the whole text takes some hundred. Only what is needed is tokenised: for the first
chunks the beginning of the text, for a choice over the document all of it, because a place in characters says too
little about a place in tokens (a page of figures has three times the tokens of a page of prose).
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from tokenizers import Encoding, Tokenizer

from doctune.errors import ConfigError
from doctune.text.windows import chars_for_window

Keep = Literal["head", "spread", "head_tail"]

# A piece ends before a single space between words, which no pre-tokenizer of an encoder looks across; where there is
# none, before a line end or the like, which only few do; and where there is none of these either, anywhere.
_PIECE_ENDS = (re.compile(r"(?<=\S) (?=\S)"), re.compile(r"(?<=\S)\s(?=\S)"))
_PIECE_CHARS = 64 * 1024
_LOOK_AHEAD_CHARS = 64 * 1024
# Texts and pieces that are tokenised together, on all cores.
_CHARS_AT_ONCE = 512 * 1024


@dataclass(frozen=True)
class ChunkSettings:
    """How texts are cut, see `chunk`, whose arguments these are."""

    chunk_length: int
    stride: int
    max_chunks: int
    keep: Keep


@dataclass(frozen=True)
class Chunk:
    """Token ids, special tokens included and no padding, and the characters `text[start:end]` that they stand for."""

    ids: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class ChunkedText:
    """The chunks that were kept of a text, in its order, at least one; and how many it has in all.

    `num_available` is counted where the whole text was tokenised. Where its beginning was enough it `is_estimated` from
    the tokens per character so far; that it is larger than the number of chunks is certain in both cases.
    """

    chunks: tuple[Chunk, ...]
    num_available: int
    is_estimated: bool = False


def chunk(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    chunk_length: int,
    stride: int = 0,
    max_chunks: int,
    keep: Keep = "head",
) -> Iterator[ChunkedText]:
    """The chunks of each text, one text after the other in the order given.

    They are the windows that the tokenizer itself cuts with `enable_truncation(chunk_length, stride=stride)`; only
    where 64,000 characters have no space between words can a word be divided that it would leave whole. A text without
    any token has one chunk, of special tokens only. The tokenizer's own truncation and padding are switched off. Uses
    all cores.

    Args:
        chunk_length: tokens per chunk at most, special tokens included.
        stride: tokens that neighbouring chunks share.
        max_chunks: chunks kept of each text at most.
        keep: head: the first ones. spread: evenly over the text, the first and the last among them. head_tail: one half
            from the beginning, the other from the end; of an odd number the beginning has one more.

    Raises:
        ConfigError: a chunk has no room for text, or the stride none for going on.
        ValueError: no such `keep`, or less than one chunk.
    """
    if keep not in get_args(Keep):
        raise ValueError(f"keep={keep!r} is not a choice: {', '.join(get_args(Keep))}.")
    if max_chunks < 1:
        raise ValueError(f"max_chunks={max_chunks}: every document needs at least one chunk.")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    cut = _Cut.of(tokenizer, chunk_length, stride)
    # One token more than the first chunks hold shows that there are others.
    needed = cut.tokens_of(max_chunks) + 1 if keep == "head" else None
    return _chunked(tokenizer, texts, cut, needed, max_chunks, keep)


def _chunked(
    tokenizer: Tokenizer, texts: Sequence[str], cut: _Cut, needed: int | None, max_chunks: int, keep: Keep
) -> Iterator[ChunkedText]:
    for group in _groups(texts, needed):
        readings = [_Reading(text, needed) for text in group]
        _tokenise(tokenizer, readings)
        for reading in readings:
            yield _kept(reading, cut, max_chunks, keep)


def chosen_chunks(num_available: int, max_chunks: int, keep: Keep) -> list[int]:
    """The numbers, in order, of the chunks that are kept of so many; see `chunk`."""
    if num_available <= max_chunks:
        return list(range(num_available))
    if keep == "head":
        return list(range(max_chunks))
    if keep == "spread":
        gaps = max(1, max_chunks - 1)
        return [(2 * number * (num_available - 1) + gaps) // (2 * gaps) for number in range(max_chunks)]
    tail = max_chunks // 2
    return [*range(max_chunks - tail), *range(num_available - tail, num_available)]


@dataclass(frozen=True)
class _Cut:
    """How the tokens of a text are cut: `size` of them between the special tokens of each chunk, `step` apart."""

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    size: int
    step: int

    @classmethod
    def of(cls, tokenizer: Tokenizer, chunk_length: int, stride: int) -> _Cut:
        sample = tokenizer.encode("a")
        inside = [place for place, is_special in enumerate(sample.special_tokens_mask) if not is_special]
        prefix, suffix = sample.ids[: inside[0]], sample.ids[inside[-1] + 1 :]
        num_special = len(prefix) + len(suffix)
        _refuse_impossible(chunk_length, stride, num_special)
        size = chunk_length - num_special
        return cls(tuple(prefix), tuple(suffix), size, size - stride)

    def num_chunks(self, num_tokens: int) -> int:
        """How many chunks so many tokens give; the last one is the first that reaches the end."""
        return 1 + max(0, -(-(num_tokens - self.size) // self.step))

    def tokens_of(self, num_chunks: int) -> int:
        """How many tokens so many full chunks hold."""
        return self.size + (num_chunks - 1) * self.step


def _refuse_impossible(chunk_length: int, stride: int, num_special: int) -> None:
    size = chunk_length - num_special
    if size < 1:
        raise ConfigError(
            f"chunk_length={chunk_length}: beside the {num_special} special tokens there is no room for the text. "
            f"Give at least {num_special + 1}."
        )
    if not 0 <= stride < size:
        raise ConfigError(
            f"stride={stride} with chunk_length={chunk_length}: a chunk has {size} tokens besides the {num_special} "
            f"special ones, so the stride must be from 0 to {size - 1}. Give a smaller stride or a larger chunk_length."
        )


class _Reading:
    """A text that is tokenised from its start, until it has the `needed` tokens (None: all of it).

    `ids`, and `starts` and `ends` in characters of the text, have one entry per token.
    """

    def __init__(self, text: str, needed: int | None) -> None:
        self.text = text
        self.num_read = 0
        self.ids, self.starts, self.ends = array("i"), array("i"), array("i")
        self._needed = needed

    @property
    def is_done(self) -> bool:
        if self.num_read >= len(self.text):
            return True
        return self._needed is not None and len(self.ids) >= self._needed

    @property
    def num_tokens(self) -> int:
        """Tokens of the whole text; if it was not read to its end, an estimate that is larger than what was read."""
        if self.num_read >= len(self.text):
            return len(self.ids)
        return max(len(self.ids), len(self.ids) * len(self.text) // self.num_read)

    def next_pieces(self) -> list[tuple[int, int]]:
        """Where the pieces to be tokenised next begin and end: one for a beginning, several for a whole text."""
        pieces = [self._piece(self.num_read)]
        while self._needed is None and pieces[-1][1] < min(len(self.text), self.num_read + _CHARS_AT_ONCE):
            pieces.append(self._piece(pieces[-1][1]))
        return pieces

    def _piece(self, start: int) -> tuple[int, int]:
        earliest = start + (_PIECE_CHARS if self._needed is None else chars_for_window(self._needed))
        latest = earliest + _LOOK_AHEAD_CHARS
        for pattern in _PIECE_ENDS:
            if found := pattern.search(self.text, earliest, latest):
                return start, found.start()
            if latest >= len(self.text):
                break
        return start, min(latest, len(self.text))

    def add(self, encoding: Encoding, start: int, end: int) -> None:
        """Append the tokens of `text[start:end]`."""
        self.ids.extend(encoding.ids)
        self.starts.extend(start + first for first, _ in encoding.offsets)
        self.ends.extend(start + last for _, last in encoding.offsets)
        self.num_read = end


def _groups(texts: Sequence[str], needed: int | None) -> Iterator[list[str]]:
    """Neighbouring texts that are tokenised together; a long one is alone."""
    group: list[str] = []
    num_chars = 0
    for text in texts:
        to_read = len(text) if needed is None else min(len(text), chars_for_window(needed))
        if group and num_chars + to_read > _CHARS_AT_ONCE:
            yield group
            group, num_chars = [], 0
        group.append(text)
        num_chars += to_read
    if group:
        yield group


def _tokenise(tokenizer: Tokenizer, readings: Sequence[_Reading]) -> None:
    while pieces := [(each, *span) for each in readings if not each.is_done for span in each.next_pieces()]:
        parts = [reading.text[start:end] for reading, start, end in pieces]
        encodings = tokenizer.encode_batch(parts, add_special_tokens=False)
        for (reading, start, end), encoding in zip(pieces, encodings, strict=True):
            reading.add(encoding, start, end)


def _kept(reading: _Reading, cut: _Cut, max_chunks: int, keep: Keep) -> ChunkedText:
    num_available = cut.num_chunks(reading.num_tokens)
    numbers = chosen_chunks(num_available, max_chunks, keep)
    chunks = tuple(_cut_out(reading, cut, number * cut.step) for number in numbers)
    return ChunkedText(chunks, num_available, is_estimated=reading.num_read < len(reading.text))


def _cut_out(reading: _Reading, cut: _Cut, first: int) -> Chunk:
    inside = slice(first, first + cut.size)
    ids = (*cut.prefix, *reading.ids[inside], *cut.suffix)
    starts, ends = reading.starts[inside], reading.ends[inside]
    return Chunk(ids, starts[0] if starts else 0, ends[-1] if ends else 0)
