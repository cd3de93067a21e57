"""`resume=DIR`: an unfinished run, or a multirun with unfinished jobs, goes on in its folder as it was configured."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from doctune.errors import ArtifactError, ConfigError
from doctune.reports.locate import find_run, run_folders
from doctune.reports.status import process_of, read_status

SAVED_CONFIG = Path(".hydra", "config.yaml")
SAVED_SWEEP = "multirun.yaml"
MAY_DIFFER = ("trainer.max_epochs", "trainer.devices", "trainer.strategy")
# A refused run has not begun: what was wrong with it still is.
_TAKEN_UP = ("failed", "interrupted")


@dataclass(frozen=True)
class Resumption:
    """A run to go on with, and the overrides that may change it."""

    run: Path
    overrides: tuple[str, ...]

    @property
    def is_finished(self) -> bool:
        """Whether there is nothing to do: it has ended well, and no other number of epochs is asked for."""
        return read_status(self.run).phase == "finished" and not self.overrides

    def arguments(self) -> list[str]:
        """What Hydra is to be called with, beside the folder of the saved configuration."""
        return [
            f"hydra.run.dir={_quoted(str(self.run))}",
            "hydra.output_subdir=null",
            "hydra.job.name=train",
            *self.overrides,
        ]


@dataclass(frozen=True)
class SweepResumption:
    """A multirun to go on with: it is started again in its folder, where finished jobs are skipped."""

    folder: Path
    overrides: tuple[str, ...]

    def arguments(self) -> list[str]:
        """The command line of the first start, in the same folder; the configuration is composed from conf/ again."""
        saved = yaml.safe_load((self.folder / SAVED_SWEEP).read_text(encoding="utf-8"))["hydra"]["overrides"]
        hydra = [each for each in saved["hydra"] if not each.startswith(("hydra.sweep.dir=", "hydra.mode="))]
        place = f"hydra.sweep.dir={_quoted(str(self.folder))}"
        return ["--multirun", *hydra, place, *saved["task"], *self.overrides]


def resumption(overrides: Sequence[str]) -> Resumption | SweepResumption | None:
    """What `resume=` among the overrides asks for; None without it.

    Raises:
        ConfigError: there is no such run, or other keys would change it.
    """
    values = [override.partition("=")[2] for override in overrides if override.startswith("resume=")]
    if not values or values[-1] in ("", "null"):
        return None
    others = [override for override in overrides if not override.startswith("resume=")]
    refused = [override for override in others if override.partition("=")[0] not in MAY_DIFFER]
    if refused:
        raise ConfigError(
            f"resume= goes on with the saved configuration, so {' '.join(refused)} cannot be changed; only "
            f"{', '.join(MAY_DIFFER[:-1])} and {MAY_DIFFER[-1]} may differ. Start a new run for another configuration."
        )
    named = Path(_unquoted(values[-1]))
    if (named / SAVED_SWEEP).is_file():
        return SweepResumption(named.resolve(), tuple(others))
    run = _newest_unfinished() if values[-1] == "auto" else _named(str(named))
    if values[-1] == "auto" and (run.parent / SAVED_SWEEP).is_file():
        return SweepResumption(run.parent.resolve(), tuple(others))
    if "${" in str(run.resolve()):
        raise ConfigError(f"{run.resolve()} cannot be resumed: Hydra takes ${{ in its path for a reference. Rename it.")
    return Resumption(run.resolve(), tuple(others))


def _named(value: str) -> Path:
    try:
        run = find_run(value)
    except ArtifactError as error:
        raise ConfigError(f"resume={value}: {error}") from error
    if not (run / SAVED_CONFIG).is_file():
        raise ConfigError(f"resume={value}: {run} has no {SAVED_CONFIG}, so its configuration is not known.")
    return run


def _newest_unfinished() -> Path:
    found = next(_unfinished(), None)
    if found is None:
        raise ConfigError("resume=auto: no run under outputs/ or multirun/ is unfinished.")
    return found


def _unfinished() -> Iterator[Path]:
    """Runs that were stopped, failed, or died without a word; the newest first."""
    for run in run_folders():
        if not (run / SAVED_CONFIG).is_file():
            continue
        try:
            status = read_status(run)
        except ArtifactError:
            continue
        is_running = process_of(status) == "running" and status.pid != os.getpid()  # numbers of processes come again
        if status.phase in _TAKEN_UP or not (status.has_ended or is_running):
            yield run


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value


def _quoted(value: str) -> str:
    # Hydra reads a backslash as one, except before a quote, where it takes two.
    escaped = re.sub(r"(\\+)(?='|$)", r"\1\1", value).replace("'", r"\'")
    return f"'{escaped}'"
