"""Whether two models that judged the same documents differ in accuracy by more than luck.

McNemar's test in its exact form (Q. McNemar, "Note on the sampling error of the difference between correlated
proportions or percentages", Psychometrika 12, 1947) looks only at the documents that one of the two had right and the
other wrong: if the models are equally good, each of them is a toss of a fair coin. How sure a difference of any other
score is, `intervals.paired_difference` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from doctune.scoring.classification import Floats, Ids


@dataclass(frozen=True)
class McNemar:
    """Documents that only A, or only B, had right or higher; the exact two-sided p value of so uneven a division."""

    only_a: int
    only_b: int
    p: float


def mcnemar(truth: Ids, predicted_a: Ids, predicted_b: Ids) -> McNemar:
    """Compare right and wrong of A and B; all arrays are `(N,)`. Without any disagreement p is 1.

    Raises:
        ValueError: lengths differ.
    """
    arrays = [np.asarray(array) for array in (truth, predicted_a, predicted_b)]
    if len({array.shape for array in arrays}) != 1:
        raise ValueError(f"all arrays must be equally long, not {[array.shape for array in arrays]}.")
    is_right_a, is_right_b = arrays[1] == arrays[0], arrays[2] == arrays[0]
    only_a, only_b = int((is_right_a & ~is_right_b).sum()), int((is_right_b & ~is_right_a).sum())
    return McNemar(only_a, only_b, _two_sided(only_a, only_b))


def sign_test(values_a: Floats, values_b: Floats) -> McNemar:
    """Compare scores of the same documents, (N,): how many are higher for A, how many for B, and the exact p.

    W. J. Dixon and A. M. Mood, "The statistical sign test", JASA 41, 1946. Of right and wrong it is McNemar's.

    Raises:
        ValueError: lengths differ.
    """
    one, other = np.asarray(values_a), np.asarray(values_b)
    if one.shape != other.shape:
        raise ValueError(f"both arrays must be equally long, not {[one.shape, other.shape]}.")
    only_a, only_b = int((one > other).sum()), int((other > one).sum())
    return McNemar(only_a, only_b, _two_sided(only_a, only_b))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values, in their order, corrected for being several.

    The chance that any true null hypothesis falls below a bound is then at most that bound (S. Holm, "A simple
    sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6, 1979).
    """
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    corrected, floor = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        floor = max(floor, min(1.0, (len(order) - rank) * p_values[place]))
        corrected[place] = floor
    return corrected


def _two_sided(heads: int, tails: int) -> float:
    """How likely a fair coin falls at least this unevenly; whole numbers, so that no tail is lost to rounding."""
    tosses = heads + tails
    ways = term = 1
    for place in range(min(heads, tails)):
        term = term * (tosses - place) // (place + 1)
        ways += term
    return min(1.0, 2 * ways / 2**tosses)
