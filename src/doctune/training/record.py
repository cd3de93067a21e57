"""`environment.json`: what a rerun needs to know of a run, and what a resumed run must find unchanged."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from doctune.errors import ArtifactError, ConfigError, DataError
from doctune.files import write_json

log = logging.getLogger(__name__)

# What a resumed run may have been started with otherwise.
FREE_KEYS = (
    "trainer.max_epochs",
    "trainer.devices",
    "trainer.strategy",
    "resume",
    "data.num_workers",
    "data.extract.workers",
    "trainer.progress",
)


class RunRecord:
    """Grows while the run goes on; a resumed run takes up what is there.

    Args:
        path: the file.
        writes: False in a process that works beside the one which writes it.
    """

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        self.path = path
        self._writes = writes
        self.notes: list[str] = []
        self.facts: dict[str, Any] = {}
        self.take_up()

    def take_up(self) -> None:
        """Go on with what the file says: another process of this run may have written it."""
        found: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else {}
        self.notes = found.pop("notes", [])
        self.facts = found

    def note(self, sentence: str) -> None:
        """Say something that a reader of the report must know; the report has it once, however often it is said."""
        log.warning("%s", sentence)
        self.keep(sentence)

    def keep(self, sentence: str) -> None:
        """Keep for the report what has been said already."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def update(self, **facts: Any) -> None:
        """Add facts and write the file."""
        self.facts |= facts
        if self._writes:
            write_json(self.path, self.facts | {"notes": self.notes})

    def begin(self, environment: dict[str, Any], seed: int) -> None:
        """The first start of a run describes it; a further one adds when it was, and what is different now."""
        if "started_at" not in self.facts:
            self.update(**environment, seed=seed, started_at=now())
            return
        for name, version in environment["versions"].items():
            before = self.facts["versions"].get(name)
            if before is not None and version != before:
                self.note(f"Resumed with {name} {version}, begun with {before}: the last digits may differ.")
        self.update(resumed_at=[*self.facts.get("resumed_at", []), now()])

    def check_config(self, config: Mapping[str, Any]) -> None:
        """Remember the configuration; the run is resumed with the same one.

        Raises:
            ConfigError: it is another one; the message names the keys.
        """
        has_begun = "data_fingerprint" in self.facts
        before, after = (_flat(each) for each in (self.facts["config"] if has_begun else config, config))
        changed = [key for key in sorted(before | after) if before.get(key) != after.get(key) and key not in FREE_KEYS]
        if changed:
            differences = ", ".join(f"{key}={after.get(key)} (was {before.get(key)})" for key in changed)
            raise ConfigError(
                f"{self.path.parent} holds a run with another configuration: {differences}. Give this one a folder of "
                "its own (hydra.run.dir=… or, in a sweep, hydra.sweep.subdir=…)."
            )
        self.update(config=dict(config))

    def check_data(self, source: str, fingerprint: str) -> None:
        """Remember what identifies the examples and their parts; a resumed run must find the same.

        Raises:
            DataError: it does not.
        """
        if self.facts.setdefault("data_fingerprint", fingerprint) != fingerprint:
            raise DataError(
                f"{self.path.parent} cannot be resumed: the documents, their labels or their parts are no longer those "
                f"that it was trained on ({source} or its files have changed). Start a new run, or bring the "
                "files back."
            )

    def check_base(self, base: Mapping[str, Any]) -> None:
        """Remember the model below an adapter, which is not in the checkpoints; a resumed run must find the same.

        Raises:
            ArtifactError: it does not.
        """
        if self.facts.setdefault("base", dict(base)) != base:
            raise ArtifactError(
                f"{self.path.parent} cannot be resumed: it trains an adapter of {self.facts['base']['name']}, whose "
                "weights are no longer those that it was trained on. Start a new run, or bring them back."
            )


def _flat(config: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Dotted keys -> values."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= _flat(value, f"{path}{key}.") if isinstance(value, Mapping) else {f"{path}{key}": value}
    return flat


def now() -> str:
    """This moment, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
