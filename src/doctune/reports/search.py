"""`search.json` and `search.txt`: the trials of a search in order of their score, the best one, and what mattered."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from doctune.files import write_json, write_text
from doctune.reports.numbers import UNKNOWN, counted, percent

SCHEMA = 1


@dataclass(frozen=True)
class Trial:
    """A trial that has finished or failed."""

    number: int
    value: float | None
    """Its score; None: it failed."""
    parameters: Mapping[str, float | str]
    """Dotted key -> number, or a choice as it stands in an override."""
    folder: str | None
    """Its run folder within the search's; None: it failed before it had one."""
    error: str | None
    """Why it failed, in a line."""

    @property
    def status(self) -> str:
        """Either finished or failed."""
        return "failed" if self.value is None else "finished"

    def overrides(self) -> list[str]:
        """Its parameters as they are typed."""
        return [f"{key}={value}" for key, value in self.parameters.items()]


@dataclass(frozen=True)
class Search:
    """A search as far as it has come."""

    metric: str
    mode: str
    num_wanted: int
    fixed: tuple[str, ...]
    """The overrides that all trials share."""
    trials: tuple[Trial, ...]
    importance: Mapping[str, float]
    """Dotted key -> share of the variation of the score, the largest first."""
    importance_missing: str
    """Why `importance` is empty."""

    def ranked(self) -> list[Trial]:
        """The best first, earlier before later among equals, and those that failed at the end."""
        sign = 1 if self.mode == "min" else -1
        finished = [trial for trial in self.trials if trial.value is not None]
        failed = [trial for trial in self.trials if trial.value is None]
        return [*sorted(finished, key=lambda trial: sign * (trial.value or 0.0)), *failed]

    def failed(self) -> list[Trial]:
        """In the order in which they were tried."""
        return [trial for trial in self.trials if trial.value is None]


def write_search(search: Search, folder: Path) -> Path:
    """Write both files and return the one to be read by people."""
    write_json(folder / "search.json", _as_json(search))
    shown = folder / "search.txt"
    write_text(shown, "\n".join(_lines(search)) + "\n")
    return shown


def _as_json(search: Search) -> dict[str, Any]:
    ranked = search.ranked()
    best = ranked[0] if ranked and ranked[0].value is not None else None
    return {
        "schema": SCHEMA,
        "metric": search.metric,
        "mode": search.mode,
        "n_trials": search.num_wanted,
        "finished": len(ranked) - len(search.failed()),
        "failed": len(search.failed()),
        "best": best and {"trial": best.number, "value": best.value, "overrides": [*search.fixed, *best.overrides()]},
        "importance": dict(search.importance) or None,
        "importance_missing": search.importance_missing or None,
        "trials": [
            {
                "rank": None if trial.value is None else rank,
                "trial": trial.number,
                "value": trial.value,
                "parameters": dict(trial.parameters),
                "status": trial.status,
                "folder": trial.folder,
                "error": trial.error,
            }
            for rank, trial in enumerate(ranked, start=1)
        ],
    }


def _lines(search: Search) -> Iterator[str]:
    ranked = search.ranked()
    num_failed = len(search.failed())
    better = "higher" if search.mode == "max" else "lower"
    yield (
        f"Search by {search.metric} ({better} is better): {len(ranked)} of {counted(search.num_wanted, 'trial')} done, "
        f"{len(ranked) - num_failed} finished, {num_failed} failed."
    )
    yield ""
    yield from _table(search, ranked)
    if num_failed:
        yield ""
        yield "Failed:"
        yield from (f"  trial {trial.number}: {trial.error or 'no reason is known'}" for trial in search.failed())
    yield ""
    if ranked and ranked[0].value is not None:
        yield f"Best: trial {ranked[0].number}. To train it again:"
        yield f"  python train.py {shlex.join([*search.fixed, *ranked[0].overrides()])}"
        yield ""
    if search.importance:
        yield "Importance (fANOVA: share of the variation of the score):"
        width = max(map(len, search.importance))
        yield from (f"  {key:<{width}}  {percent(share):>7}" for key, share in search.importance.items())
    else:
        yield f"Importance: not available, {search.importance_missing}."


def _table(search: Search, ranked: Sequence[Trial]) -> Iterator[str]:
    keys = list(dict.fromkeys(key for trial in ranked for key in trial.parameters))
    rows = [["rank", "trial", search.metric, *keys, "status", "folder"]]
    for rank, trial in enumerate(ranked, start=1):
        values = [_short(trial.parameters.get(key)) for key in keys]
        place = UNKNOWN if trial.value is None else str(rank)
        score = UNKNOWN if trial.value is None else f"{trial.value:.4f}"
        rows.append([place, str(trial.number), score, *values, trial.status, trial.folder or UNKNOWN])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def _short(value: float | str | None) -> str:
    """Four digits are enough to read; the JSON has all."""
    if value is None:
        return UNKNOWN
    return f"{value:.4g}" if isinstance(value, float) else str(value)
