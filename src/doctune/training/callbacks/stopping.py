"""Early stopping that a resumed run remembers."""

from __future__ import annotations

import lightning.pytorch.callbacks as stock
from lightning import LightningModule, Trainer

from doctune.training.callbacks.step_checks import is_within_epoch


class EarlyStopping(stock.EarlyStopping):
    """Lightning's, which forgets when a run is killed between its decision and the run's end."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that was stopped stays stopped."""
        trainer.should_stop = trainer.should_stop or self.wants_stop

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judge a check within an epoch; those at its end are judged when it has ended."""
        if trainer.state.fn == "fit" and is_within_epoch(trainer):
            self._run_early_stopping_check(trainer)

    @property
    def wants_stop(self) -> bool:
        """Whether it has decided to end the run, for want of improvement or because the metric is no number."""
        return self.stopping_reason is not stock.early_stopping.EarlyStoppingReason.NOT_STOPPED
