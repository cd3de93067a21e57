"""Text -> windows of token ids. Training and inference cut their windows here, so that they agree."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer

# 4,000 characters fill 510 tokens in 99 to 100 of 100 long files of every kind, so 8 per token are enough to read.
_CHARS_PER_TOKEN = 8
# Below it, texts that differ would look like copies.
_MIN_CHARS = 1024


def chars_for_window(max_length: int) -> int:
    """How many characters of a text are enough to fill a window of `max_length` tokens."""
    return max(_MIN_CHARS, _CHARS_PER_TOKEN * max_length)


def head_windows(tokenizer: Tokenizer, texts: Sequence[str], max_length: int) -> list[list[int]]:
    """The first `max_length` tokens of each text, special tokens included; no padding.

    The tokenizer's own truncation and padding are replaced. Uses all cores.
    """
    return [windows[0] for windows in leading_windows(tokenizer, texts, max_length, 1)]


def leading_windows(tokenizer: Tokenizer, texts: Sequence[str], max_length: int, windows: int) -> list[list[list[int]]]:
    """Up to `windows` windows of each text, one after the other without overlap, each with its special tokens.

    The tokenizer's own truncation and padding are replaced. Uses all cores.
    """
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    return [
        [encoding.ids, *(further.ids for further in encoding.overflowing[: windows - 1])]
        for encoding in tokenizer.encode_batch_fast(texts)
    ]
