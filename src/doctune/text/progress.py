"""How fast a long job goes, and an honest range for the time that is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TextIO, TypeVar

INTERVAL_S = 1.0
MAX_INTERVALS = 60
MIN_INTERVALS = 4

Item = TypeVar("Item")


@dataclass(frozen=True)
class Remaining:
    """Seconds that are left if it goes on as in the best (`low_s`) and the worst (`high_s`) of the recent intervals."""

    low_s: float
    high_s: float


class Pace:
    """Counts what is done in intervals of a second; files differ, so that one average rate would claim too much."""

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.total = total
        self.done = 0
        self._clock = clock
        self._start = self._interval_start = clock()
        self._interval_done = 0
        self._rates: list[float] = []

    def advance(self, count: int = 1) -> None:
        """Count items as done."""
        self.done += count
        elapsed = self._clock() - self._interval_start
        if elapsed >= INTERVAL_S:
            self._rates.append((self.done - self._interval_done) / elapsed)
            del self._rates[:-MAX_INTERVALS]
            self._interval_start += elapsed
            self._interval_done = self.done

    @property
    def rate(self) -> float:
        """Items per second since the start."""
        elapsed = self._clock() - self._start
        return self.done / elapsed if elapsed > 0 else 0.0

    def remaining(self) -> Remaining | None:
        """The range of the time left; None until enough was seen to say."""
        if len(self._rates) < MIN_INTERVALS:
            return None
        rates = sorted(self._rates)
        tenth = len(rates) // 10
        left = self.total - self.done
        return Remaining(left / max(rates[-1 - tenth], 1e-9), left / max(rates[tenth], 1e-9))

    def line(self) -> str:
        """One line for people: `120/1,000 files, 40 files/s, 20 s to 35 s left`."""
        text = f"{self.done:,}/{self.total:,} files, {self.rate:,.0f} files/s"
        remaining = self.remaining()
        if remaining is None or self.done >= self.total:
            return text
        return f"{text}, {_shown(remaining.low_s)} to {_shown(remaining.high_s)} left"


def shown_pace(items: Iterable[Item], total: int, stream: TextIO, every_s: float = 0.5) -> Iterator[Item]:
    """Pass items on and keep a line about them on a terminal; nothing where the stream is none."""
    if not stream.isatty():
        yield from items
        return
    pace, shown_at = Pace(total), time.monotonic()
    for item in items:
        yield item
        pace.advance()
        if time.monotonic() - shown_at > every_s:
            shown_at = time.monotonic()
            print(f"\r\x1b[K{pace.line()}", end="", file=stream, flush=True)
    print("\r\x1b[K", end="", file=stream, flush=True)


def _shown(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 360_000 else "days"
