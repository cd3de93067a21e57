"""What TensorBoard shows of every run beside the curves that its module logs."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard.summary import custom_scalars, hparams

from doctune.training.callbacks.history import History
from doctune.training.collectives import whole
from doctune.training.config import Config

# Curves that are read together: title -> tags.
CHARTS = {
    "loss: as minimised, validation, training sample": ["train/loss", "val/loss", "train_eval/loss"],
    "gap: validation minus training sample": ["gap"],
}
# What people vary between runs. A value of None, such as an encoder's own dropout, is left out.
HYPERPARAMETERS = (
    "model.name", "model.dropout", "model.head_dropout", "finetune.strategy", "finetune.layers",
    "finetune.rank", "finetune.alpha", "finetune.dropout",
    "optim.lr", "optim.head_lr_multiplier", "optim.weight_decay", "optim.layer_decay",
    "schedule.name", "schedule.warmup_ratio", "schedule.warmup_steps",
    "loss.name", "loss.gamma", "loss.label_smoothing", "loss.class_weights",
    "data.max_length", "data.sampling.method", "data.sampling.strength",
    "data.augment.random_window", "data.augment.token_dropout",
    "trainer.max_epochs", "trainer.effective_batch_size", "trainer.gradient_clip_val", "trainer.precision",
    "split.seed", "split.fold", "seed",
)  # fmt: skip
EXCERPT_CHARS, EXCERPT_WIDTH = 300, 60
_HARMLESS_PUNCTUATION = " ,./;?-:()=%"


def hyperparameters(config: Config) -> dict[str, str | float]:
    """The values of `HYPERPARAMETERS`, by their keys in the configuration."""
    values = {key: attrgetter(key)(config) for key in HYPERPARAMETERS}
    return {key: value for key, value in values.items() if value is not None}


class GradientNorm(Callback):
    """Logs `train/grad_norm`: the gradients' norm over all weights before clipping, at the steps that are logged."""

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Compute it at once for all weights, and without waiting for a GPU."""
        if (trainer.global_step + 1) % trainer.log_every_n_steps:  # type: ignore[attr-defined]
            return
        weights = (weight for group in optimizer.param_groups for weight in group["params"])
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        pl_module.log("train/grad_norm", whole(torch.nn.utils.get_total_norm(gradients)))


class EpochCurves(Callback):
    """Writes throughput and padding of each epoch, at its validation's step.

    The first epoch also brings the layout of charts with several curves. What a run that is resumed does again, it
    writes again at the same step, and TensorBoard shows it once.

    Args:
        logger: where to.
        history: comes before this one in the Trainer's list.
        scores: names of the metrics that are read together, without their stage.
    """

    def __init__(self, logger: TensorBoardLogger, history: History, scores: Sequence[str]) -> None:
        self._logger = logger
        self._history = history
        self._scores = [f"val/{name}" for name in scores]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write everything before the epoch's checkpoint is saved, so that none is missing after it."""
        if not trainer.is_global_zero:
            return
        step = trainer.global_step - 1
        if trainer.current_epoch == 0:
            add_summary(self._logger, custom_scalars({"doctune": self._layout()}), step)
        writer, row = self._logger.experiment, self._history.epochs[-1]
        writer.add_scalar("train/tokens_per_s", row["tokens_per_s"], step)
        writer.add_scalar("train/padding_share", row["padding_share"], step)
        writer.flush()

    def _layout(self) -> dict[str, list[Any]]:
        # TensorBoard reads tags as patterns, and train/loss alone would find train/loss_step too.
        charts = CHARTS | {"validation scores": self._scores}
        return {title: ["Multiline", [f"^{tag}$" for tag in tags]] for title, tags in charts.items()}


class FinalScores(Callback):
    """Writes hyperparameters with final metrics when the final test has ended.

    Args:
        logger: where to.
        hyperparameters: plain values, see `hyperparameters`.
        best: knows the monitored metric and its best value.
        scores: names of the metrics of the test, without their stage.
    """

    def __init__(
        self,
        logger: TensorBoardLogger,
        hyperparameters: Mapping[str, str | float],
        best: ModelCheckpoint,
        scores: Sequence[str],
    ) -> None:
        self._logger = logger
        self._hyperparameters = dict(hyperparameters)
        self._best = best
        self._scores = [f"test/{name}" for name in scores]

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write it at the step of the test's own metrics."""
        if not trainer.is_global_zero:
            return
        best = f"best/{self._best.monitor}"
        assert self._best.best_model_score is not None, "the weights that are tested were chosen by it"
        self._logger.experiment.add_scalar(best, float(self._best.best_model_score), trainer.global_step)
        for summary in hparams(self._hyperparameters, dict.fromkeys((*self._scores, best))):
            add_summary(self._logger, summary, trainer.global_step)
        self._logger.experiment.flush()


def escaped(text: str) -> str:
    """Text as a cell of a Markdown table that shows it as it is: nothing in it can become markup or end the cell.

    White space and control characters become single spaces, punctuation that Markdown or HTML could read a character
    reference.
    """
    words = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return "".join(
        letter if letter.isalnum() or ord(letter) > 127 or letter in _HARMLESS_PUNCTUATION else f"&#{ord(letter)};"
        for letter in words
    )


def excerpt(text: str) -> str:
    """The beginning of a text in short lines: long ones would leave the other columns no room."""
    beginning = text[:EXCERPT_CHARS] + ("…" if len(text) > EXCERPT_CHARS else "")
    return "<br>".join(map(escaped, textwrap.wrap(beginning, EXCERPT_WIDTH)))


def add_summary(logger: TensorBoardLogger, summary: Any, step: int) -> None:
    """What SummaryWriter has no method for that takes a step; its `add_hparams` would begin a second run."""
    logger.experiment._get_file_writer().add_summary(summary, step)
