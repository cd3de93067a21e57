"""Linear layers in four bits: NF4 with double quantisation, by bitsandbytes.

T. Dettmers et al., "QLoRA: Efficient Finetuning of Quantized LLMs", NeurIPS 2023, sections 3 and 4: weights in blocks
of 64, each weight the nearest of 16 quantiles of the normal distribution, the blocks' scales in 8 bits.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from doctune.errors import ConfigError

log = logging.getLogger(__name__)

# Weights that share a scale. bitsandbytes counts them through all rows when it quantises, but within each row when it
# multiplies on processors with AVX-512: where rows are no whole blocks, it takes wrong scales (seen with 0.50.2).
BLOCK = 64


@dataclass(frozen=True)
class Quantisation:
    """Where weights are quantised, and the type in which they are multiplied."""

    device: str = "cpu"
    compute_dtype: torch.dtype = torch.float32


def quantise(net: nn.Module, names: Sequence[str], quantisation: Quantisation) -> None:
    """Put four-bit layers, frozen, in the place of linear ones, one after the other; all else is in single precision.

    Of a net whose weights are as they lie in their file (`dtype="auto"`), no more than one layer is ever held in single
    precision: safetensors maps the file, and what is mapped takes no memory of its own. Layers whose number of inputs
    is no multiple of `BLOCK` stay in single precision; the log has how many.

    Args:
        net: is changed.
        names: of the linear layers.
        quantisation: where and how.

    Raises:
        ConfigError: there is none.
    """
    layers: dict[str, Any] = {name: net.get_submodule(name) for name in names}
    in_blocks = [name for name, layer in layers.items() if layer.in_features % BLOCK == 0]
    if not in_blocks:
        raise ConfigError(
            f"finetune=qlora: a {type(net).__name__} has no linear layer that could be quantised{_whose_rows(names)}. "
            "Use finetune=lora."
        )
    if len(in_blocks) < len(names):
        log.warning(
            "finetune=qlora: %d of %d linear layers stay in full precision: the number of their inputs is no multiple "
            "of %d.",
            len(names) - len(in_blocks),
            len(names),
            BLOCK,
        )
    for name in in_blocks:
        net.set_submodule(name, _quantised(layers.pop(name), quantisation))
    for weight in [*net.parameters(), *net.buffers()]:
        if weight.is_floating_point():
            # A copy even of what is in single precision: a view of the file would keep all of it mapped.
            weight.data = weight.data.to(torch.float32, copy=True)


def _whose_rows(names: Sequence[str]) -> str:
    return f": the inputs of its {len(names)} are no multiple of {BLOCK}" if names else ""


def dequantised(layer: Any) -> nn.Module:
    """A linear layer in single precision with the weights that a four-bit one stands for; any other as it is."""
    if not is_quantised(layer):
        whole: nn.Module = layer
        return whole
    from bitsandbytes.functional import dequantize_4bit

    values: Tensor = dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
    made = nn.Linear(values.shape[1], values.shape[0], bias=layer.bias is not None, device=values.device)
    made.weight.data = values
    if layer.bias is not None:
        made.bias.data = layer.bias.data.float()
    return made.train(layer.training)


def is_quantised(layer: nn.Module) -> bool:
    """Whether it is a four-bit layer; bitsandbytes need not be installed."""
    return getattr(getattr(layer, "weight", None), "quant_state", None) is not None


def num_weights(parameter: nn.Parameter) -> int:
    """How many weights a parameter stands for; a four-bit one holds two in each byte."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else int(torch.Size(state.shape).numel())


def _quantised(layer: Any, quantisation: Quantisation) -> nn.Module:
    from bitsandbytes.nn.modules import LinearNF4, Params4bit

    made = LinearNF4(
        layer.in_features,
        layer.out_features,
        bias=layer.bias is not None,
        compute_dtype=quantisation.compute_dtype,
        device="meta",
    )
    # The type of what is quantised is the one that it is multiplied in; the four bits are the same for each.
    made.weight = Params4bit(layer.weight.data.float(), requires_grad=False, quant_type="nf4", module=made)
    made.bias = layer.bias
    # On processors with bfloat16 instructions it would pack its weights for inference the first time that it is asked
    # in evaluation mode, and compute otherwise from then on: a run would no longer be the same after a validation.
    made.support_avx512bf16_for_cpu = False
    ready: nn.Module = made.to(quantisation.device).train(layer.training)
    return ready
