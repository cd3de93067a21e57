"""Each check of a run in `training_metrics.json` and `.csv` as it comes; the best in `training_summary.json`."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from doctune.files import write_json, written_whole

COLUMNS = ("step", "epoch", "train_loss", "val_loss", "gap", "gap_status", "lr")


class CheckLog(Callback):
    """Keeps a row per validation: both losses of the gap, plain and in evaluation mode, its name and the learning rate.

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
        self.rows: list[dict[str, Any]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What a step that ran out of memory has shown is shown again."""
        self._pending = 0

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
        }
        # A validation that is done again after a crash takes the place of the first one.
        self.rows = [*(each for each in self.rows if each["step"] < row["step"]), row]
        if trainer.is_global_zero:
            self._write()

    def write_summary(self, stopped: str, seconds: float) -> None:
        """Write `training_summary.json`: the check with the lowest validation loss and what the run took.

        Args:
            stopped: why it ended.
            seconds: of training, earlier starts of the run included.
        """
        best = min(self.rows, key=lambda row: row["val_loss"])
        write_json(
            self._folder / "training_summary.json",
            {
                "best_step": best["step"],
                "best_epoch": best["epoch"],
                "best_val_loss": best["val_loss"],
                "gap_at_best": best["gap"],
                "gap_status": best["gap_status"],
                "status": stopped,
                "checks": len(self.rows),
                "steps": self.rows[-1]["step"],
                "seconds": seconds,
                "tokens": self._tokens,
            },
        )

    def _write(self) -> None:
        write_json(self._folder / "training_metrics.json", self.rows)
        with (
            written_whole(self._folder / "training_metrics.csv") as temporary,
            temporary.open("w", encoding="utf-8", newline="") as stream,
        ):
            writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)

    def state_dict(self) -> dict[str, Any]:
        """The rows and tokens so far."""
        return {"rows": self.rows, "tokens": self._tokens}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up those of the run that is resumed."""
        self.rows, self._tokens = list(state_dict["rows"]), state_dict["tokens"]
