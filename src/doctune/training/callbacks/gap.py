"""Overfitting has a name while it happens: the gap between validation and training loss."""

from __future__ import annotations

from typing import Any

import numpy as np
from lightning import Callback, LightningModule, Trainer

from doctune.scoring.gap import GapThresholds, growing_checks, onset
from doctune.training.alarms import Alarms
from doctune.training.callbacks.status import StatusFile
from doctune.training.callbacks.step_checks import place_in_words

_REMEDIES = (
    "lower optim.lr or trainer.max_epochs, raise model.dropout, optim.weight_decay or loss.label_smoothing, "
    "freeze layers (finetune=partial), or give it more documents"
)


class GapGuard(Callback):
    """Calls the gap critical in the run where it happens, says since when, and can stop it.

    Args:
        thresholds: where a gap becomes good, moderate and critical.
        checks: a critical gap that has grown in so many checks in a row stops the run; None never does.
        monitor: the metric by which the checkpoint to keep is chosen.
        mode: min or max.
        alarms: where it is said.
        status: where the name of the last gap is shown.
    """

    def __init__(
        self,
        thresholds: GapThresholds,
        *,
        checks: int | None,
        monitor: str,
        mode: str,
        alarms: Alarms,
        status: StatusFile,
    ) -> None:
        self._thresholds = thresholds
        self._checks = checks
        self._monitor = monitor
        self._sign = 1 if mode == "max" else -1
        self._alarms = alarms
        self._status = status
        self._gaps: list[float] = []
        self._places: list[str] = []
        self._scores: list[float] = []

    @property
    def wants_stop(self) -> bool:
        """Whether the gap was critical and grew for long enough."""
        return self._checks is not None and growing_checks(self._gaps, self._thresholds.critical) >= self._checks

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that was killed after it had decided to stop stays stopped."""
        trainer.should_stop = trainer.should_stop or self.wants_stop
        if self._gaps:
            self._status.update(gap_status=self._thresholds.status(self._gaps[-1]))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judge the gap of this validation."""
        if trainer.state.fn != "fit":
            return
        self._gaps.append(float(trainer.callback_metrics["gap"]))
        self._places.append(place_in_words(trainer))
        self._scores.append(self._sign * float(trainer.callback_metrics[self._monitor]))
        name = self._thresholds.status(self._gaps[-1])
        self._status.update(gap_status=name)
        if name == "critical":
            self._alarms.raise_alarm("gap", trainer.current_epoch + 1, self._message())
        else:
            self._alarms.clear("gap", trainer.current_epoch + 1)
        if self.wants_stop:
            trainer.should_stop = True

    def _message(self) -> str:
        began = onset([self._thresholds.status(gap) for gap in self._gaps]) or 1
        best = max(range(len(self._scores)), key=lambda check: np.nan_to_num(self._scores[check], nan=-np.inf))
        stops = f" It has grown in {_checks(self._checks)}, so the run stops here." if self.wants_stop else ""
        return (
            f"Overfitting: in {self._places[-1]} the validation loss is {self._gaps[-1]:.2f} above the training "
            f"loss (critical from {self._thresholds.critical:g}); the gap opened in {self._places[began - 1]}.{stops} "
            f"Keep the checkpoint of {self._places[best]} ({self._monitor} {self._sign * self._scores[best]:.4f}). "
            f"To try: {_REMEDIES}."
        )

    def state_dict(self) -> dict[str, Any]:
        """The gaps and scores so far, and where they were measured."""
        return {"gaps": self._gaps, "scores": self._scores, "places": self._places}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up those of the run that is resumed."""
        self._gaps, self._scores = list(state_dict["gaps"]), list(state_dict["scores"])
        self._places = list(state_dict["places"])


def _checks(count: int | None) -> str:
    return "this check" if count == 1 else f"{count} checks in a row"
