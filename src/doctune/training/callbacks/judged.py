"""What all writers of judged parts have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

from lightning import Callback, LightningModule, Trainer

from doctune.training.collectives import gathered

Kept = TypeVar("Kept")


class JudgedPartWriter(Callback, ABC, Generic[Kept]):
    """Collects what `trainer.validate` and `trainer.test` give, and writes a part when it is over.

    Validation inside `fit` is not written: only what the best checkpoint says is. Of several processes each collects
    its share, and the main one writes them together.

    Attributes:
        kept: what was given for the examples, by their places in the part.
    """

    def __init__(self) -> None:
        self.kept: dict[int, Kept] = {}

    @abstractmethod
    def collect(self, outputs: Any, batch: Any) -> None:
        """Keep what a step gave for a batch."""

    @abstractmethod
    def write(self, part: str) -> None:
        """Write "val" or "test" from all that was kept."""

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
            self._finish("val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the test part."""
        self._finish("test")

    def _finish(self, part: str) -> None:
        shares = gathered(self.kept)
        if shares:  # the main process has them; an example is in one of them
            self.kept = {place: each for share in shares for place, each in share.items()}
            self.write(part)
        self.kept = {}
