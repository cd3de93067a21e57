"""One label per text.

Shapes: B documents, T tokens, F features, D hidden, L labels.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score
from transformers import PreTrainedModel

from doctune.nets.frozen import first_token_features, head_logits
from doctune.nets.losses import DocumentLoss
from doctune.nets.parameters import parameter_groups
from doctune.training.optim import Optimisation, adamw, with_schedule

Batch = dict[str, Any]


class ClassificationModule(LightningModule):
    """Trains a sequence classifier.

    The training loss is weighted and smoothed as asked for; `val/loss`, `test/loss` and `train_eval/loss` are plain
    cross entropy in evaluation mode, the mean over documents, so that runs with different weights can be compared.
    `gap` is `val/loss` minus `train_eval/loss`.

    Args:
        net: a sequence classifier whose forward gives logits.
        loss: what is minimised.
        optimisation: rates, decay and schedule.
        releases_layers: layers that are frozen now will learn later; the optimiser holds them from the start.
    """

    def __init__(
        self, net: PreTrainedModel, loss: DocumentLoss, optimisation: Optimisation, *, releases_layers: bool = False
    ) -> None:
        super().__init__()
        self.net = net
        self.loss = loss
        self.optimisation = optimisation
        self._releases_layers = releases_layers
        self.save_hyperparameters(
            {"net": net.config.to_dict(), "loss": loss.describe(), "optimisation": asdict(optimisation)}
        )
        metrics = _metrics(int(net.config.num_labels or 0))
        self.val_metrics, self.test_metrics = metrics.clone("val/"), metrics.clone("test/")
        self.val_loss, self.train_eval_loss, self.test_loss = MeanMetric(), MeanMetric(), MeanMetric()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits (B, L) of token ids (B, T) and their mask (B, T)."""
        logits: Tensor = self.net(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits.float()

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The micro-batch's share of the effective batch's mean loss, times the accumulation.

        Also gives what callbacks add up: the `objective` (weighted, smoothed) and the plain `cross_entropy`, sums over
        the documents.
        """
        logits = self._logits(batch)
        objective = self.loss(logits, batch["labels"])
        self.log("train/loss_step", objective.detach() / len(logits), on_step=True, on_epoch=False, prog_bar=True)
        return {
            "loss": objective * batch["scale"],
            "objective": objective.detach(),
            "cross_entropy": F.cross_entropy(logits.detach(), batch["labels"], reduction="sum"),
        }

    def on_validation_epoch_start(self) -> None:
        """Forget what a validation that was cut short has left in the metrics."""
        for metric in (self.val_loss, self.train_eval_loss, self.val_metrics):
            metric.reset()

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Logits (B, L); the second loader is the sample of training documents, of which only the loss is kept."""
        if dataloader_idx == 0:
            return self._judge(batch, "val", self.val_loss, self.val_metrics)
        logits = self._logits(batch)
        self.train_eval_loss.update(F.cross_entropy(logits, batch["labels"]), weight=len(logits))
        return logits

    def on_validation_epoch_end(self) -> None:
        """Log both losses of the gap, and the gap."""
        sample = self.train_eval_loss.compute()
        self.log_dict({"train_eval/loss": sample, "gap": self.val_loss.compute() - sample})

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Logits (B, L); logs `test/loss`, `test/accuracy` and `test/f1_macro`."""
        return self._judge(batch, "test", self.test_loss, self.test_metrics)

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """What the head reads of the encoder's output, (B, F, D); see `first_token_features`."""
        return first_token_features(self.net, batch["input_ids"], batch["attention_mask"])

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW over encoder and head groups, with a per-step schedule."""
        plan = self.optimisation
        groups = parameter_groups(
            self.net,
            lr=plan.lr,
            head_lr_multiplier=plan.head_lr_multiplier,
            weight_decay=plan.weight_decay,
            layer_decay=plan.layer_decay,
            include_frozen=self._releases_layers,
        )
        return with_schedule(adamw(groups, plan.fused), plan)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by norm; Lightning refuses to do so for any fused optimiser in mixed precision, also without a scale."""
        if gradient_clip_val:
            clip_grad_norm_((p for group in optimizer.param_groups for p in group["params"]), gradient_clip_val)

    def _logits(self, batch: Batch) -> Tensor:
        if "features" in batch:
            return head_logits(self.net, batch["features"]).float()
        logits: Tensor = self(batch["input_ids"], batch["attention_mask"])
        return logits

    def _judge(self, batch: Batch, stage: str, mean_loss: MeanMetric, metrics: MetricCollection) -> Tensor:
        logits = self._logits(batch)
        mean_loss.update(F.cross_entropy(logits, batch["labels"]), weight=len(logits))
        metrics.update(logits, batch["labels"])
        self.log(f"{stage}/loss", mean_loss, prog_bar=True, add_dataloader_idx=False)
        self.log_dict(metrics, prog_bar=True, add_dataloader_idx=False)
        return logits


def _metrics(num_labels: int) -> MetricCollection:
    return MetricCollection(
        {
            "accuracy": MulticlassAccuracy(num_labels, average="micro"),
            "f1_macro": MulticlassF1Score(num_labels, average="macro"),
        }
    )
