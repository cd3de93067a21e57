"""What all writers of judged parts have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from lightning import Callback, LightningModule, Trainer


class JudgedPartWriter(Callback, ABC):
    """Collects what `trainer.validate` and `trainer.test` give, and writes a part when it is over.

    Validation inside `fit` is not written: only what the best checkpoint says is.
    """

    @abstractmethod
    def collect(self, outputs: Any, batch: Any) -> None:
        """Keep what a step gave for a batch."""

    @abstractmethod
    def write(self, part: str) -> None:
        """Write "val" or "test", and forget it."""

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep what `trainer.validate` gives; the second loader has training examples."""
        if trainer.state.fn == "validate" and dataloader_idx == 0:
            self.collect(outputs, batch)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Keep what `trainer.test` gives."""
        self.collect(outputs, batch)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the validation part."""
        if trainer.state.fn == "validate":
            self.write("val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the test part."""
        self.write("test")
