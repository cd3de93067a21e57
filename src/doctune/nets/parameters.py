"""Which weights learn, and at which rate."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from doctune.errors import ConfigError
from doctune.nets.quantised import num_weights


def freeze(model: PreTrainedModel, strategy: str, layers: int | None = None) -> None:
    """Stop the encoder's gradients: none (full), all (head, gradual), or those of its first `layers` layers (partial).

    After gradual, `release` lets it learn again from the top downwards.

    Raises:
        ConfigError: more layers than the encoder has.
    """
    if strategy in ("head", "gradual"):
        model.base_model.requires_grad_(False)
    elif strategy == "partial":
        _freeze_first_layers(model, layers or 0)


def _freeze_first_layers(model: PreTrainedModel, layers: int) -> None:
    stack = encoder_layers(model)
    if layers > len(stack):
        raise ConfigError(f"finetune.layers={layers}: the encoder has {len(stack)} layers.")
    embeddings = getattr(model.base_model, "embeddings", None)  # of a decoder they are spread over its module
    (embeddings or model.get_input_embeddings()).requires_grad_(False)
    for layer in stack[:layers]:
        layer.requires_grad_(False)


def encoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The encoder's transformer layers, from the bottom: its longest list of modules."""
    stacks = [module for module in model.base_model.modules() if isinstance(module, nn.ModuleList)]
    return max(stacks, key=len)


def num_released_layers(epoch: int, num_layers: int) -> int:
    """How many of the encoder's layers learn in an epoch (Howard & Ruder 2018, section 3.3).

    Epoch 0 is the head's alone; each later one releases a layer more, until all learn.
    """
    return min(epoch, num_layers)


def release(model: PreTrainedModel, num_layers: int) -> None:
    """Let the head and the encoder's `num_layers` highest layers learn, and nothing else.

    A pooler or final normalisation learns with the highest layer, the embeddings with the lowest.
    """
    lowest = len(encoder_layers(model)) - num_layers + 1
    for parameter, depth in _depths(model):
        # Depth 1 is the lowest layer, 0 the embeddings.
        parameter.requires_grad_(depth >= lowest or lowest <= 1)


def parameter_groups(
    model: PreTrainedModel,
    *,
    lr: float,
    head_lr_multiplier: float,
    weight_decay: float,
    layer_decay: float | None = None,
    include_frozen: bool = False,
) -> list[dict[str, Any]]:
    """Optimiser groups named encoder and head, each with and without weight decay.

    Biases and normalisation weights (all parameters with one dimension) are not decayed (Devlin et al. 2019, A.2).

    Args:
        lr: the encoder's rate; with `layer_decay`, the rate of its highest layer.
        head_lr_multiplier: the head's rate over `lr`.
        weight_decay: decay of the weights that are decayed.
        layer_decay: each layer's rate over that of the layer above it, in (0, 1] (Howard & Ruder 2018, 3.2; Clark et
            al. 2020, appendix B). The groups are then encoder/embeddings, encoder/layer_00, … from the bottom, and
            head; a pooler or final normalisation is in the highest layer's. None: one rate for the whole encoder.
        include_frozen: also group what is frozen now, because `release` will let it learn later; an optimiser leaves
            parameters without gradients alone.
    """
    num_layers = len(encoder_layers(model))
    groups: dict[str, dict[str, Any]] = {}
    for parameter, depth in _depths(model):
        if not (parameter.requires_grad or include_frozen):
            continue
        if depth > num_layers:
            owner, rate = "head", lr * head_lr_multiplier
        elif layer_decay is None:
            owner, rate = "encoder", lr
        else:
            owner = f"encoder/layer_{depth - 1:02d}" if depth else "encoder/embeddings"
            rate = lr * layer_decay ** (num_layers - depth)
        decays = parameter.ndim > 1
        name = owner if decays else f"{owner}/no_decay"
        new = {"name": name, "params": [], "lr": rate, "weight_decay": weight_decay if decays else 0.0}
        groups.setdefault(name, new)["params"].append(parameter)
    return list(groups.values())


def _depths(model: PreTrainedModel) -> Iterator[tuple[nn.Parameter, int]]:
    """Each parameter with its place from the bottom: 0 embeddings, 1 … n the encoder's layers, n + 1 the head.

    What an encoder registers before its layers feeds them, as embeddings do; what it registers after them reads the
    highest one.
    """
    layers = encoder_layers(model)
    in_layer = {id(parameter): depth for depth, layer in enumerate(layers, 1) for parameter in layer.parameters()}
    depths: dict[int, int] = {}
    outside = 0
    for parameter in model.base_model.parameters():
        if id(parameter) in in_layer:
            outside = len(layers)
        depths[id(parameter)] = in_layer.get(id(parameter), outside)
    for parameter in model.parameters():
        yield parameter, depths.get(id(parameter), len(layers) + 1)


def parameter_counts(model: nn.Module) -> dict[str, int]:
    """How many parameters there are in all, and how many of them learn."""
    return {
        "total": sum(num_weights(parameter) for parameter in model.parameters()),
        "trainable": sum(num_weights(parameter) for parameter in model.parameters() if parameter.requires_grad),
    }
