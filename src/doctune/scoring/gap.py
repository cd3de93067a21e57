"""The gap between what a model knows of its training documents and of others, in names.

A gap is the validation loss minus the loss on a training sample, both plain cross entropy in evaluation mode.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

STATUSES = ("excellent", "good", "moderate", "critical")


@dataclass(frozen=True)
class GapThresholds:
    """Where each name begins, in nats: excellent < good <= good < moderate <= moderate < critical <= critical."""

    good: float = 0.05
    moderate: float = 0.15
    critical: float = 0.45

    def status(self, gap: float) -> str:
        """The name of a gap; one that is no number is critical."""
        passed = sum(not gap < bound for bound in (self.good, self.moderate, self.critical))
        return STATUSES[passed]


def growing_checks(gaps: Sequence[float], critical: float) -> int:
    """How many of the last checks in a row found a gap that was critical and larger than at the check before."""
    count = 0
    for before, gap in zip(reversed(gaps[:-1]), reversed(gaps[1:]), strict=True):
        if gap < critical or gap <= before:
            break
        count += 1
    return count


def onset(statuses: Sequence[str]) -> int | None:
    """The check, from 1, since which the gap has not been good: where overfitting began; None where it is good now."""
    bad = 0
    for status in reversed(statuses):
        if status not in ("moderate", "critical"):
            break
        bad += 1
    return len(statuses) - bad + 1 if bad else None
