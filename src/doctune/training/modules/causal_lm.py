"""A language model that learns to write completions.

Shapes: B rows, T tokens, V tokens of the vocabulary, K tokens to write in all rows.
"""

from __future__ import annotations

from dataclasses import asdict

import torch
from torch import Tensor
from torchmetrics import MeanMetric, MetricCollection
from transformers import PreTrainedModel

from doctune.nets.causal import next_token_losses
from doctune.training.modules.finetuned import Batch, FineTunedModule
from doctune.training.optim import Optimisation

_INPUTS = ("input_ids", "attention_mask", "position_ids")


class CausalLMModule(FineTunedModule):
    """Trains a causal language model on the tokens that it is to write, all others only stand before them.

    The loss is the mean over the tokens to write of an effective batch. Validation and test log the plain cross entropy
    of their tokens and `perplexity`, its exponential.

    Args:
        net: a causal language model.
        optimisation: rates, decay and schedule.
        label_smoothing: of the training loss.
    """

    def __init__(self, net: PreTrainedModel, optimisation: Optimisation, *, label_smoothing: float = 0.0) -> None:
        super().__init__(net, optimisation)
        self.label_smoothing = label_smoothing
        self.save_hyperparameters(
            {
                "net": net.config.to_dict(),
                "optimisation": asdict(optimisation),
                "label_smoothing": label_smoothing,
            }
        )
        self.val_metrics = MetricCollection({})  # perplexity follows from the loss

    def forward(self, batch: Batch) -> Tensor:
        """Logits of the next token, (B, T, V)."""
        inputs = {name: batch[name] for name in _INPUTS if name in batch}
        logits: Tensor = self.net(**inputs, use_cache=False).logits
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The loss of a micro-batch, see `FineTunedModule`; its examples are tokens."""
        logits = self(batch)
        plain = next_token_losses(logits, batch["labels"])[0].sum()
        smoothing = self.label_smoothing
        objective = next_token_losses(logits, batch["labels"], smoothing)[0].sum() if smoothing else plain
        return self._trained(objective, plain, batch)

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """The `losses` (B,) of the rows, sums over their tokens, and how many those are, `counts` (B,).

        The second loader is the sample of training rows.
        """
        if dataloader_idx == 0:
            return self._judge(batch, "val", self.val_loss)
        return self._measure(batch, self.train_eval_loss)

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """As validation; logs `test/loss` and `test/perplexity`."""
        return self._judge(batch, "test", self.test_loss)

    def on_validation_epoch_end(self) -> None:
        """Log perplexity, too."""
        super().on_validation_epoch_end()
        self.log("val/perplexity", self.val_loss.compute().exp(), prog_bar=True)

    def on_test_epoch_end(self) -> None:
        """Log perplexity, too."""
        self.log("test/perplexity", self.test_loss.compute().exp(), prog_bar=True)

    def _judge(self, batch: Batch, stage: str, mean_loss: MeanMetric) -> dict[str, Tensor]:
        found = self._measure(batch, mean_loss)
        self.log(f"{stage}/loss", mean_loss, prog_bar=True, add_dataloader_idx=False)
        return found

    def _measure(self, batch: Batch, mean_loss: MeanMetric) -> dict[str, Tensor]:
        losses, rows = next_token_losses(self(batch), batch["labels"])
        mean_loss.update(losses.mean(), weight=len(losses))
        size = len(batch["index"])
        sums = torch.zeros(size, device=losses.device).index_add_(0, rows, losses)
        return {"losses": sums, "counts": torch.bincount(rows, minlength=size)}
