"""What TensorBoard shows beside the curves that the module logs.

Shapes: B documents, L labels, P intervals of probability.
"""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.backends.backend_agg import FigureCanvasAgg
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.tensorboard.summary import custom_scalars, hparams

from doctune.corpus.division import LabelledDocument
from doctune.labels import Labels
from doctune.reports import plots
from doctune.training.callbacks.history import History
from doctune.training.config import Config

# Curves that are read together: title -> tags.
CHARTS = {
    "loss: as minimised, validation, training sample": ["train/loss", "val/loss", "train_eval/loss"],
    "gap: validation minus training sample": ["gap"],
    "validation scores": ["val/f1_macro", "val/accuracy"],
}
# What people vary between runs. A value of None, such as an encoder's own dropout, is left out.
HYPERPARAMETERS = (
    "model.name", "model.dropout", "model.head_dropout", "finetune.strategy", "finetune.layers",
    "optim.lr", "optim.head_lr_multiplier", "optim.weight_decay", "optim.layer_decay",
    "schedule.name", "schedule.warmup_ratio", "schedule.warmup_steps",
    "loss.name", "loss.gamma", "loss.label_smoothing", "loss.class_weights",
    "data.max_length", "data.sampling.method", "data.sampling.strength",
    "data.augment.random_window", "data.augment.token_dropout",
    "trainer.max_epochs", "trainer.effective_batch_size", "trainer.gradient_clip_val", "trainer.precision",
    "split.seed", "split.fold", "seed",
)  # fmt: skip
FINAL_METRICS = ("test/f1_macro", "test/accuracy", "test/loss")
# Thresholds at whole percents; TensorBoard cannot take more than 127.
INTERVALS = 101
CLASS_CURVES = 20
DRAWN_LABELS = 100
PICTURE_DPI = 72
WORST_MISTAKES = 10
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
        pl_module.log("train/grad_norm", torch.nn.utils.get_total_norm(gradients))


class EpochDashboard(Callback):
    """Writes throughput, padding, confusion matrix and precision-recall curves of each epoch, at its validation's step.

    The first epoch also brings the layout of charts with several curves. What a run that is resumed does again, it
    writes again at the same step, and TensorBoard shows it once.

    Args:
        logger: where to.
        history: comes before this one in the Trainer's list.
        labels: in id order.
    """

    def __init__(self, logger: TensorBoardLogger, history: History, labels: Labels) -> None:
        self._logger = logger
        self._history = history
        self._labels = labels
        self._counts: ValidationCounts | None = None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count; a validation that was cut short is done again from its start."""
        is_of_epoch = trainer.state.fn == "fit" and trainer.is_global_zero
        self._counts = ValidationCounts(len(self._labels)) if is_of_epoch else None

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count the validation documents; the second loader has training documents."""
        if self._counts and dataloader_idx == 0:
            self._counts.add(_probabilities(outputs), batch["labels"].cpu().numpy())

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write everything before the epoch's checkpoint is saved, so that none is missing after it."""
        if self._counts is None:
            return
        step = trainer.global_step - 1
        if trainer.current_epoch == 0:
            self._write_once(step)
        writer, row = self._logger.experiment, self._history.epochs[-1]
        writer.add_scalar("train/tokens_per_s", row["tokens_per_s"], step)
        writer.add_scalar("train/padding_share", row["padding_share"], step)
        self._write_confusion(self._counts, row["epoch"], step)
        self._write_curves(self._counts, step)
        writer.flush()
        self._counts = None

    def _write_once(self, step: int) -> None:
        # TensorBoard reads them as patterns, and train/loss alone would find train/loss_step too.
        charts = {title: ["Multiline", [f"^{tag}$" for tag in tags]] for title, tags in CHARTS.items()}
        _add_summary(self._logger, custom_scalars({"doctune": charts}), step)
        if len(self._labels) > DRAWN_LABELS:
            self._logger.experiment.add_text(
                "val/confusion_matrix",
                f"A matrix of {len(self._labels)} labels cannot be read at this size: when the run has ended, "
                "`report/confusion_matrix.png` has it.",
                step,
            )

    def _write_confusion(self, counts: ValidationCounts, epoch: int, step: int) -> None:
        if len(self._labels) <= DRAWN_LABELS:
            picture = confusion_picture(counts.confusion, self._labels.names, f"Validation, epoch {epoch}")
            self._logger.experiment.add_image("val/confusion_matrix", picture, step, dataformats="HWC")

    def _write_curves(self, counts: ValidationCounts, step: int) -> None:
        curves = {"val/pr_micro": counts.curve()}
        for label in counts.most_frequent(CLASS_CURVES):
            curves[f"val_pr/{self._labels.names[label]}"] = counts.curve(label)
        for tag, curve in curves.items():
            self._logger.experiment.add_pr_curve_raw(tag, *curve, step, num_thresholds=INTERVALS)


