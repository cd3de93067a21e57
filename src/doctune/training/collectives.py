"""What the processes of a run tell each other; in a run of one process each function gives back what it is given.

Every process must call the same function at the same place, else those that did wait for those that did not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

T = TypeVar("T")


def is_together() -> bool:
    """Whether other processes work on the same run."""
    return dist.is_available() and dist.is_initialized()


def is_main() -> bool:
    """Whether this process is the one that writes files."""
    return not is_together() or dist.get_rank() == 0


def summed(tensor: Tensor) -> Tensor:
    """The sum over all processes, of the same shape; on a GPU nothing waits for it."""
    if not is_together():
        return tensor
    total = tensor.clone()
    dist.all_reduce(total)
    return total


def summed_numbers(values: Sequence[float], device: torch.device) -> list[float]:
    """The sum over all processes of each of some numbers.

    Args:
        device: that of the model: NCCL reaches no other.
    """
    if not is_together():
        return [*values]
    return [*summed(torch.tensor(values, dtype=torch.float64, device=device)).tolist()]


def highest(value: int, device: torch.device) -> int:
    """The largest value that any process has; `device` is that of the model."""
    if not is_together():
        return value
    found = torch.tensor(value, device=device)
    dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return int(found)


def gathered(share: T) -> list[T]:
    """The shares of all processes in the order of their ranks, for the main one; the others get an empty list."""
    if not is_together():
        return [share]
    shares: list[T] = [share] * dist.get_world_size() if is_main() else []
    dist.gather_object(share, shares if is_main() else None)
    return shares


def whole(tensor: Tensor) -> Tensor:
    """A tensor that the processes share as one of each process's own."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
