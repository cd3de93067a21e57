"""`status.json`, read and put into words: what every view of a run that goes on has to know."""

from __future__ import annotations

import json
import math
import os
import platform
import sys
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from doctune.errors import ArtifactError
from doctune.reports.locate import STATUS_FILE

Process = Literal["running", "gone", "unknown"]

ENDED = ("finished", "failed", "refused", "interrupted")
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
# What a duration up to the first is rounded to, all in seconds.
_ROUNDED_TO = ((60, 1), (600, 10), (_HOUR, _MINUTE), (_DAY, 300), (math.inf, _HOUR))


@dataclass(frozen=True)
class Status:
    """The fields of `status.json`; None is what is not known (yet). Times of day are UTC."""

    phase: str
    epoch: int | None = None
    epochs: int | None = None
    step: int | None = None
    steps: int | None = None
    train_loss: float | None = None
    monitor: str | None = None
    value: float | None = None
    gap_status: str | None = None
    rate: float | None = None
    """Optimiser steps per second."""
    eta_low_s: float | None = None
    eta_high_s: float | None = None
    """Seconds from `updated_at` to the end of the planned epochs and of the ending."""
    may_stop_early: bool = False
    warnings: tuple[str, ...] = ()
    started_at: datetime | None = None
    updated_at: datetime | None = None
    pid: int | None = None
    host: str | None = None

    @property
    def has_ended(self) -> bool:
        """Whether the run itself has said that it is over."""
        return self.phase in ENDED

    def age_s(self, now: datetime) -> float:
        """Seconds since the last sign of life; 0 where clocks differ or it is not known."""
        return max((now - self.updated_at).total_seconds(), 0.0) if self.updated_at else 0.0

    def left_s(self, now: datetime) -> tuple[float, float] | None:
        """Between how many seconds the run still takes, counted from `now`; None if that cannot be said."""
        if self.eta_low_s is None or self.eta_high_s is None or self.has_ended:
            return None
        age = self.age_s(now)
        return max(self.eta_low_s - age, 0.0), max(self.eta_high_s - age, 0.0)


def read_raw(run: Path) -> dict[str, Any]:
    """The JSON object of a run's `status.json`.

    Raises:
        ArtifactError: it is missing or damaged.
    """
    path = run / STATUS_FILE
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}.{_other_files(run)}") from error
    if not isinstance(value, dict) or not isinstance(value.get("phase"), str):
        raise ArtifactError(f"{path} is damaged: it must be a JSON object with a phase.{_other_files(run)}")
    return value


def read_status(run: Path) -> Status:
    """Where a run stands.

    Raises:
        ArtifactError: `status.json` is missing or damaged.
    """
    raw = read_raw(run)
    values = {field.name: raw[field.name] for field in fields(Status) if raw.get(field.name) is not None}
    try:
        for name in ("started_at", "updated_at"):
            if name in values:
                moment = datetime.fromisoformat(values[name])
                values[name] = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        for name in ("epoch", "epochs", "step", "steps", "pid"):
            if name in values:
                values[name] = int(values[name])
        for name in ("train_loss", "value", "rate", "eta_low_s", "eta_high_s"):
            if name in values:
                values[name] = float(values[name])
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"{run / STATUS_FILE} is damaged: {name}: {error}.{_other_files(run)}") from error
    values["warnings"] = tuple(str(warning) for warning in values.get("warnings", ()))
    return Status(**values)


def process_of(status: Status) -> Process:
    """Whether the run's process is there; only this machine's processes can be looked at."""
    if status.pid is None or status.host != platform.node():
        return "unknown"
    is_there = _is_process(status.pid)
    if is_there is None:
        return "unknown"
    return "running" if is_there else "gone"


def _is_process(pid: int) -> bool | None:
    """Whether there is a process of that number; None if nobody can tell.

    The one place here that differs by operating system; only the Linux way is tested. Windows has no signal 0:
    `os.kill` would end the process there, so psutil is asked.
    """
    if sys.platform == "win32":
        try:
            import psutil  # type: ignore[import-untyped, unused-ignore]
        except ImportError:
            return None
        return bool(psutil.pid_exists(pid))
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def range_words(low_s: float, high_s: float) -> str:
    """A range of seconds as people say it, rounded outwards: 40 s to 1 min, 1 h 20 min to 1 h 35 min."""
    unit = _unit(high_s)
    low, high = math.floor(low_s / unit) * unit, math.ceil(high_s / unit) * unit
    if low == 0:
        return f"less than {duration_words(max(high, unit))}"
    return duration_words(low) if low == high else f"{duration_words(low)} to {duration_words(high)}"


def duration_words(seconds: float) -> str:
    """Seconds in two units at most, rounded: 45 s, 1 min 10 s, 12 min, 1 h 20 min, 2 d 3 h."""
    unit = _unit(seconds)
    rounded = round(seconds / unit) * unit
    for size, name, smaller, smaller_name in (
        (_DAY, "d", _HOUR, "h"),
        (_HOUR, "h", _MINUTE, "min"),
        (_MINUTE, "min", 1, "s"),
    ):
        if rounded >= size:
            rest = rounded % size // smaller
            return f"{rounded // size} {name}" + (f" {rest} {smaller_name}" if rest else "")
    return f"{rounded} s"


def rate_words(steps_per_s: float) -> str:
    """A rate of which neither fast nor slow steps become zero: 14 steps/s, 0.5 steps/s, 25 s per step."""
    if steps_per_s <= 0:
        return "no step yet"
    if steps_per_s < 0.1:
        return f"{duration_words(1 / steps_per_s)} per step"
    return f"{steps_per_s:,.0f} steps/s" if steps_per_s >= 10 else f"{steps_per_s:.2g} steps/s"


def _unit(seconds: float) -> int:
    return next(unit for up_to, unit in _ROUNDED_TO if seconds < up_to)


def _other_files(run: Path) -> str:
    return f" What the run did is in {run / 'train.log'}." if (run / "train.log").is_file() else ""
