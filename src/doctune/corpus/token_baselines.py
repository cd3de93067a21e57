"""What a model would reach that knows how frequent tokens are, and reads nothing.

Shapes: N conversations of a part, V tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from doctune.corpus.instruction_tokens import InstructionTokens

PartLosses = tuple[list[float], list[int]]


def unigram_losses(tokens: InstructionTokens, parts: Mapping[str, Sequence[Sequence[int]]]) -> dict[str, PartLosses]:
    """The cross entropy of completions when each token is as probable as it is frequent in training completions.

    Each token counts once more than it occurs (Laplace), those that never occur as one token together.

    Args:
        tokens: of all sequences.
        parts: the sequences of each conversation, by part; "train" among them.

    Returns:
        for each part the sums of losses in nats, and how many tokens they are of, (N,) each.
    """
    counts = np.bincount(_completions(tokens, parts["train"]))
    known = np.flatnonzero(counts)
    total = counts.sum() + len(known) + 1
    losses = np.full(len(counts) + 1, -np.log(1 / total))
    losses[known] = -np.log((counts[known] + 1) / total)
    return {
        part: (
            [float(losses[np.minimum(ids, len(counts))].sum()) for ids in written],
            [len(ids) for ids in written],
        )
        for part, written in ((part, [_completions(tokens, [own]) for own in owns]) for part, owns in parts.items())
    }


def _completions(tokens: InstructionTokens, conversations: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """The tokens to write of some conversations, one after another."""
    sequences = (tokens.sequence(number) for own in conversations for number in own)
    return np.concatenate([each.ids[each.learns].astype(np.int64) for each in sequences])
