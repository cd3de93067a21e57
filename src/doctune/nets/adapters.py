"""Low-rank adapters: the pretrained weights stay as they are, and small matrices beside them learn.

E. Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022, section 4.1: a layer W x gives
W x + (alpha / R) B A x, with A random and B zero at first, so that an adapted net begins as the net that it was. With
the base in four bits it is QLoRA, see `quantised`. The layers are peft's; they are put into the net in place, which
keeps its class, its `base_model` and the order of its parameters, by which rates and layers are found.

Shapes: A (R, in), B (out, R), W (out, in); R is the rank.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from doctune.errors import ConfigError
from doctune.nets.base_model import BaseModel, base_model_of
from doctune.nets.quantised import Quantisation, dequantised, is_quantised, quantise

if TYPE_CHECKING:
    from peft import LoraConfig

# peft keeps several adapters in one net; ours has one, under peft's usual name.
ADAPTER_NAME = "default"
ALL_LINEAR = "all-linear"
_ATTRIBUTE = "doctune_adapter"
_LINEAR = (nn.Linear, Conv1D)
# What peft calls the tasks whose heads transformers has.
_TASK_TYPES = {
    "ForSequenceClassification": "SEQ_CLS",
    "ForQuestionAnswering": "QUESTION_ANS",
    "ForCausalLM": "CAUSAL_LM",
}


@dataclass(frozen=True)
class AdapterSettings:
    """How a net is adapted.

    Attributes:
        rank: R, from 1.
        alpha: the adapters' output is multiplied by alpha / R.
        dropout: of what the adapters read, in [0, 1).
        target_modules: names of the linear layers that get one, or their last parts; "all-linear": all of them; None:
            those that peft has for the architecture, or all where it has none.
        quantisation: of the base; None leaves it as it is.
    """

    rank: int
    alpha: float
    dropout: float
    target_modules: Sequence[str] | str | None = None
    quantisation: Quantisation | None = None


@dataclass(frozen=True)
class Adapter:
    """What an adapted net is: peft's configuration, the model below, and whether that is in four bits."""

    config: LoraConfig
    base: BaseModel
    is_quantised: bool


def adapt(net: nn.Module, settings: AdapterSettings) -> Adapter:
    """Freeze the pretrained weights, and put adapters beside them; heads and poolers learn in full.

    Output embeddings are no head: those of a language model stay as they are.

    Args:
        net: from `from_pretrained`, or with such a net as its `base_model`; is changed.
        settings: how.

    Raises:
        ConfigError: no layer of the net has such a name, or there is nothing to quantise.
        ArtifactError: the folder that the net came from holds no weights.
    """
    from peft import LoraConfig

    inner = _transformer(net)
    heads = _heads(inner)
    layers = _linear_layers(inner, heads)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # peft multiplies by it and needs no whole number
        lora_dropout=settings.dropout,
        target_modules=_target_names(inner, layers, settings.target_modules),
        exclude_modules=_linear_names_in(inner, heads) or None,
        modules_to_save=heads or None,
        task_type=next((task for ending, task in _TASK_TYPES.items() if type(inner).__name__.endswith(ending)), None),
    )
    base = base_model_of(inner)
    config.base_model_name_or_path, config.revision = base.name, base.revision
    adapter = Adapter(config, base, settings.quantisation is not None)
    inject(inner, adapter, settings.quantisation)
    return adapter


def inject(inner: Any, adapter: Adapter, quantisation: Quantisation | None) -> None:
    """Put the adapters that a configuration of peft describes into a net, with random weights.

    Args:
        inner: a transformers model; is changed.
        adapter: what it becomes.
        quantisation: of the base; None leaves it as it is.

    Raises:
        ConfigError: there is nothing to quantise.
    """
    from peft import inject_adapter_in_model

    heads = adapter.config.modules_to_save or []
    if quantisation is not None:
        quantise(
            inner, [name for name, layer in _linear_layers(inner, heads) if type(layer) is nn.Linear], quantisation
        )
        inner.is_loaded_in_4bit = True  # by which peft chooses its layers
    was_training = inner.training
    inject_adapter_in_model(_without_heads(adapter.config), inner, ADAPTER_NAME)
    inner.train(was_training)
    for name in heads:
        inner.get_submodule(name).requires_grad_(True)
    setattr(inner, _ATTRIBUTE, adapter)


def adapter_of(net: nn.Module) -> Adapter | None:
    """What a net has been adapted by; None where it has not."""
    found: Adapter | None = getattr(_transformer(net), _ATTRIBUTE, None)
    return found


