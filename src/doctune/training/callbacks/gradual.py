"""One more encoder layer learns each epoch, from the top (Howard & Ruder 2018, section 3.3)."""

from __future__ import annotations

import logging

from lightning import Callback, LightningModule, Trainer
from transformers import PreTrainedModel

from doctune.nets.parameters import encoder_layers, num_released_layers, release

log = logging.getLogger(__name__)


class GradualUnfreezing(Callback):
    """Releases layers at the start of each epoch; which ones follows from the epoch alone, so that a run can resume."""

    def __init__(self, net: PreTrainedModel) -> None:
        self._net = net

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Release all: DDP reduces the gradients of those weights only that learn when it is set up."""
        if stage == "fit" and trainer.world_size > 1:
            release(self._net, len(encoder_layers(self._net)))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Also in the middle of an epoch, where Lightning does not announce it again."""
        self._release(trainer.current_epoch)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Release this epoch's layers and say how many they are."""
        released = self._release(trainer.current_epoch)
        layers = "1 encoder layer" if released == 1 else f"{released} encoder layers"
        log.info("Epoch %d: the head and %s learn.", trainer.current_epoch + 1, layers)

    def _release(self, epoch: int) -> int:
        released = num_released_layers(epoch, len(encoder_layers(self._net)))
        release(self._net, released)
        return released
