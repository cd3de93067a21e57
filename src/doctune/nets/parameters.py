"""Which weights learn, and at which rate."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from doctune.errors import ConfigError


def freeze(model: PreTrainedModel, strategy: str, layers: int | None = None) -> None:
    """Stop gradients of the encoder: none of it (full), all of it (head), or its first `layers` layers (partial).

    Raises:
        ConfigError: more layers than the encoder has.
    """
    if strategy == "head":
        model.base_model.requires_grad_(False)
    elif strategy == "partial":
        _freeze_first_layers(model, layers or 0)


def _freeze_first_layers(model: PreTrainedModel, layers: int) -> None:
    stack = encoder_layers(model)
    if layers > len(stack):
        raise ConfigError(f"finetune.layers={layers}: the encoder has {len(stack)} layers.")
    model.base_model.embeddings.requires_grad_(False)
    for layer in stack[:layers]:
        layer.requires_grad_(False)


def encoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The encoder's transformer layers, from the bottom: its longest list of modules."""
    stacks = [module for module in model.base_model.modules() if isinstance(module, nn.ModuleList)]
    return max(stacks, key=len)


def parameter_groups(
    model: PreTrainedModel, *, lr: float, head_lr_multiplier: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Optimiser groups named encoder and head, each with and without weight decay; frozen weights are left out.

    Biases and normalisation weights (all parameters with one dimension) are not decayed (Devlin et al. 2019, A.2).
    """
    rates = {"encoder": lr, "head": lr * head_lr_multiplier}
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for owner, parameter in _trainable(model):
        groups.setdefault((owner, parameter.ndim > 1), []).append(parameter)
    return [
        {
            "name": owner if decays else f"{owner}/no_decay",
            "params": parameters,
            "lr": rates[owner],
            "weight_decay": weight_decay if decays else 0.0,
        }
        for (owner, decays), parameters in groups.items()
    ]


def _trainable(model: PreTrainedModel) -> Iterator[tuple[str, nn.Parameter]]:
    encoder = {id(parameter) for parameter in model.base_model.parameters()}
    for parameter in model.parameters():
        if parameter.requires_grad:
            yield ("encoder" if id(parameter) in encoder else "head"), parameter


def parameter_counts(model: nn.Module) -> dict[str, int]:
    """How many parameters there are in all, and how many of them learn."""
    return {
        "total": sum(parameter.numel() for parameter in model.parameters()),
        "trainable": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
    }