class FinalDashboard(Callback):
    """Writes what is known when the final test has ended: hyperparameters with final metrics, and the worst mistakes.

    Args:
        logger: where to.
        labels: in id order.
        documents: the test part.
        texts: gives the texts of some documents.
        hyperparameters: plain values, see `hyperparameters`.
        best: knows the monitored metric and its best value.
    """

    def __init__(
        self,
        logger: TensorBoardLogger,
        labels: Labels,
        documents: Sequence[LabelledDocument],
        texts: Callable[[Sequence[LabelledDocument]], Sequence[str]],
        hyperparameters: Mapping[str, str | float],
        best: ModelCheckpoint,
    ) -> None:
        self._logger = logger
        self._labels = labels
        self._documents = documents
        self._texts = texts
        self._hyperparameters = dict(hyperparameters)
        self._best = best
        self._mistakes: list[Mistake] = []

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget those of an earlier test."""
        self._mistakes = []

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Keep the wrong answers that were given with the greatest confidence."""
        chances = _probabilities(outputs)
        answers = zip(batch["index"].tolist(), batch["labels"].tolist(), chances.argmax(axis=1).tolist(), strict=True)
        found = [
            Mistake(float(row[predicted]), index, self._labels.names[predicted])
            for (index, truth, predicted), row in zip(answers, chances, strict=True)
            if predicted != truth
        ]
        self._mistakes = sorted([*self._mistakes, *found], key=Mistake.rank)[:WORST_MISTAKES]

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write it at the step of the test's own metrics."""
        if not trainer.is_global_zero:
            return
        writer, step = self._logger.experiment, trainer.global_step
        best = f"best/{self._best.monitor}"
        assert self._best.best_model_score is not None, "the weights that are tested were chosen by it"
        writer.add_scalar(best, float(self._best.best_model_score), step)
        for summary in hparams(self._hyperparameters, dict.fromkeys((*FINAL_METRICS, best))):
            _add_summary(self._logger, summary, step)
        writer.add_text("test/worst_mistakes", self._mistakes_table(), step)
        writer.flush()

    def _mistakes_table(self) -> str:
        if not self._mistakes:
            return f"No mistakes: all {len(self._documents)} test documents have their right label."
        documents = [self._documents[mistake.index] for mistake in self._mistakes]
        lines = ["| document | truth | prediction | probability | beginning of its text |", "|---|---|---|---|---|"]
        for mistake, document, text in zip(self._mistakes, documents, self._texts(documents), strict=True):
            facts = (document.path, document.label, mistake.predicted, f"{mistake.probability:.3f}")
            lines.append(f"| {' | '.join(map(escaped, facts))} | {_excerpt(text)} |")
        return "\n".join(lines)


@dataclass(frozen=True)
class Mistake:
    """A wrong answer to the test document at place `index`."""

    probability: float
    index: int
    predicted: str

    def rank(self) -> tuple[float, int]:
        """Sorts the most confident first."""
        return -self.probability, self.index


class ValidationCounts:
    """What the charts of a validation are drawn from; its size does not depend on the number of documents.

    `confusion` is (L, L), truth in rows. `everywhere` counts for each label how many documents have its probability in
    each interval, (L, P); `positive` counts those among them that have the label.
    """

    def __init__(self, num_labels: int) -> None:
        self.confusion = np.zeros((num_labels, num_labels), np.int64)
        self.everywhere = np.zeros((num_labels, INTERVALS), np.int64)
        self.positive = np.zeros((num_labels, INTERVALS), np.int64)

    def add(self, probabilities: NDArray[np.float32], truth: NDArray[np.int64]) -> None:
        """Count a batch: probabilities (B, L), label ids (B,). What is no number counts as 0."""
        intervals = np.floor(np.nan_to_num(probabilities).clip(0, 1) * (INTERVALS - 1)).astype(np.int64)
        cells = intervals + INTERVALS * np.arange(len(self.confusion))
        self.everywhere += np.bincount(cells.ravel(), minlength=self.everywhere.size).reshape(self.everywhere.shape)
        documents = np.arange(len(truth))
        np.add.at(self.positive, (truth, intervals[documents, truth]), 1)
        np.add.at(self.confusion, (truth, probabilities.argmax(axis=1)), 1)

    def most_frequent(self, num_labels: int) -> list[int]:
        """The ids of the labels with the most documents, at most so many, in id order; only those that have any."""
        support = self.confusion.sum(axis=1)
        chosen = np.argsort(-support, kind="stable")[:num_labels]
        return sorted(int(label) for label in chosen if support[label])

    def curve(self, label: int | None = None) -> NDArray[np.float64]:
        """True and false positives, true and false negatives, precision and recall at P thresholds, (6, P).

        Args:
            label: of whom; None: of all, each pair of document and label being one decision (the micro-average).
        """
        chosen = slice(None) if label is None else slice(label, label + 1)
        positive = self.positive[chosen].sum(axis=0)
        negative = self.everywhere[chosen].sum(axis=0) - positive
        hits, false_alarms = (np.cumsum(counts[::-1])[::-1] for counts in (positive, negative))
        precision = hits / np.maximum(hits + false_alarms, 1)
        recall = hits / max(hits[0], 1)
        return np.stack([hits, false_alarms, false_alarms[0] - false_alarms, hits[0] - hits, precision, recall])


def confusion_picture(confusion: NDArray[np.int64], labels: Sequence[str], title: str) -> NDArray[np.uint8]:
    """The confusion matrix (L, L) drawn smaller than in the report: (height, width, 3)."""
    figure = plots.confusion_matrix(confusion, labels, title)
    figure.set_dpi(PICTURE_DPI)
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


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


def _excerpt(text: str) -> str:
    """The beginning of a text in short lines: long ones would leave the other columns no room."""
    beginning = text[:EXCERPT_CHARS] + ("…" if len(text) > EXCERPT_CHARS else "")
    return "<br>".join(map(escaped, textwrap.wrap(beginning, EXCERPT_WIDTH)))


def _probabilities(logits: Tensor) -> NDArray[np.float32]:
    """Softmax of logits (B, L)."""
    chances: NDArray[np.float32] = logits.detach().float().softmax(dim=-1).cpu().numpy()
    return chances


def _add_summary(logger: TensorBoardLogger, summary: Any, step: int) -> None:
    """What SummaryWriter has no method for that takes a step; its `add_hparams` would begin a second run."""
    logger.experiment._get_file_writer().add_summary(summary, step)
