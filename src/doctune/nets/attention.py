"""Attention with dropout on a CPU, block by block.

PyTorch's fused attention has no dropout on a CPU: with it, scores, probabilities and mask of all heads are written to
memory and kept for the backward pass, which for 512 tokens takes longer than all else in a small encoder. Here a block
of heads that fits the cache is computed at a time, and the backward pass computes its probabilities and draws its mask
a second time, as in T. Dao et al., "FlashAttention: Fast and Memory-Efficient Exact Attention with IO-Awareness",
NeurIPS 2022, algorithm 4. The function is the same; the random numbers are others.

Shapes: B rows, H heads, T tokens, D numbers of a head, N = B * H, n heads of a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from doctune.nets.dropout import draw_kept, drawn_seed

# What transformers knows the function by.
NAME = "dropout_in_blocks"
# Scores in a block at most, in single precision 4 MB.
_BLOCK = 1 << 20


def use_dropout_in_blocks(net: PreTrainedModel) -> None:
    """Let a net whose attention is PyTorch's compute it here where that has no fused kernel; others stay as they are.

    Args:
        net: is changed. What it computes in evaluation mode, on a GPU or without attention dropout is not.
    """
    if net.config._attn_implementation == "sdpa":
        net.set_attn_implementation(NAME)


def dropout_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, rate: float, scale: float
) -> Tensor:
    """softmax(scale * query key^T + mask), of which dropout takes a share, times value: (B, H, T, D).

    The default generator gives the seed of what is dropped, see `dropout.draw_kept`.

    Args:
        query: (B, H, T, D), as the two others on a CPU.
        key: (B, H, T, D).
        value: (B, H, T, D).
        mask: (B, 1, T, T), true where a query may look at a key, or what is added to the score; None: everywhere.
        rate: dropped share of the probabilities, in (0, 1).
        scale: of the scores.
    """
    bias = None
    if mask is not None:
        lowest = torch.finfo(torch.float32).min
        bias = torch.zeros(mask.shape).masked_fill_(~mask, lowest) if mask.dtype == torch.bool else mask.float()
    flat = (each.reshape(-1, *each.shape[2:]) for each in (query, key, value))
    attended: Tensor = _DropoutAttention.apply(*flat, bias, query.shape[1], rate, scale, drawn_seed())
    return attended.view(query.shape)


class _DropoutAttention(torch.autograd.Function):
    """Of query, key and value, (N, T, D) each."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, num_heads: int, rate: float,
        scale: float, seed: int,
    ) -> Tensor:  # fmt: skip
        attended = torch.empty_like(query)
        random = np.random.SFC64(seed)
        with torch.autocast("cpu", enabled=False):
            query = query * scale
            for heads, rows, (probabilities, mask) in _blocks(query, key, num_heads, buffers=2):
                _write_probabilities(query[heads], key[heads], bias, rows, probabilities)
                draw_kept(random, rate, mask)
                probabilities *= mask
                torch.bmm(probabilities.to(value.dtype), value[heads], out=attended[heads])
            attended /= 1 - rate
        ctx.save_for_backward(query, key, value, bias, attended)
        ctx.num_heads, ctx.rate, ctx.scale, ctx.seed = num_heads, rate, scale, seed
        return attended

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, bias, attended = ctx.saved_tensors
        found = [torch.empty_like(each) for each in (query, key, value)]
        of_query, of_key, of_value = found
        random = np.random.SFC64(ctx.seed)
        # Each probability's gradient, less their mean under the probabilities, which is what the softmax takes off.
        means = (gradient * attended).sum(-1, keepdim=True, dtype=torch.float32)
        gradient = gradient / (1 - ctx.rate)
        blocks = _blocks(query, key, ctx.num_heads, buffers=3)
        for heads, rows, (probabilities, mask, of_scores) in blocks:
            _write_probabilities(query[heads], key[heads], bias, rows, probabilities)
            draw_kept(random, ctx.rate, mask)
            _write_product(gradient[heads], value[heads], of_scores)
            of_scores.mul_(mask).sub_(means[heads]).mul_(probabilities)
            dropped_out = mask.mul_(probabilities).to(value.dtype)
            torch.bmm(dropped_out.transpose(1, 2), gradient[heads], out=of_value[heads])
            outward = of_scores.to(query.dtype)
            torch.bmm(outward, key[heads], out=of_query[heads])
            torch.bmm(outward.transpose(1, 2), query[heads], out=of_key[heads])
        of_query *= ctx.scale
        return (*found, *[None] * 5)


def _blocks(
    query: Tensor, key: Tensor, num_heads: int, *, buffers: int
) -> Iterator[tuple[slice, slice, tuple[Tensor, ...]]]:
    """The heads of each block, the rows that they are of, and memory to work in, (n, T, T) each in single precision.

    A block is some heads of one row, or all heads of some rows. The memory is the same for all blocks: what is new
    would first have to come from the system, page by page.
    """
    per_head = query.shape[1] * key.shape[1]
    rows = max(1, _BLOCK // (per_head * num_heads))
    step = rows * num_heads if rows > 1 else max(1, min(num_heads, _BLOCK // per_head))
    memory = torch.empty(buffers, min(step, len(query)), query.shape[1], key.shape[1])
    for row in range(0, len(query) // num_heads, rows):
        last = min((row + rows) * num_heads, len(query))
        for start in range(row * num_heads, last, step):
            heads = slice(start, min(start + step, last))
            yield heads, slice(row, row + rows), memory[:, : heads.stop - start].unbind()


def _write_probabilities(query: Tensor, key: Tensor, bias: Tensor | None, rows: slice, probabilities: Tensor) -> None:
    """Those before dropout."""
    _write_product(query, key, probabilities)
    if bias is not None:
        probabilities.unflatten(0, (len(bias[rows]), -1)).add_(bias[rows])
    torch.softmax(probabilities, dim=-1, out=probabilities)


def _write_product(left: Tensor, right: Tensor, product: Tensor) -> None:
    """left right^T, from (n, T, D) each, in single precision."""
    if left.dtype == product.dtype:
        torch.bmm(left, right.transpose(1, 2), out=product)
    else:
        product.copy_(torch.bmm(left, right.transpose(1, 2)))


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """As transformers asks for it; PyTorch's where dropout costs nothing, or what is wanted is more than it knows."""
    is_causal = rest.get("is_causal")
    if (
        dropout == 0
        or query.device.type != "cpu"
        or (getattr(module, "is_causal", True) if is_causal is None else is_causal)
        or rest.get("position_bias") is not None
        or not query.shape == key.shape == value.shape
        or (attention_mask is not None and attention_mask.shape != (len(query), 1, query.shape[2], key.shape[2]))
    ):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **rest
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return dropout_attention(query, key, value, attention_mask, dropout, scale).transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
