"""Text -> windows of token ids. Training and inference cut their windows here, so that they agree."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer


def head_windows(tokenizer: Tokenizer, texts: Sequence[str], max_length: int) -> list[list[int]]:
    """The first `max_length` tokens of each text, special tokens included; no padding.

    The tokenizer's own truncation and padding are replaced. Uses all cores.
    """
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(texts)]
