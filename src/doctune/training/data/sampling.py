"""Which training documents an epoch shows, where classes are to be shown more or less often than they occur.

Shapes: N training documents, L labels, M documents of an epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


def epoch_counts(counts: Sequence[int], method: str, strength: float) -> tuple[int, ...]:
    """How many documents of each class an epoch shows, (L,).

    oversample lifts every class towards the largest one, undersample lowers it towards the smallest one: a class of n
    documents gets n^(1 - strength) × reference^strength, so that strength 1 makes all classes equal and 0 changes
    nothing. none shows every document once. A class without training documents stays without.

    Args:
        counts: training documents per class, (L,).
        method: none, oversample or undersample.
        strength: 0 to 1.
    """
    present = [count for count in counts if count]
    if method == "none" or not present:
        return tuple(counts)
    reference = max(present) if method == "oversample" else min(present)
    return tuple(round(count ** (1 - strength) * reference**strength) if count else 0 for count in counts)


@dataclass(frozen=True)
class ClassSampling:
    """Draws an epoch's documents.

    A class that is shown more often than it has documents shows each of them equally often, give or take one; a class
    that is shown less often shows documents that are drawn anew in each epoch.
    """

    label_ids: Ids  # (N,)
    counts: tuple[int, ...]  # (L,), from `epoch_counts`

    def __len__(self) -> int:
        return sum(self.counts)

    def draw(self, rng: np.random.Generator) -> Ids:
        """The documents of one epoch, (M,), in random order."""
        drawn = [self._draw_class(np.flatnonzero(self.label_ids == label), label, rng) for label in range(self._labels)]
        return rng.permutation(np.concatenate(drawn))

    @property
    def _labels(self) -> int:
        return len(self.counts)

    def _draw_class(self, members: Ids, label: int, rng: np.random.Generator) -> Ids:
        if not len(members):
            return members
        whole, rest = divmod(self.counts[label], len(members))
        return np.concatenate([np.tile(members, whole), rng.permutation(members)[:rest]])
