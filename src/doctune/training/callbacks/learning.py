"""Says early, and in words, when a run is not learning what it should."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from doctune.errors import ConfigError, TrainingError
from doctune.training.alarms import Alarms
from doctune.training.callbacks.step_checks import is_within_epoch
from doctune.training.collectives import summed
from doctune.training.data.batched import num_losses

# Weight of the newest step in the smoothed training loss.
_SMOOTHING = 0.1
# The first step's loss is called far from ln(classes) outside of this range of shares of it.
_INITIAL_RANGE = (0.5, 1.5)
# After this many epochs, a training loss that is not below this share of chance is called flat.
_FLAT_AFTER, _FLAT_SHARE = 2, 0.98
# In the second half of the run, losses above this share of chance are called high.
_HIGH_SHARE = 0.6


class DivergedError(TrainingError):
    """The loss exploded or became NaN; nothing that was computed since can be used."""


@dataclass(frozen=True)
class Chance:
    """What a model that has learnt nothing reaches, and a cheap baseline.

    `uniform_loss` is that of the first step, `choices` says the number of what it chooses from; `train_loss` is what
    can be had on the training examples without reading them, and `prior` says how. `levels` are the validation scores
    of the baseline `name`, `words` say for each of them how it is reached, and `remedy` what may help where a run is
    worse; `weights_remedy` what helps where the loss has extreme weights. `pairing` is what to look at where nothing is
    learnt. `has_learnt_before`: the levels are those of a model that knows its task already and is to know it better;
    then neither the first step's loss nor losses that stay near them say anything.
    """

    uniform_loss: float
    choices: str
    train_loss: float
    prior: str
    name: str
    levels: dict[str, float]
    words: dict[str, str]
    remedy: str
    weights_remedy: str = (
        "loss.class_weights=effective, data.sampling.method=oversample data.sampling.strength=0.5, or "
        "split.small_classes=merge"
    )
    pairing: str = "the labels belong to the texts"
    has_learnt_before: bool = False


@dataclass(frozen=True)
class _Step:
    """Where a loss was met: epoch from 1, optimiser step, learning rate."""

    epoch: int
    number: int
    rate: float


class LearningGuards(Callback):
    """Looks at every step's loss, and at both losses and the monitored metric after each validation.

    Args:
        chance: what training must leave behind.
        class_weights: the weights in the loss, (L,).
        monitor: the monitored metric.
        mode: min or max.
        explosion: the run stops when the smoothed loss is so many times its lowest value, and above chance.
        weight_ratio: from this largest over smallest class weight on they are called extreme.
        alarms: where it is said.

    Raises:
        ConfigError: when training starts, nothing is trainable.
        DivergedError: the loss exploded or is no number.
    """

    def __init__(
        self,
        chance: Chance,
        class_weights: Tensor,
        *,
        monitor: str,
        mode: str,
        explosion: float,
        weight_ratio: float,
        alarms: Alarms,
    ) -> None:
        self._chance = chance
        self._class_weights = class_weights
        self._monitor, self._mode = monitor, mode
        self._explosion, self._weight_ratio = explosion, weight_ratio
        self._alarms = alarms
        self._window: list[Tensor] = []  # (2,) each: the loss of a micro-batch and its documents
        self._unread: list[tuple[_Step, Tensor]] = []
        self._smoothed: float | None = None
        self._lowest = math.inf

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Before anything is computed: is there something to learn, and with which weights?"""
        if stage != "fit":
            return
        if not any(parameter.requires_grad for parameter in pl_module.parameters()):
            raise ConfigError("Nothing would learn: every weight is frozen. Choose another finetune=.")
        present = self._class_weights[self._class_weights > 0]
        ratio = float(present.max() / present.min())
        if ratio >= self._weight_ratio:
            self._alarms.raise_alarm(
                "class_weights",
                0,
                f"The class weights are extreme: the rarest class counts {ratio:,.0f} times as much as the commonest, "
                f"so single documents can unsettle training. To try: {self._chance.weights_remedy}.",
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the plain loss of a finished step, and look at the kept ones now and then."""
        loss = outputs["cross_entropy"]
        share = torch.stack([loss, loss.new_full((), num_losses(batch))])
        self._window.append(share if batch["scale"] else torch.zeros_like(share))  # a stand-in counts nothing
        if batch["ends_step"]:
            self._end_step(trainer)
        if batch["ends_step"] and trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self._read()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """No broken weights are validated, so none reach a checkpoint of an epoch."""
        if trainer.state.fn == "fit":
            self._read()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare both losses and the monitored metric with chance, at an epoch's end."""
        if trainer.state.fn != "fit" or is_within_epoch(trainer):
            return
        epoch = trainer.current_epoch + 1
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self._check_flat(epoch, trainer.max_epochs or epoch, metrics["train_eval/loss"])
        self._check_majority(epoch, metrics[self._monitor])
        if not self._chance.has_learnt_before:
            self._check_high(epoch, trainer.max_epochs or epoch, metrics["train_eval/loss"], metrics["val/loss"])

    def _end_step(self, trainer: Trainer) -> None:
        """Only finished steps count: a window that is cut short is done again by the run that goes on."""
        step = _Step(trainer.current_epoch + 1, trainer.global_step, trainer.optimizers[0].param_groups[0]["lr"])
        self._unread.append((step, torch.stack(self._window).sum(dim=0)))
        self._window = []

    def _read(self) -> None:
        """Look at the losses since the last look, all at once, so that a GPU is not waited for each time.

        All processes see the losses of all, so that they decide alike.
        """
        if not self._unread:
            return
        sums = summed(torch.stack([share for _, share in self._unread])).tolist()
        unread, self._unread = self._unread, []
        for (step, _), (loss, documents) in zip(unread, sums, strict=True):
            if documents:
                self._check_step(step, loss / documents)

    def _check_step(self, step: _Step, loss: float) -> None:
        if not math.isfinite(loss):
            raise DivergedError(_diverged(step, f"became {loss}"))
        if self._smoothed is None:
            if not self._chance.has_learnt_before:
                self._check_initial(loss)
            self._smoothed = loss
        self._smoothed += _SMOOTHING * (loss - self._smoothed)
        self._lowest = min(self._lowest, self._smoothed)
        limit = max(self._explosion * self._lowest, 1.5 * self._chance.uniform_loss)
        if self._smoothed > limit:
            what = f"exploded to {self._smoothed:.2f}, from {self._lowest:.2f} at its lowest"
            raise DivergedError(_diverged(step, what))

    def _check_initial(self, loss: float) -> None:
        expected = self._chance.uniform_loss
        low, high = (share * expected for share in _INITIAL_RANGE)
        if not low <= loss <= high:
            cause = (
                "The head answers with too much certainty: its weights or the encoder's outputs are unusually large."
                if loss > high
                else "The model knows these labels already: was it trained on these documents, or is a class so common?"
            )
            self._alarms.raise_alarm(
                "initial_loss",
                1,
                f"The first step's loss is {loss:.2f}, and a model that knows nothing yet has {expected:.2f} "
                f"(ln of {self._chance.choices}). {cause}",
            )

    def _check_flat(self, epoch: int, epochs: int, train_loss: float) -> None:
        level = self._chance.train_loss
        if train_loss >= _FLAT_SHARE * level and epoch >= min(_FLAT_AFTER, epochs):
            self._alarms.raise_alarm(
                "no_learning",
                epoch,
                f"No learning: after {_epochs(epoch)} the training loss is {train_loss:.2f}, and {self._chance.prior} "
                f"alone gives {level:.2f}. To try: another optim.lr (ten times higher or lower), "
                f"finetune=full, longer windows (data.max_length); or look whether {self._chance.pairing}.",
            )
        else:
            self._alarms.clear("no_learning", epoch)

    def _check_majority(self, epoch: int, value: float) -> None:
        metric = self._monitor.removeprefix("val/")
        level = self._chance.levels[metric]
        margin = value - level if self._mode == "max" else level - value
        is_better = margin > 1e-6  # torchmetrics computes in single precision
        if is_better:
            self._alarms.clear("majority", epoch)
        else:
            found, bar = f"{value:.4f}", f"{level:.4f}"
            relation = "No better" if found == bar else "Worse"
            self._alarms.raise_alarm(
                "majority",
                epoch,
                f"{relation} than the {self._chance.name} baseline in epoch {epoch}: {self._monitor} is {found}, and "
                f"{self._chance.words[metric]} gives {bar}. To try: more epochs, another optim.lr, "
                f"{self._chance.remedy}; or look whether {self._chance.pairing}.",
            )

    def _check_high(self, epoch: int, epochs: int, train_loss: float, val_loss: float) -> None:
        is_late, bound = 2 * epoch > epochs, _HIGH_SHARE * self._chance.train_loss
        if is_late and min(train_loss, val_loss) > bound:
            self._alarms.raise_alarm(
                "underfitting",
                epoch,
                f"Underfitting: in epoch {epoch} of {epochs} both losses are still high (training {train_loss:.2f}, "
                f"validation {val_loss:.2f}; knowing nothing gives {self._chance.train_loss:.2f}). To try: more "
                "trainer.max_epochs, a higher optim.lr, finetune=full, a larger model=, less dropout.",
            )
        else:
            self._alarms.clear("underfitting", epoch)

    def state_dict(self) -> dict[str, Any]:
        """The smoothed loss and its lowest value; None and infinity before the first step.

        Lightning asks for it while it makes a checkpoint, and broken weights must not reach one.

        Raises:
            DivergedError: the weights are broken.
        """
        self._read()
        return {"smoothed": self._smoothed, "lowest": self._lowest}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up those of the run that is resumed."""
        self._smoothed, self._lowest = state_dict["smoothed"], state_dict["lowest"]


def _epochs(count: int) -> str:
    return "1 epoch" if count == 1 else f"{count} epochs"


def _diverged(step: _Step, what: str) -> str:
    return (
        f"The training loss {what} in epoch {step.epoch}, step {step.number}, at a learning rate of {step.rate:.3g}. "
        "To try: a lower optim.lr, a longer warmup (schedule.warmup_ratio), a smaller trainer.gradient_clip_val, or "
        "trainer.precision=32."
    )
