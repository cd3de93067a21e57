"""One label per text.

Shapes: B documents, T tokens, F features, D hidden, L labels.
"""

from __future__ import annotations

from dataclasses import asdict

from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MeanMetric, MetricCollection
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
    """

    val_metrics: MetricCollection

    def __init__(
        self, net: PreTrainedModel, loss: DocumentLoss, optimisation: Optimisation, *, releases_layers: bool = False
    ) -> None:
        super().__init__(net, optimisation, releases_layers=releases_layers)
        self.loss = loss
        self.save_hyperparameters(
            {"net": net.config.to_dict(), "loss": loss.describe(), "optimisation": asdict(optimisation)}
        )
        metrics = _metrics(int(net.config.num_labels or 0))
        self.val_metrics, self.test_metrics = metrics.clone("val/"), metrics.clone("test/")

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits (B, L) of token ids (B, T) and their mask (B, T)."""
        logits: Tensor = self.net(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits.float()

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The loss of a micro-batch, see `FineTunedModule`."""
        logits, labels = self._logits(batch), batch["labels"]
        plain = F.cross_entropy(logits.detach(), labels, reduction="sum")
        return self._trained(self.loss(logits, labels), plain, batch, len(labels))

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Logits (B, L); the second loader is the sample of training documents, of which only the loss is kept."""
        if dataloader_idx == 0:
            return self._judge(batch, "val", self.val_loss, self.val_metrics)
        logits = self._logits(batch)
        self.train_eval_loss.update(F.cross_entropy(logits, batch["labels"]), weight=len(logits))
        return logits

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Logits (B, L); logs `test/loss`, `test/accuracy` and `test/f1_macro`."""
        return self._judge(batch, "test", self.test_loss, self.test_metrics)

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """What the head reads of the encoder's output, (B, F, D); see `first_token_features`."""
        return first_token_features(self.net, batch["input_ids"], batch["attention_mask"])

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
