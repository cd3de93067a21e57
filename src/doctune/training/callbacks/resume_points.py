"""Checkpoints within an epoch, from which a run goes on exactly: now and then, on a signal, when memory runs out.

Lightning's own checkpoints at the end of an epoch resume exactly. Within one they do when they are saved between two
optimiser steps, with progress counters that say so: between steps no gradient is pending, and what the last step
logged has been written. `settle` puts the counters right. (With lightning 2.6: a checkpoint from `on_train_batch_end`
loses the step's log row; one at the first batch of an epoch counts a step twice; one during validation skips it.)
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from doctune.training.callbacks.checkpoint import NamedCheckpoint
from doctune.training.callbacks.step_checks import is_within_epoch
from doctune.training.collectives import highest, is_together
from doctune.training.memory import is_out_of_memory

log = logging.getLogger(__name__)

# SIGUSR1 is what SLURM sends before it takes a machine away; Windows has no such signal.
_SIGNALS = ("SIGINT", "SIGTERM", "SIGUSR1")
_GO_ON, _SAVE, _STOP = range(3)
_PROGRESS = "epoch_loop.batch_progress"
_VALIDATION_PROGRESS = "epoch_loop.val_loop.batch_progress"


class ResumePoints(Callback):
    """Saves `step_<YYYYmmdd_HHMMSS>_step<SSSSSSS>.ckpt`.

    Args:
        folder: where.
        every_minutes: how often; None: not by the clock.
        every_n_steps: the same in optimiser steps; None: not by steps. A signal and a lack of memory save in any case.
        keep: how many are kept; older ones are removed.
        accumulation: forward passes per optimiser step.
        micro_batches: forward passes per epoch.
    """

    def __init__(
        self,
        folder: Path,
        *,
        every_minutes: float | None,
        every_n_steps: int | None = None,
        keep: int,
        accumulation: int,
        micro_batches: int,
    ) -> None:
        self._folder = folder
        self._seconds = None if every_minutes is None else 60 * every_minutes
        self._every_n_steps = every_n_steps
        self._keep = keep
        self._accumulation = accumulation
        self._micro_batches = micro_batches
        self._saved_at = time.monotonic()
        self._signal: str | None = None
        self._handlers: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen to signals, in place of Lightning, which would stop between two steps' micro-batches."""
        self._saved_at = time.monotonic()
        self._signal = None
        if threading.current_thread() is threading.main_thread():
            for name in _SIGNALS:
                if hasattr(signal, name):
                    number = signal.Signals[name]
                    self._handlers[number] = signal.signal(number, self._on_signal)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Save between two steps, if it is time to or a signal has come."""
        if batch_idx % self._accumulation:
            return
        # A run that goes on from what is saved here must know the best of the check before it.
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, NamedCheckpoint):
                callback.keep_check(trainer)
        # The clocks and signals of several processes differ, and they must save and stop at the same step.
        wish = highest(
            _STOP if self._signal else _SAVE if self._is_due(trainer.global_step) else _GO_ON, pl_module.device
        )
        if batch_idx > 0 and wish != _GO_ON:
            self._save(trainer)
        if wish == _STOP:
            self._stop(trainer)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Do not let a signal wait for the end of a long validation: it is done again from its start.

        Several processes have different numbers of batches, and so no place where they could agree. One within an epoch
        is waited for: Lightning would go on with the next step instead of doing it again.
        """
        if self._signal and trainer.state.fn == "fit" and not is_together() and not is_within_epoch(trainer):
            self._save(trainer)
            self._stop(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """When memory ran out, weights and optimiser are those of the last finished step: save them.

        One of several processes cannot save alone: they go on from the last checkpoint.
        """
        self._stop_listening()
        if is_together():
            return
        progress = trainer.fit_loop.epoch_loop.batch_progress
        is_epoch_done = progress.is_last_batch and progress.current.completed == progress.current.ready
        has_steps = is_epoch_done or progress.current.completed >= self._accumulation
        if is_out_of_memory(exception) and trainer.state.fn == "fit" and has_steps:
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the signals back; one that came after the last step was saved still ends the run."""
        self._stop_listening()
        if highest(bool(self._signal), pl_module.device):
            self._stop(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put the counters right, unless this is Lightning's own checkpoint at the end of an epoch."""
        checkpoint["micro_batches"] = {"per_step": self._accumulation, "per_epoch": self._micro_batches}
        fit_loop = checkpoint["loops"]["fit_loop"]
        if fit_loop["epoch_progress"]["current"]["processed"] < fit_loop["epoch_progress"]["current"]["started"]:
            settle(fit_loop, self._accumulation)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Progress is counted in micro-batches: count it in those of this run."""
        before = checkpoint["micro_batches"]
        now = {"per_step": self._accumulation, "per_epoch": self._micro_batches}
        if before != now:
            recount(checkpoint["loops"]["fit_loop"], before, now)

    def _is_due(self, step: int) -> bool:
        is_step = self._every_n_steps is not None and step % self._every_n_steps == 0
        return is_step or (self._seconds is not None and time.monotonic() - self._saved_at >= self._seconds)

    def _save(self, trainer: Trainer) -> None:
        name = f"step_{datetime.now():%Y%m%d_%H%M%S}_step{trainer.global_step:07d}.ckpt"
        trainer.save_checkpoint(self._folder / name, weights_only=False)
        self._saved_at = time.monotonic()
        if trainer.is_global_zero:
            saved = sorted(self._folder.glob("step_*_step*.ckpt"), key=_step_and_time)
            for old in saved[: -self._keep]:
                old.unlink()

    def _stop(self, trainer: Trainer) -> None:
        log.warning("%s: the run stops after step %d, which is saved.", self._signal or "A signal", trainer.global_step)
        raise KeyboardInterrupt

    def _on_signal(self, number: int, _: Any) -> None:
        if self._signal:  # the second one does not wait
            self._stop_listening()
            raise KeyboardInterrupt
        self._signal = signal.Signals(number).name
        log.warning("%s: the run is saved after this step, then it stops. Once more stops it at once.", self._signal)

    def _stop_listening(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}


def settle(fit_loop: dict[str, Any], accumulation: int) -> None:
    """Make the counters of a checkpoint within an epoch say: so many steps are done, nothing is begun.

    A validation that had begun is said to have begun and done nothing, which makes Lightning run all of it.

    Args:
        fit_loop: the state of Lightning's fit loop; changed.
        accumulation: forward passes per optimiser step.
    """
    progress = fit_loop[_PROGRESS]
    if not progress["is_last_batch"] or progress["current"]["completed"] < progress["current"]["ready"]:
        progress["is_last_batch"] = False
        unfinished = progress["current"]["completed"] % accumulation
        for counters in (progress["current"], progress["total"]):
            _set_all(counters, counters["completed"] - unfinished)
        return
    validation = fit_loop[_VALIDATION_PROGRESS]
    for counters in (validation["current"], validation["total"]):
        counters.update(ready=1, started=1, processed=0, completed=0)


def recount(fit_loop: dict[str, Any], before: dict[str, int], now: dict[str, int]) -> None:
    """Turn progress in micro-batches of one size into progress in those of another; optimiser steps stay what they are.

    Args:
        fit_loop: the state of Lightning's fit loop; changed.
        before: micro-batches `per_step` and `per_epoch` of the run that was saved.
        now: those of the run that goes on.
    """
    progress = fit_loop[_PROGRESS]
    done = progress["current"]["completed"]
    epochs = (progress["total"]["completed"] - done) // before["per_epoch"]
    done = now["per_epoch"] if done == before["per_epoch"] else done // before["per_step"] * now["per_step"]
    _set_all(progress["current"], done)
    _set_all(progress["total"], epochs * now["per_epoch"] + done)


def _set_all(counters: dict[str, int], value: int) -> None:
    counters.update(ready=value, started=value, processed=value, completed=value)


def newest(folder: Path) -> tuple[Path, int] | None:
    """The checkpoint in a folder that has come furthest, and its optimiser step; None where there is none.

    After the same step, one that was saved at the end of the epoch has come further than one from its validation. The
    times of the files are not asked: they change when a run is copied.
    """
    steps = {path: _global_step(path) for path in folder.glob("*.ckpt")}
    found = max(steps, key=lambda path: (steps[path], not path.name.startswith("step_"), path.name), default=None)
    return None if found is None else (found, steps[found])


def _step_and_time(path: Path) -> tuple[int, str]:
    """In which order files of this callback were saved; said by their names."""
    return int(path.stem.rpartition("step")[2]), path.name


def _global_step(path: Path) -> int:
    return int(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["global_step"])
