"""What all modules have: an encoder with a head, its optimiser, and a gap between validation and training loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from torchmetrics import MeanMetric, Metric, MetricCollection
from transformers import PreTrainedModel

from doctune.nets.adapters import saved_weights
from doctune.nets.parameters import encoder_layers, parameter_groups
from doctune.training.optim import Optimisation, adamw, with_schedule
from doctune.training.ranks import shard

Batch = dict[str, Any]
_NET = "net."


class FineTunedModule(LightningModule):
    """Trains an encoder with a head.

    `val/loss`, `test/loss` and `train_eval/loss` are plain cross entropy in evaluation mode, the mean over examples,
    so that runs with different weights can be compared. `gap` is `val/loss` minus `train_eval/loss`.

    Args:
        net: encoder and head.
        optimisation: rates, decay and schedule.
        releases_layers: layers that are frozen now will learn later; the optimiser holds them from the start.
    """

    val_metrics: Metric | MetricCollection

    def __init__(self, net: PreTrainedModel, optimisation: Optimisation, *, releases_layers: bool = False) -> None:
        super().__init__()
        self.net = net
        self.optimisation = optimisation
        self._releases_layers = releases_layers
        self.val_loss, self.train_eval_loss, self.test_loss = MeanMetric(), MeanMetric(), MeanMetric()

    def configure_model(self) -> None:
        """Share the weights among the processes where Lightning's strategy has a mesh of them."""
        if self.device_mesh is not None and not isinstance(self.net, FSDPModule):
            shard(self.net, encoder_layers(self.net), self.device_mesh["data_parallel"])

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]  # for all overloads
        """What a checkpoint holds: of an adapted net its adapters and heads, since its base is to be had again."""
        state: dict[str, Any] = super().state_dict(*args, **kwargs)
        own = self._own_names()
        return {name: value for name, value in state.items() if not name.startswith(_NET) or name in own}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Take up what `state_dict` gave; the base of an adapted net stays as it is.

        Raises:
            RuntimeError: anything of it is missing, or something else is there.
        """
        found = super().load_state_dict(state_dict, strict=False, assign=assign)
        own = self._own_names()
        missing = [name for name in found.missing_keys if not name.startswith(_NET) or name in own]
        if strict and (missing or found.unexpected_keys):
            raise RuntimeError(
                f"The state of another {type(self).__name__}: {missing} are missing, {found.unexpected_keys} are left "
                "over."
            )
        return found

    def _own_names(self) -> set[str]:
        return {f"{_NET}{name}" for name in saved_weights(self.net)}

    def on_validation_epoch_start(self) -> None:
        """Forget what a validation that was cut short has left in the metrics."""
        for metric in (self.val_loss, self.train_eval_loss, self.val_metrics):
            metric.reset()

    def on_validation_epoch_end(self) -> None:
        """Log both losses of the gap, and the gap."""
        sample = self.train_eval_loss.compute()
        self.log_dict({"train_eval/loss": sample, "gap": self.val_loss.compute() - sample})

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW over encoder and head groups, with a per-step schedule."""
        plan = self.optimisation
        return with_schedule(adamw(self.parameter_groups(), plan.fused, plan.paged), plan)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The optimiser's groups: encoder and head."""
        plan = self.optimisation
        return parameter_groups(
            self.net,
            lr=plan.lr,
            head_lr_multiplier=plan.head_lr_multiplier,
            weight_decay=plan.weight_decay,
            layer_decay=plan.layer_decay,
            include_frozen=self._releases_layers,
        )

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by norm; Lightning refuses to do so for any fused optimiser in mixed precision, also without a scale."""
        if gradient_clip_val:
            clip_grad_norm_((p for group in optimizer.param_groups for p in group["params"]), gradient_clip_val)

    def _trained(self, objective: Tensor, cross_entropy: Tensor, batch: Batch) -> dict[str, Tensor]:
        """What a training step gives.

        `loss` is the micro-batch's share of the effective batch's mean, times the accumulation. The others are what
        callbacks add up: the `objective` (weighted, smoothed) and the plain `cross_entropy`, sums over the
        examples.
        """
        return {
            "loss": objective * batch["scale"],
            "objective": objective.detach(),
            "cross_entropy": cross_entropy.detach(),
        }
