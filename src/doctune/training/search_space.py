"""What a search may vary: `hydra.sweeper.search_space` and sweeps on the command line become ranges and choices.

Values are kept as the text of a Hydra override where they are choices, and as numbers where they come from a range.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import IntervalSweep, Override, Quote, QuotedString

from doctune.errors import ConfigError

OPTIONS = ("low", "high", "log", "choices")
FORMS = "{low: …, high: …}, with log: true where wanted, or {choices: […]}"
_PLAIN_TEXT = re.compile(r"[A-Za-z_][\w.-]*")
_NOT_TEXT = ("null", "true", "false", "nan", "inf")


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; with `log` every order of magnitude is as likely as another."""

    low: float
    high: float
    log: bool = False

    def ends(self) -> tuple[str, ...]:
        """The values that a configuration must accept for all between them to be accepted."""
        return (repr(self.low), repr(self.high))


@dataclass(frozen=True)
class Choices:
    """One of these, each as it stands in an override."""

    values: tuple[str, ...]

    def ends(self) -> tuple[str, ...]:
        """The values that a configuration must accept."""
        return self.values


Space = dict[str, Range | Choices]


def parse_space(nested: Mapping[str, Any]) -> Space:
    """Ranges and choices by dotted key.

    Args:
        nested: keys as in the configuration, nested or dotted, down to one of `FORMS`.

    Raises:
        ConfigError: one line per entry that is no such form.
    """
    space: Space = {}
    problems = []
    for key, entry in _entries(nested):
        try:
            if key in space:
                raise ConfigError("is given twice, dotted and nested.")
            space[key] = _parse(entry)
        except ConfigError as error:
            problems.append(f"  {key}: {error}")
    if problems:
        raise ConfigError("\n".join(["hydra.sweeper.search_space cannot be searched:", *problems]))
    return space


def with_command_line(space: Space, overrides: Sequence[Override]) -> tuple[Space, list[str]]:
    """The space as the command line changes it, and the overrides that all trials share.

    Several values of a key become its choices, `interval(low,high)` its range; a single value takes it out.

    Raises:
        ConfigError: a sweep is none of these, or nothing is left to search.
    """
    space = dict(space)
    shared = []
    for override in overrides:
        key = override.get_key_element()
        if not override.is_sweep_override():
            shared.append(str(override.input_line))
            space.pop(key, None)
        elif override.is_interval_sweep():
            space[key] = _of_interval(key, override.value())
        else:
            space[key] = Choices(tuple(dict.fromkeys(override.sweep_string_iterator())))
    if not space:
        raise ConfigError(
            "There is nothing to search: hydra.sweeper.search_space is empty, or the command line fixes all of it. "
            "Give a key several values, such as optim.lr=1e-5,3e-5."
        )
    return space, shared


def override_of(key: str, value: float | str) -> str:
    """The override that gives `key` a value of its range or choices."""
    return f"{key}={value if isinstance(value, str) else repr(value)}"


def _entries(nested: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys, each with what should be one of `FORMS`."""
    for key, entry in nested.items():
        if isinstance(entry, Mapping) and entry and not entry.keys() & {*OPTIONS}:
            yield from _entries(entry, f"{path}{key}.")
        else:
            yield f"{path}{key}", entry


def _parse(entry: Any) -> Range | Choices:
    if not isinstance(entry, Mapping) or not entry:
        raise ConfigError(f"{_shown(entry)} is not {FORMS}.")
    unknown = [str(option) for option in entry if option not in OPTIONS]
    if unknown:
        raise ConfigError(f"{', '.join(unknown)} is not an option: {', '.join(OPTIONS)}.")
    if "choices" not in entry:
        return _range(entry)
    if len(entry) > 1:
        others = ", ".join(option for option in OPTIONS[:-1] if option in entry)
        raise ConfigError(f"choices and {others} exclude each other: give one of the two.")
    return _choices(entry["choices"])


def _range(entry: Mapping[str, Any]) -> Range:
    for end in ("low", "high"):
        if end not in entry:
            raise ConfigError(f"{end} is missing; a range is {{low: …, high: …}}.")
        number = entry[end]
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise ConfigError(f"{end}={_shown(number)} is not a number.")
    low, high, log = entry["low"], entry["high"], entry.get("log", False)
    if not isinstance(log, bool):
        raise ConfigError(f"log={_shown(log)} is neither true nor false.")
    if not low < high:
        raise ConfigError(f"low={low} is not below high={high}.")
    if log and low <= 0:
        raise ConfigError(f"log=true needs low above 0, and low={low}.")
    return Range(low, high, log)


def _choices(values: Any) -> Choices:
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise ConfigError(f"choices={_shown(values)} is not a list of values.")
    for value in values:
        if value is not None and not isinstance(value, str | int | float):
            raise ConfigError(f"choices has {_shown(value)}, which is not a single value.")
    return Choices(tuple(dict.fromkeys(_override_text(value) for value in values)))


def _of_interval(key: str, interval: Any) -> Range:
    assert isinstance(interval, IntervalSweep)
    try:
        return _range({"low": interval.start, "high": interval.end, "log": "log" in interval.tags})
    except ConfigError as error:
        raise ConfigError(f"{key}=interval({interval.start},{interval.end}): {error}") from error


def _override_text(value: str | float | bool | None) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str):
        return repr(value)
    is_plain = _PLAIN_TEXT.fullmatch(value) and value.lower() not in _NOT_TEXT
    return value if is_plain else str(QuotedString(value, Quote.single).with_quotes())


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)
