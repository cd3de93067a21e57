"""What is still in use on the way to the parts, and an account of what has been left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from doctune.corpus.account import LEFT_OUT, AccountRow

Placed = TypeVar("Placed")


class Sieve(Generic[Placed]):
    """Keeps questions, texts or conversations, until there is a reason not to.

    Args:
        placed: what there is.
        row: the row of the account for one of them with its part, status and reason.

    Attributes:
        kept: what is still in use; it may be replaced by the same with more known of each.
        left_out: the rows of all others.
    """

    def __init__(self, placed: Iterable[Placed], row: Callable[[Placed, str, str, str], AccountRow]) -> None:
        self.kept = list(placed)
        self.left_out: list[AccountRow] = []
        self._row = row

    def leave_out(self, status: str, reason_of: Callable[[Placed], str]) -> None:
        """Leave out those for which there is a reason; "" is none."""
        reasons = [(each, reason_of(each)) for each in self.kept]
        self.kept = [each for each, reason in reasons if not reason]
        self.left_out += [self._row(each, LEFT_OUT, status, reason) for each, reason in reasons if reason]
