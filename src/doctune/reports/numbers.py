"""How numbers read in every report; a dash stands for what is not known."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

UNKNOWN = "–"


def decimal(value: float | None) -> str:
    """Scores and losses: 0.123."""
    return UNKNOWN if value is None or not math.isfinite(value) else f"{value:.3f}"


def whole(value: float | None) -> str:
    """Counts and rates: 12,345."""
    return UNKNOWN if value is None or not math.isfinite(value) else f"{value:,.0f}"


def percent(share: float | None) -> str:
    """Shares of one: 12.3 %."""
    return UNKNOWN if share is None or not math.isfinite(share) else f"{100 * share:.1f} %"


def gap_words(gap: Mapping[str, Any] | None) -> str:
    """The gap of a `report.json` with its name: 0.123 (good)."""
    value = (gap or {}).get("value")
    status = (gap or {}).get("status")
    return decimal(value) + (f" ({status})" if value is not None and status else "")


def counted(number: int, singular: str, plural: str = "") -> str:
    """A count with its noun: 1 row, 2,000 rows."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def duration(seconds: float | None) -> str:
    """Seconds in the two units that matter: 4.2 s, 3 min 12 s, 2 h 5 min."""
    if seconds is None:
        return UNKNOWN
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
