"""What TensorBoard shows of a classifier: confusions and precision-recall curves per epoch, the worst mistakes.

Shapes: B documents, L labels, P intervals of probability.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.backends.backend_agg import FigureCanvasAgg
from numpy.typing import NDArray
from torch import Tensor

from doctune.corpus.division import LabelledDocument
from doctune.labels import Labels
from doctune.reports import plots
from doctune.training.callbacks.dashboard import escaped, excerpt
from doctune.training.collectives import gathered

# Thresholds at whole percents; TensorBoard cannot take more than 127.
INTERVALS = 101
CLASS_CURVES = 20
DRAWN_LABELS = 100
PICTURE_DPI = 72
WORST_MISTAKES = 10


class EpochConfusions(Callback):
    """Writes the confusion matrix and precision-recall curves of each epoch, at its validation's step.

    Args:
        logger: where to.
        labels: in id order.
    """

    def __init__(self, logger: TensorBoardLogger, labels: Labels) -> None:
        self._logger = logger
        self._labels = labels
        self._counts: ValidationCounts | None = None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count; a validation that was cut short is done again from its start."""
        self._counts = ValidationCounts(len(self._labels)) if trainer.state.fn == "fit" else None

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
            self._counts.add(_probabilities(outputs["logits"]), batch["labels"].cpu().numpy())

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write everything before the epoch's checkpoint is saved, so that none is missing after it."""
        if self._counts is None:
            return
        shares, self._counts = gathered(self._counts), None
        if not shares:  # the main process has them
            return
        counts, step = sum(shares[1:], start=shares[0]), trainer.global_step - 1
        self._write_confusion(counts, trainer.current_epoch + 1, step)
        self._write_curves(counts, step)
        self._logger.experiment.flush()

    def _write_confusion(self, counts: ValidationCounts, epoch: int, step: int) -> None:
        if len(self._labels) <= DRAWN_LABELS:
            picture = confusion_picture(counts.confusion, self._labels.names, f"Validation, epoch {epoch}")
            self._logger.experiment.add_image("val/confusion_matrix", picture, step, dataformats="HWC")
        elif epoch == 1:
            self._logger.experiment.add_text(
                "val/confusion_matrix",
                f"A matrix of {len(self._labels)} labels cannot be read at this size: when the run has ended, "
                "`report/confusion_matrix.png` has it.",
                step,
            )

    def _write_curves(self, counts: ValidationCounts, step: int) -> None:
        curves = {"val/pr_micro": counts.curve()}
        for label in counts.most_frequent(CLASS_CURVES):
            curves[f"val_pr/{self._labels.names[label]}"] = counts.curve(label)
        for tag, curve in curves.items():
            self._logger.experiment.add_pr_curve_raw(tag, *curve, step, num_thresholds=INTERVALS)


class WorstMistakes(Callback):
    """Writes the wrong answers of the final test that were given with the greatest confidence.

    Args:
        logger: where to.
        labels: in id order.
        documents: the test part.
        texts: gives the texts of some documents.
    """

    def __init__(
        self,
        logger: TensorBoardLogger,
        labels: Labels,
        documents: Sequence[LabelledDocument],
        texts: Callable[[Sequence[LabelledDocument]], Sequence[str]],
    ) -> None:
        self._logger = logger
        self._labels = labels
        self._documents = documents
        self._texts = texts
        self._mistakes: list[Mistake] = []

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget those of an earlier test."""
        self._mistakes = []

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Keep the wrong answers that were given with the greatest confidence."""
        chances = _probabilities(outputs["logits"])
        answers = zip(batch["index"].tolist(), batch["labels"].tolist(), chances.argmax(axis=1).tolist(), strict=True)
        found = [
            Mistake(float(row[predicted]), index, self._labels.names[predicted])
            for (index, truth, predicted), row in zip(answers, chances, strict=True)
            if predicted != truth
        ]
        self._mistakes = _worst([*self._mistakes, *found])

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write it at the step of the test's own metrics."""
        shares = gathered(self._mistakes)
        if shares:  # the main process has them
            self._mistakes = _worst([mistake for share in shares for mistake in share])
            self._logger.experiment.add_text("test/worst_mistakes", self._mistakes_table(), trainer.global_step)
            self._logger.experiment.flush()

    def _mistakes_table(self) -> str:
        if not self._mistakes:
            return f"No mistakes: all {len(self._documents)} test documents have their right label."
        documents = [self._documents[mistake.index] for mistake in self._mistakes]
        lines = ["| document | truth | prediction | probability | beginning of its text |", "|---|---|---|---|---|"]
        for mistake, document, text in zip(self._mistakes, documents, self._texts(documents), strict=True):
            facts = (document.path, document.label, mistake.predicted, f"{mistake.probability:.3f}")
            lines.append(f"| {' | '.join(map(escaped, facts))} | {excerpt(text)} |")
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


def _worst(mistakes: Sequence[Mistake]) -> list[Mistake]:
    return sorted(mistakes, key=Mistake.rank)[:WORST_MISTAKES]


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

    def __add__(self, other: ValidationCounts) -> ValidationCounts:
        """Both validations together."""
        total = ValidationCounts(len(self.confusion))
        total.confusion = self.confusion + other.confusion
        total.everywhere = self.everywhere + other.everywhere
        total.positive = self.positive + other.positive
        return total

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


def _probabilities(logits: Tensor) -> NDArray[np.float32]:
    """Softmax of logits (B, L)."""
    chances: NDArray[np.float32] = logits.detach().float().softmax(dim=-1).cpu().numpy()
    return chances
