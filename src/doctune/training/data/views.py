"""Random views of training documents: another window than the first, tokens hidden behind the mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from doctune.corpus.tokens import Tokens


@dataclass(frozen=True)
class RandomViews:
    """What an epoch sees of a document, determined by seed, epoch, document and how often it has been shown before.

    Args:
        random_window: the probability of one of the document's windows instead of the first.
        token_dropout: the probability that a token is replaced by `mask_id` (word dropout, Dai & Le 2015).
        special_ids: tokens that are never hidden.
    """

    random_window: float
    token_dropout: float
    mask_id: int
    special_ids: Sequence[int]

    def window(self, tokens: Tokens, index: int, seed: tuple[int, int], repeat: int) -> NDArray[np.int32]:
        """The tokens that document `index` shows under this (seed, epoch) when it is shown again, or at first (0)."""
        rng = np.random.default_rng((*seed, index, repeat))
        number = 0
        if rng.random() < self.random_window:
            number = int(rng.integers(tokens.num_windows(index)))
        return self.hide(tokens.window(index, number), rng)

    def hide(self, window: NDArray[np.int32], rng: np.random.Generator) -> NDArray[np.int32]:
        """The window (T,) with some of its tokens behind the mask."""
        if not self.token_dropout:
            return window
        hidden = (rng.random(len(window)) < self.token_dropout) & ~np.isin(window, self.special_ids)
        return np.where(hidden, np.int32(self.mask_id), window)
