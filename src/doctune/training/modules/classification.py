"""One label per text.

Shapes: B documents, T tokens, F features, D hidden, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score
from transformers import PreTrainedModel

from doctune.nets.frozen import first_token_features, head_logits
from doctune.nets.losses import DocumentLoss
from doctune.training.modules.finetuned import Batch, FineTunedModule
from doctune.training.optim import Optimisation


class ClassificationModule(FineTunedModule):
    """Trains a sequence classifier; the training loss is weighted and smoothed as asked for.

    Args:
        net: a sequence classifier whose forward gives logits.
        loss: what is minimised.
        optimisation: rates, decay and schedule.
        releases_layers: see `FineTunedModule`.
        f1_weights: (L,), of the labels in `f1_mix`; None: it is not measured.
    """

    val_metrics: MetricCollection

    def __init__(
        self,
        net: PreTrainedModel,
        loss: DocumentLoss,
        optimisation: Optimisation,
        *,
        releases_layers: bool = False,
        f1_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(net, optimisation, releases_layers=releases_layers)
        self.loss = loss
        self.save_hyperparameters(
            {"net": net.config.to_dict(), "loss": loss.describe(), "optimisation": asdict(optimisation)}
        )
        metrics = _metrics(int(net.config.num_labels or 0), f1_weights)
        self.val_metrics, self.test_metrics = metrics.clone("val/"), metrics.clone("test/")

    @property
    def stored(self) -> str:
        """What `predict_step` gives, in words for the cache's key: what the head reads of the first token."""
        return "first token"

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits (B, L) of token ids (B, T) and their mask (B, T)."""
        logits: Tensor = self.net(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits.float()

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The loss of a micro-batch, see `FineTunedModule`."""
        logits, labels = self._outputs(batch)["logits"], batch["labels"]
        plain = F.cross_entropy(logits.detach(), labels, reduction="sum")
        return self._trained(self.loss(logits, labels), plain, batch)

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """`logits` (B, L); the second loader is the sample of training documents, of which only the loss is kept."""
        if dataloader_idx == 0:
            return self._judge(batch, "val", self.val_loss, self.val_metrics)
        outputs = self._outputs(batch)
        loss = F.cross_entropy(outputs["logits"], batch["labels"])
        self.train_eval_loss.update(loss, weight=len(batch["labels"]))
        return outputs

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """`logits` (B, L); logs `test/loss`, `test/accuracy` and `test/f1_macro`."""
        return self._judge(batch, "test", self.test_loss, self.test_metrics)

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """What the head reads of the encoder's output, (B, F, D); see `first_token_features`."""
        return first_token_features(self.net, batch["input_ids"], batch["attention_mask"])

    def _outputs(self, batch: Batch) -> dict[str, Tensor]:
        """`logits` (B, L), and whatever else a callback reads."""
        if "features" in batch:
            return {"logits": head_logits(self.net, batch["features"]).float()}
        return {"logits": self(batch["input_ids"], batch["attention_mask"])}

    def _judge(self, batch: Batch, stage: str, mean_loss: MeanMetric, metrics: MetricCollection) -> dict[str, Tensor]:
        outputs = self._outputs(batch)
        logits = outputs["logits"]
        mean_loss.update(F.cross_entropy(logits, batch["labels"]), weight=len(logits))
        metrics.update(logits, batch["labels"])
        self.log(f"{stage}/loss", mean_loss, prog_bar=True, add_dataloader_idx=False)
        self.log_dict(metrics, prog_bar=True, add_dataloader_idx=False)
        return outputs


class MixedF1(MulticlassF1Score):
    """The F1 of each label, mixed in the shares that their weights (L,) have; see `scoring.classification.f1_mix`."""

    weights: Tensor

    def __init__(self, weights: Sequence[float], **kwargs: Any) -> None:
        super().__init__(len(weights), average=None, **kwargs)
        self.register_buffer("weights", torch.tensor(weights) / sum(weights), persistent=False)

    def compute(self) -> Tensor:
        """A scalar."""
        return super().compute() @ self.weights


def _metrics(num_labels: int, f1_weights: Sequence[float] | None) -> MetricCollection:
    metrics: dict[str, Metric | MetricCollection] = {
        "accuracy": MulticlassAccuracy(num_labels, average="micro"),
        "f1_macro": MulticlassF1Score(num_labels, average="macro"),
    }
    if f1_weights is not None:
        metrics["f1_mix"] = MixedF1(f1_weights)
    return MetricCollection(metrics)
