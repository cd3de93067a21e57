"""Checkpoint files with names that say when, which epoch and how good, and with what a reader must know inside."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from doctune.training.callbacks.step_checks import is_within_epoch


class NamedCheckpoint(ModelCheckpoint):
    """Keeps the best by the monitored metric and the last.

    Files are `<prefix>_<YYYYmmdd_HHMMSS>_epoch<EEE>_loss<val_loss .4f>.ckpt` with epochs from 1, and `last.ckpt`.
    """

    def __init__(self, folder: Path, *, prefix: str, monitor: str, mode: str, save_top_k: int) -> None:
        super().__init__(dirpath=folder, monitor=monitor, mode=mode, save_top_k=save_top_k, save_last=True)
        self._prefix = prefix
        self._has_checked = False
        self._named_at = datetime.now()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember a check within an epoch."""
        self._has_checked = trainer.state.fn == "fit" and is_within_epoch(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Save after a check within an epoch, as `ResumePoints` does: only between two steps is the state whole."""
        self.keep_check(trainer)

    def keep_check(self, trainer: Trainer) -> None:
        """Save what a check within an epoch asks for, unless it is saved already."""
        if self._has_checked:
            self._has_checked = False
            candidates = self._monitor_candidates(trainer)
            self._save_topk_checkpoint(trainer, candidates)
            self._save_last_checkpoint(trainer, candidates)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the best, and the last in any case: Lightning 2.6 leaves it out where the epoch was no better."""
        self._has_checked = False
        super().on_train_epoch_end(trainer, pl_module)
        if self._last_global_step_saved != trainer.global_step:
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing: the last epoch is saved already, and a run that is resumed at its end must not be saved again."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Find the files again where the run folder was moved since."""
        folder = Path(self.dirpath or "")

        def moved(path: str) -> str:
            return str(folder / Path(path).name) if path else path

        paths = {
            name: moved(state_dict[name]) for name in ("best_model_path", "kth_best_model_path", "last_model_path")
        }
        best = {moved(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict(state_dict | paths | {"best_k_models": best, "dirpath": self.dirpath})

    def _get_metric_interpolated_filepath_name(self, monitor_candidates: Any, trainer: Trainer, *args: Any) -> str:
        """The same for all processes, whatever their clocks say."""
        self._named_at = trainer.strategy.broadcast(datetime.now())
        return super()._get_metric_interpolated_filepath_name(monitor_candidates, trainer, *args)

    def format_checkpoint_name(
        self, metrics: dict[str, Tensor], filename: str | None = None, ver: int | None = None, prefix: str | None = None
    ) -> str:
        """The path of a new checkpoint; `last` keeps its name."""
        if filename == self.CHECKPOINT_NAME_LAST:
            return str(Path(self.dirpath or "") / f"{filename}{self.FILE_EXTENSION}")
        epoch = int(metrics["epoch"]) + 1
        name = f"{self._prefix}_{self._named_at:%Y%m%d_%H%M%S}_epoch{epoch:03d}_loss{_loss(metrics):.4f}"
        version = f"-v{ver}" if ver is not None else ""
        return str(Path(self.dirpath or "") / f"{name}{version}{self.FILE_EXTENSION}")


class Provenance(Callback):
    """Writes into each checkpoint, under `doctune`, where it comes from: configuration, git, versions, metrics, time.

    Args:
        config: the whole configuration, plain.
        environment: `git` and `versions`, plain, see `environment.describe_environment`.
    """

    def __init__(self, config: Mapping[str, Any], environment: Mapping[str, Any]) -> None:
        self._config = dict(config)
        self._origin = {key: environment[key] for key in ("git", "versions")}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Plain values only, so that the file loads with `weights_only=True`."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        checkpoint["doctune"] = {
            "saved_at": datetime.now().astimezone().isoformat(timespec="seconds"),
            "metrics": metrics,
            "config": self._config,
            **self._origin,
        }


def provenance(path: Path) -> dict[str, Any]:
    """What `Provenance` has written into a checkpoint."""
    found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["doctune"]
    return found


def _loss(metrics: dict[str, Any]) -> float:
    return float(metrics.get("val/loss", float("nan")))
