"""Dropout on a CPU at the price of a multiplication: PyTorch draws one number after the other there."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

# Each number that is dropped or kept draws a byte, as in T. Dao's FlashAttention-2.
_LEVELS = 256
_DRAWN_AT_ONCE = 8


class Dropout(nn.Dropout):
    """`torch.nn.Dropout` with other random numbers on a CPU; the default generator gives their seed."""

    def forward(self, input: Tensor) -> Tensor:
        """Of the same shape; what is kept is scaled by 1 / (1 - p)."""
        if not self.training or self.inplace or self.p in (0, 1) or input.device.type != "cpu":
            return super().forward(input)
        mask = torch.empty(input.shape)
        draw_kept(np.random.SFC64(drawn_seed()), self.p, mask)
        return input * mask.div_(1 - self.p).to(input.dtype)


def use_dropout(net: nn.Module) -> None:
    """Put `Dropout` in the place of PyTorch's in all of a net, which is changed."""
    for name, layer in [*net.named_modules(remove_duplicate=False)]:
        if type(layer) is nn.Dropout:
            net.set_submodule(name, Dropout(layer.p, layer.inplace).train(layer.training))


def drawn_seed() -> int:
    """A seed from the default generator, so that a run which is resumed drops the same."""
    return int(torch.randint(1 << 62, ()))


def draw_kept(random: np.random.SFC64, rate: float, mask: Tensor) -> None:
    """Write 1 for what is kept and 0 for what is dropped.

    The share is `rate` on average over calls: in each it is a multiple of 1/256, one of the two next to it by chance.

    Args:
        random: gives the numbers, and goes on.
        rate: dropped share, in [0, 1).
        mask: in single precision and contiguous; is written over.
    """
    count = mask.numel()
    numbers = random.random_raw(-(-count // _DRAWN_AT_ONCE) + 1)
    threshold = min(int(rate * _LEVELS + float(numbers[-1]) / 2.0**64), _LEVELS - 1)
    drawn = numbers.view(np.uint8)[:count]
    np.greater_equal(drawn, threshold, out=drawn.view(np.bool_))  # in place: new memory costs more than this
    mask.copy_(torch.from_numpy(drawn).view(mask.shape))
