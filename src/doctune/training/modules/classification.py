"""One label per text.

Shapes: B documents, T tokens, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score
from transformers import PreTrainedModel

from doctune.nets.losses import class_weights, cross_entropy_sum
from doctune.nets.parameters import parameter_groups
from doctune.training.optim import Optimisation, adamw, with_schedule

Batch = dict[str, Any]


class ClassificationModule(LightningModule):
    """Trains a sequence classifier.

    The training loss is weighted and smoothed as asked for; `val/loss` and `test/loss` are plain cross entropy, the
    mean over documents, so that runs with different weights can be compared.

    Args:
        net: a sequence classifier whose forward gives logits.
        class_counts: training documents per label, in id order.
        class_weighting: see `losses.class_weights`.
        label_smoothing: see `losses.cross_entropy_sum`.
        optimisation: rates, decay and schedule.
    """

    class_weights: Tensor

    def __init__(
        self,
        net: PreTrainedModel,
        *,
        class_counts: Sequence[int],
        class_weighting: str,
        label_smoothing: float,
        optimisation: Optimisation,
    ) -> None:
        super().__init__()
        self.net = net
        self.label_smoothing = label_smoothing
        self.optimisation = optimisation
        self.register_buffer("class_weights", class_weights(class_weighting, class_counts), persistent=False)
        self.save_hyperparameters(
            {
                "net": net.config.to_dict(),
                "class_weighting": class_weighting,
                "label_smoothing": label_smoothing,
                "optimisation": asdict(optimisation),
            }
        )
        metrics = _metrics(len(class_counts))
        self.val_metrics, self.test_metrics = metrics.clone("val/"), metrics.clone("test/")
        self.train_loss, self.val_loss, self.test_loss = MeanMetric(), MeanMetric(), MeanMetric()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits (B, L) of token ids (B, T) and their mask (B, T)."""
        logits: Tensor = self.net(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits.float()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The micro-batch's share of the effective batch's mean loss, times the accumulation."""
        logits = self(batch["input_ids"], batch["attention_mask"])
        loss = cross_entropy_sum(logits, batch["labels"], self.class_weights, self.label_smoothing)
        mean = loss.detach() / len(logits)
        self.train_loss.update(mean, weight=len(logits))
        self.log("train/loss_step", mean, on_step=True, on_epoch=False, prog_bar=True)
        self.log("train/loss", self.train_loss, on_step=False, on_epoch=True)
        return loss * batch["scale"]

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Logits (B, L); logs `val/loss`, `val/accuracy` and `val/f1_macro`."""
        return self._judge(batch, "val", self.val_loss, self.val_metrics)

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Logits (B, L); logs `test/loss`, `test/accuracy` and `test/f1_macro`."""
        return self._judge(batch, "test", self.test_loss, self.test_metrics)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW over encoder and head groups, with a per-step schedule."""
        plan = self.optimisation
        groups = parameter_groups(
            self.net, lr=plan.lr, head_lr_multiplier=plan.head_lr_multiplier, weight_decay=plan.weight_decay
        )
        return with_schedule(adamw(groups), plan)

    def _judge(self, batch: Batch, stage: str, mean_loss: MeanMetric, metrics: MetricCollection) -> Tensor:
        logits = self(batch["input_ids"], batch["attention_mask"])
        mean_loss.update(F.cross_entropy(logits, batch["labels"]), weight=len(logits))
        metrics.update(logits, batch["labels"])
        self.log(f"{stage}/loss", mean_loss, prog_bar=True)
        self.log_dict(metrics, prog_bar=True)
        return logits


def _metrics(num_labels: int) -> MetricCollection:
    return MetricCollection(
        {
            "accuracy": MulticlassAccuracy(num_labels, average="micro"),
            "f1_macro": MulticlassF1Score(num_labels, average="macro"),
        }
    )
