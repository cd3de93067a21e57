"""`metrics.csv`: one row per logged step, in a form that a resumed run takes up where its checkpoint was saved."""

from __future__ import annotations

import csv
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

    Rows are appended; when a metric comes up for the first time the file is rewritten with its column.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._columns: list[str] = []
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

    @property
    def num_rows(self) -> int:
        """How many rows have been logged."""
        return self._written + len(self._unwritten)

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add a row."""
        self._unwritten.append({"step": step, **{name: float(value) for name, value in metrics.items()}})
        if "epoch" in metrics:
            self._unwritten[-1]["epoch"] = int(metrics["epoch"])
        if len(self._unwritten) >= _ROWS_PER_WRITE:
            self.save()

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """They are in `.hydra/config.yaml` and in the checkpoints."""

    @rank_zero_only
    def save(self) -> None:
        """Write what is not written yet."""
        if not self._unwritten:
            return
        known = {*self._columns}
        new = {name for row in self._unwritten for name in row} - known
        if new:
            self._rewrite(known | new, self._read())
        with self._path.open("a", encoding="utf-8", newline="") as stream:
            csv.DictWriter(stream, self._columns, lineterminator="\n").writerows(self._unwritten)
        self._written += len(self._unwritten)
        self._unwritten = []

    def finalize(self, status: str) -> None:
        """Write the rest."""
        self.save()

    @rank_zero_only
    def cut_to(self, num_rows: int) -> None:
        """Keep the first rows of a file that an earlier process of this run has written."""
        rows = self._read(num_rows)
        self._unwritten = []
        self._written = len(rows)
        self._rewrite({name for row in rows for name, value in row.items() if value}, rows)

    def _read(self, num_rows: int | None = None) -> list[dict[str, str]]:
        if not self._path.exists():
            return []
        with self._path.open(encoding="utf-8", newline="") as stream:
            return [*islice(csv.DictReader(stream), self._written if num_rows is None else num_rows)]

    def _rewrite(self, columns: set[str], rows: list[dict[str, str]]) -> None:
        self._columns = [*_FIRST_COLUMNS, *sorted(columns - {*_FIRST_COLUMNS})]
        with written_whole(self._path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, self._columns, lineterminator="\n", extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)


class MetricsRows(Callback):
    """Remembers in each checkpoint how many rows `metrics.csv` had."""

    def __init__(self, metrics: MetricsFile) -> None:
        self._metrics = metrics

    def state_dict(self) -> dict[str, Any]:
        """The number of rows, all of them written."""
        self._metrics.save()
        return {"rows": self._metrics.num_rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Forget rows that the resumed run will log again."""
        self._metrics.cut_to(state_dict["rows"])
