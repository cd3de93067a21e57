"""One label per long document, read in chunks.

Shapes: B documents, C chunks of all of them together, T tokens, D hidden, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor

from doctune.nets.hierarchy import HierarchicalClassifier, HierarchicalOutput, parameter_groups
from doctune.nets.losses import DocumentLoss
from doctune.training.modules.classification import ClassificationModule
from doctune.training.modules.finetuned import Batch
from doctune.training.optim import Optimisation


class HierarchicalModule(ClassificationModule):
    """Trains a hierarchical classifier; validation and test steps give `attention` (C,) beside the logits.

    Args:
        net: encoder, pooling and head.
        loss: what is minimised.
        optimisation: rates, decay and schedule; the pooling has a rate of its own.
        releases_layers: see `FineTunedModule`.
        f1_weights: see `ClassificationModule`.
    """

    net: HierarchicalClassifier  # type: ignore[assignment]  # it has what is used of a transformers model

    def __init__(
        self,
        net: HierarchicalClassifier,
        loss: DocumentLoss,
        optimisation: Optimisation,
        *,
        releases_layers: bool = False,
        f1_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(
            net,  # type: ignore[arg-type]  # of a transformers model only config and parameters are read
            loss,
            optimisation,
            releases_layers=releases_layers,
            f1_weights=f1_weights,
        )
        self.save_hyperparameters({"hierarchy": asdict(net.settings)})

    @property
    def stored(self) -> str:
        """What `predict_step` gives, in words for the cache's key."""
        return f"chunk {self.net.settings.vector}"

    def forward(  # type: ignore[override]  # documents have chunks
        self, input_ids: Tensor, attention_mask: Tensor, chunk_counts: Tensor
    ) -> HierarchicalOutput:
        """Logits (B, L), attention (C,) and vectors (C, D) of chunks (C, T), of which documents have so many (B,)."""
        output: HierarchicalOutput = self.net(input_ids, attention_mask, chunk_counts)
        return output

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """The encoder's vectors of the chunks, (C, D)."""
        vectors: Tensor = self(batch["input_ids"], batch["attention_mask"], batch["chunk_counts"]).vectors
        return vectors

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The optimiser's groups: encoder, pooling and head."""
        plan = self.optimisation
        return parameter_groups(
            self.net,
            lr=plan.lr,
            pooling_lr_multiplier=plan.pooling_lr_multiplier,
            head_lr_multiplier=plan.head_lr_multiplier,
            weight_decay=plan.weight_decay,
            layer_decay=plan.layer_decay,
            include_frozen=self._releases_layers,
        )

    def _outputs(self, batch: Batch) -> dict[str, Tensor]:
        if "vectors" in batch:
            output = self.net.forward_vectors(batch["vectors"], batch["chunk_counts"])
        else:
            output = self(batch["input_ids"], batch["attention_mask"], batch["chunk_counts"])
        return {"logits": output.logits.float(), "attention": output.attention}
