"""What the guards have said: raised once, cleared when it no longer holds, visible in log, status and report."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

log = logging.getLogger(__name__)


@dataclass
class Alarm:
    """A guard's message; `epoch` counts from 1 and is 0 before training, `cleared` is the epoch it held no longer."""

    guard: str
    epoch: int
    message: str
    cleared: int | None = None


class Alarms:
    """The messages of all guards.

    Args:
        publish: is given all alarms, plain, and the messages of the active ones, whenever they change.
    """

    def __init__(self, publish: Callable[[list[dict[str, Any]], list[str]], None]) -> None:
        self._publish = publish
        self._alarms: list[Alarm] = []

    @property
    def active(self) -> list[str]:
        """The messages that still hold, oldest first."""
        return [alarm.message for alarm in self._alarms if alarm.cleared is None]

    def raise_alarm(self, guard: str, epoch: int, message: str) -> None:
        """Say it, unless this guard's last alarm still holds; its message is then brought up to date in silence."""
        active = self._active(guard)
        if active is not None:
            active.message = message
        else:
            log.warning("%s", message)
            self._alarms.append(Alarm(guard, epoch, message))
        self._tell()

    def clear(self, guard: str, epoch: int) -> None:
        """The guard's condition holds no longer."""
        active = self._active(guard)
        if active is not None:
            active.cleared = epoch
            log.info("No longer so in epoch %d: %s", epoch, active.message)
            self._tell()

    def restore(self, alarms: list[dict[str, Any]]) -> None:
        """Take up the alarms of a run that is resumed."""
        self._alarms = [Alarm(**alarm) for alarm in alarms]
        self._tell()

    def to_list(self) -> list[dict[str, Any]]:
        """Plain values, for files and checkpoints."""
        return [asdict(alarm) for alarm in self._alarms]

    def _active(self, guard: str) -> Alarm | None:
        return next((alarm for alarm in self._alarms if alarm.guard == guard and alarm.cleared is None), None)

    def _tell(self) -> None:
        self._publish(self.to_list(), self.active)
