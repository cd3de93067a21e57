"""Each check of a run in `training_metrics.json` and `.csv` as it comes; the best in `training_summary.json`."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from doctune.files import write_json, written_whole
from doctune.training.collectives import is_main, summed_numbers

FILE = "training_metrics.json"
COLUMNS = ("step", "epoch", "train_loss", "val_loss", "gap", "gap_status", "lr", "tokens")


class CheckLog(Callback):
    """Keeps a row per validation: both losses of the gap, plain and in evaluation mode, its name, rate and tokens.

    A run that is resumed goes on with the rows of its checkpoint.

    Args:
        folder: where the files go.
        gap_status: the name of a gap, see `scoring.gap.GapThresholds.status`.
    """

    def __init__(self, folder: Path, gap_status: Callable[[float], str]) -> None:
        self._folder = folder
        self._gap_status = gap_status
        self._tokens = 0
        self._pending = 0
        self._device = torch.device("cpu")
        self.rows: list[dict[str, Any]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What a step that ran out of memory has shown is shown again."""
        self._pending = 0
        self._device = pl_module.device

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the tokens of finished steps."""
        self._pending += batch["tokens"] if batch["scale"] else 0
        if batch["ends_step"]:
            self._tokens, self._pending = self._tokens + self._pending, 0

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the row and write both files."""
        if trainer.state.fn != "fit":
            return
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        row = {
            "step": trainer.global_step,
            "epoch": trainer.current_epoch + 1,
            "train_loss": metrics["train_eval/loss"],
            "val_loss": metrics["val/loss"],
            "gap": metrics["gap"],
            "gap_status": self._gap_status(metrics["gap"]),
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "tokens": self._tokens_of_all(),
        }
        # A validation that is done again after a crash takes the place of the first one.
        self.rows = [*(each for each in self.rows if each["step"] < row["step"]), row]
        if trainer.is_global_zero:
            self._write()

    def _write(self) -> None:
        write_json(self._folder / FILE, self.rows)
        with (
            written_whole(self._folder / "training_metrics.csv") as temporary,
            temporary.open("w", encoding="utf-8", newline="") as stream,
        ):
            writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)

    def state_dict(self) -> dict[str, Any]:
        """The rows and tokens so far."""
        return {"rows": self.rows, "tokens": self._tokens_of_all()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up those of the run that is resumed."""
        self.rows = list(state_dict["rows"])
        self._tokens = state_dict["tokens"] if is_main() else 0

    def _tokens_of_all(self) -> int:
        return int(summed_numbers([self._tokens], self._device)[0])


def write_summary(run: Path, stopped: str, seconds: float) -> None:
    """Write `training_summary.json`: the check with the lowest validation loss and what the run took.

    Args:
        run: the folder, which has `training_metrics.json`.
        stopped: why it ended.
        seconds: of training, earlier starts of the run included.
    """
    rows = json.loads((run / FILE).read_text(encoding="utf-8"))
    best = min(rows, key=lambda row: row["val_loss"])
    write_json(
        run / "training_summary.json",
        {
            "best_step": best["step"],
            "best_epoch": best["epoch"],
            "best_val_loss": best["val_loss"],
            "gap_at_best": best["gap"],
            "gap_status": best["gap_status"],
            "status": stopped,
            "checks": len(rows),
            "steps": rows[-1]["step"],
            "seconds": seconds,
            "tokens": rows[-1]["tokens"],
        },
    )