def saved_weights(net: nn.Module) -> dict[str, Tensor]:
    """The weights that are the net's own: of an adapted one those that learn, of others all."""
    if adapter_of(net) is None:
        return net.state_dict()
    return {name: weight.detach() for name, weight in net.named_parameters() if weight.requires_grad}


def merge(net: nn.Module) -> None:
    """Add the adapters to the weights beside them, so that the net is one without adapters; a base in four bits becomes
    one in single precision with the weights that it stood for. A net without adapters stays as it is."""
    if adapter_of(net) is None:
        return
    inner: Any = _transformer(net)
    for name, layer in [*_adapted_layers(inner)]:
        merged: Any = dequantised(layer.get_base_layer())
        merged.weight.data += layer.get_delta_weight(ADAPTER_NAME).to(merged.weight.dtype)
        inner.set_submodule(name, merged)
    for name, layer in [*inner.named_modules()]:
        if is_quantised(layer):
            inner.set_submodule(name, dequantised(layer))
    for attribute in (_ATTRIBUTE, "peft_config", "is_loaded_in_4bit"):
        if hasattr(inner, attribute):
            delattr(inner, attribute)


def _adapted_layers(net: nn.Module) -> Iterator[tuple[str, Any]]:
    from peft.tuners.lora import LoraLayer

    for name, layer in net.named_modules():
        if isinstance(layer, LoraLayer):
            yield name, layer


def _transformer(net: Any) -> Any:
    """The transformers model: the net itself, or the encoder of a net of our own."""
    return net if isinstance(net, PreTrainedModel) else getattr(net, "base_model", net)


def _heads(inner: PreTrainedModel) -> list[str]:
    """The names of what learns in full: what is beside the base model, and a pooler, which many bases do not bring."""
    base, outputs = inner.base_model, inner.get_output_embeddings()
    found = [f"{_prefix(inner)}pooler"] if getattr(base, "pooler", None) is not None else []
    if base is not inner:
        found += [
            name
            for name, child in inner.named_children()
            if child is not base and child is not outputs and any(True for _ in child.parameters())
        ]
    return found


def _prefix(inner: PreTrainedModel) -> str:
    """What the names of the base model's weights begin with."""
    return "" if inner.base_model is inner else f"{inner.base_model_prefix}."


def _linear_layers(inner: PreTrainedModel, heads: Sequence[str]) -> list[tuple[str, nn.Module]]:
    """The base model's linear layers by their names, without those of what learns in full."""
    beginnings = tuple(f"{head}." for head in heads)
    return [
        (name, layer)
        for name, layer in inner.named_modules()
        if isinstance(layer, _LINEAR) and name.startswith(_prefix(inner)) and not f"{name}.".startswith(beginnings)
    ]


def _linear_names_in(inner: PreTrainedModel, heads: Sequence[str]) -> list[str]:
    """The linear layers that peft must leave alone though their names may end as those of targets do."""
    beginnings = tuple(f"{head}." for head in heads)
    names = (name for name, layer in inner.named_modules() if isinstance(layer, _LINEAR))
    return [name for name in names if f"{name}.".startswith(beginnings)]


def _target_names(
    inner: PreTrainedModel, layers: Sequence[tuple[str, nn.Module]], wanted: Sequence[str] | str | None
) -> list[str]:
    """The names, or last parts of names, of the layers that get an adapter."""
    endings = sorted({name.rpartition(".")[2] for name, _ in layers})
    if wanted is None:
        wanted = _usual_targets(str(inner.config.model_type), endings)
    if isinstance(wanted, str):
        wanted = endings
    for target in wanted:
        if not any(name == target or name.endswith(f".{target}") for name, _ in layers):
            raise ConfigError(
                f"finetune.target_modules: a {type(inner).__name__} has no linear layer {target!r}. It has "
                f"{', '.join(endings)}; all of them: finetune.target_modules={ALL_LINEAR}."
            )
    return list(wanted)


def _usual_targets(model_type: str, endings: Sequence[str]) -> Sequence[str]:
    """Those that peft has for an architecture; all where it has none, or where the net's layers have other names."""
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as USUAL

    usual: Sequence[str] = USUAL.get(model_type, endings)
    return usual if set(usual) <= set(endings) else endings


def _without_heads(config: LoraConfig) -> LoraConfig:
    """The same for layers that are to learn, without heads, which peft would replace by copies of them."""
    ours = copy.copy(config)
    ours.modules_to_save, ours.inference_mode = None, False
    return ours
