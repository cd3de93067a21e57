"""`metrics.csv`: one row per logged step, in a form that a resumed run takes up where its checkpoint was saved."""

from __future__ import annotations

import csv
import os
from itertools import islice
from pathlib import Path
from typing import Any

from lightning import Callback
from lightning.pytorch.loggers.logger import Logger
from lightning_utilities.core.rank_zero import rank_zero_only

from doctune.files import written_whole

_ROWS_PER_WRITE = 50
_FIRST_COLUMNS = ("step", "epoch")


class MetricsFile(Logger):
    """Lightning's CSVLogger deletes what a killed run had written; this one cuts it back and goes on.

    What is logged in pieces for one step becomes one row. The last row stays open, since more may come, and is not in
    the file yet. Rows are appended; when a metric comes up for the first time the file is rewritten with its column.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._columns: list[str] = []
        self._open: dict[str, Any] = {}
        self._unwritten: list[dict[str, Any]] = []
        self._written = 0

    @property
    def name(self) -> str:
        """Lightning asks for it."""
        return "metrics"

    @property
    def version(self) -> str:
        """Lightning asks for it."""
        return ""

    @property
    def experiment(self) -> MetricsFile:
        """Itself."""
        return self

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add to the open row, or begin another."""
        row: dict[str, Any] = {"step": step, **{name: float(value) for name, value in metrics.items()}}
        if "epoch" in metrics:
            row["epoch"] = int(metrics["epoch"])
        if any(self._open.get(name, value) != value for name, value in row.items()):
            self._close()
        self._open |= row
        if len(self._unwritten) >= _ROWS_PER_WRITE:
            self.save()

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """They are in `.hydra/config.yaml` and in the checkpoints."""

    @rank_zero_only
    def save(self) -> None:
        """Write the rows that are complete."""
        if not self._unwritten:
            return
        known = {*self._columns}
        new = {name for row in self._unwritten for name in row} - known
        if new:
            self._rewrite(known | new, self._read())
        with self._path.open("a", encoding="utf-8", newline="") as stream:
            csv.DictWriter(stream, self._columns, lineterminator="\n").writerows(self._unwritten)
            stream.flush()
            os.fsync(stream.fileno())  # a checkpoint that counts these rows must not outlive them
        self._written += len(self._unwritten)
        self._unwritten = []

    def finalize(self, status: str) -> None:
        """Write the rest."""
        self._close()
        self.save()

    def state(self) -> dict[str, Any]:
        """How many rows are complete, all of them on the disk, and the open one; plain values."""
        self.save()
        return {"rows": self._written, "open": dict(self._open)}

    @rank_zero_only
    def restore(self, state: dict[str, Any]) -> None:
        """Keep so many rows of a file that an earlier process of this run has written, and go on with the open one."""
        rows = self._read(state["rows"])
        self._open = dict(state["open"])
        self._unwritten = []
        self._written = len(rows)
        self._rewrite({name for row in rows for name, value in row.items() if value}, rows)

    def _close(self) -> None:
        if self._open:
            self._unwritten.append(self._open)
        self._open = {}

    def _read(self, num_rows: int | None = None) -> list[dict[str, str]]:
        if not self._path.exists():
            return []
        with self._path.open(encoding="utf-8", newline="") as stream:
            return [*islice(csv.DictReader(stream), self._written if num_rows is None else num_rows)]

    def _rewrite(self, columns: set[str], rows: list[dict[str, str]]) -> None:
        names = [*_FIRST_COLUMNS, *sorted(columns - {*_FIRST_COLUMNS})]
        with written_whole(self._path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, names, lineterminator="\n", extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        self._columns = names  # only now is the file so


class MetricsRows(Callback):
    """Remembers in each checkpoint how far `metrics.csv` had come."""

    def __init__(self, metrics: MetricsFile) -> None:
        self._metrics = metrics

    def state_dict(self) -> dict[str, Any]:
        """See `MetricsFile.state`."""
        return self._metrics.state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Forget rows that the resumed run will log again."""
        self._metrics.restore(state_dict)
