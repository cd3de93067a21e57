"""Conversations as token ids on disk, each token with whether the model is to write it.

Tokenised once per tokenizer and texts, then memory-mapped.

Shapes: N conversations, S sequences of all of them together (see `text.chat.render`), T tokens of a sequence.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from doctune.corpus.arrays import GrowingArray
from doctune.corpus.store import mark_used
from doctune.corpus.tokens import definition
from doctune.files import written_whole
from doctune.text.chat import Rendered

_TEXTS_PER_BATCH = 512
# Raise it when the same texts may get other tokens or other marks.
_VERSION = 1


@dataclass(frozen=True)
class TokenSequence:
    """The ids of a sequence (T,), and which of them the model is to write (T,)."""

    ids: NDArray[np.int32]
    learns: NDArray[np.bool_]


class InstructionTokens:
    """The sequences of conversations as flat memory maps, cut after `max_length` tokens.

    Sequence s is `ids[offsets[s]:offsets[s + 1]]`; the sequences of conversation n are `starts[n]` to
    `starts[n + 1] - 1`.

    Attributes:
        folder: where the files are.
        starts: the first sequence of each conversation, and S, (N + 1,).
    """

    def __init__(self, folder: Path, max_length: int) -> None:
        self.folder = folder
        self._max_length = max_length
        self._ids = np.load(folder / "ids.npy", mmap_mode="r")
        self._learns = np.load(folder / "learns.npy", mmap_mode="r")
        self._offsets = np.load(folder / "offsets.npy", mmap_mode="r")
        self.starts = np.load(folder / "starts.npy", mmap_mode="r")

    def __reduce__(self) -> tuple[type[InstructionTokens], tuple[Path, int]]:
        """A worker process maps the files again; pickling the maps would copy them."""
        return InstructionTokens, (self.folder, self._max_length)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def sequence(self, number: int) -> TokenSequence:
        """Sequence `number`, from 0."""
        start = int(self._offsets[number])
        stop = min(int(self._offsets[number + 1]), start + self._max_length)
        return TokenSequence(self._ids[start:stop], self._learns[start:stop])

    def full_lengths(self) -> NDArray[np.int64]:
        """Tokens of each sequence before it is cut, (S,)."""
        return np.diff(self._offsets)

    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each sequence, (S,)."""
        return np.minimum(self.full_lengths(), self._max_length)

    def num_learnt(self) -> NDArray[np.int64]:
        """Tokens that the model is to write in each sequence, (S,)."""
        before = np.concatenate([[0], np.cumsum(self._learns, dtype=np.int64)])
        starts = self._offsets[:-1]
        return before[starts + self.lengths()] - before[starts]

    def of(self, conversation: int) -> range:
        """The numbers of a conversation's sequences."""
        return range(int(self.starts[conversation]), int(self.starts[conversation + 1]))


def tokenise_conversations(
    cache: Path, tokenizer: Tokenizer, max_length: int, conversations: Sequence[Sequence[Rendered]]
) -> InstructionTokens:
    """The tokens of rendered conversations, from the cache where the same tokenizer has cut the same texts before.

    A token that begins in a prompt and ends in what the model is to write is written by the model. The first token of a
    sequence never is, as nothing stands before it.

    Args:
        cache: the cache folder.
        tokenizer: adds no special tokens; the texts have theirs.
        max_length: where sequences are cut when they are read; the files hold them whole.
        conversations: see `text.chat.render`; () for one that is not used.
    """
    folder = cache / "instructions" / _key(tokenizer, conversations)
    if not (folder / "starts.npy").exists():  # written last: its presence means that all of it is there
        _write(folder, tokenizer, conversations)
    mark_used(folder)
    return InstructionTokens(folder, max_length)


def _key(tokenizer: Tokenizer, conversations: Sequence[Sequence[Rendered]]) -> str:
    digest = hashlib.sha256(json.dumps([_VERSION, definition(tokenizer, 0)], sort_keys=True).encode())
    for conversation in conversations:
        digest.update(json.dumps([[each.text, each.spans] for each in conversation]).encode())
    return digest.hexdigest()[:16]


def _write(folder: Path, tokenizer: Tokenizer, conversations: Sequence[Sequence[Rendered]]) -> None:
    offsets = array("q", [0])
    tokenizer.no_truncation()
    tokenizer.no_padding()
    with (
        written_whole(folder / "ids.npy") as ids_file,
        written_whole(folder / "learns.npy") as learns_file,
        GrowingArray(ids_file, np.int32) as ids,
        GrowingArray(learns_file, np.bool_) as learns,
    ):
        for sequence in _sequences(tokenizer, [each for conversation in conversations for each in conversation]):
            offsets.append(ids.append(sequence.ids))
            learns.append(sequence.learns)
    starts = np.concatenate([[0], np.cumsum([len(conversation) for conversation in conversations])])
    for name, values in {"offsets.npy": offsets, "starts.npy": starts}.items():
        with written_whole(folder / name) as temporary, temporary.open("wb") as stream:
            np.save(stream, np.asarray(values, dtype=np.int64))


def _sequences(tokenizer: Tokenizer, texts: Sequence[Rendered]) -> Iterator[TokenSequence]:
    iterator = iter(texts)
    while batch := list(islice(iterator, _TEXTS_PER_BATCH)):
        encoded = tokenizer.encode_batch([each.text for each in batch], add_special_tokens=False)
        for rendered, encoding in zip(batch, encoded, strict=True):
            yield TokenSequence(np.asarray(encoding.ids, np.int32), learnt_tokens(encoding.offsets, rendered.spans))


def learnt_tokens(places: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]) -> NDArray[np.bool_]:
    """Which tokens (T,) the model is to write.

    Args:
        places: the characters of each token, from and to.
        spans: the characters that the model is to write, from and to.
    """
    begins, ends = np.asarray(places, dtype=np.int64).reshape(-1, 2).T
    learns = np.zeros(len(begins), dtype=bool)
    for start, stop in spans:
        learns |= (begins < stop) & (ends > start)
    learns[:1] = False
    return learns
