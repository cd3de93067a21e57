"""Running out of memory, and the smaller micro-batch to go on with."""

from __future__ import annotations

import errno
import gc

import torch

_SENTENCES = (
    "out of memory",
    "can't allocate memory",
    "DefaultCPUAllocator",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is no memory left: on CUDA, MPS or in torch's or Python's own allocator."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(sentence in str(error) for sentence in _SENTENCES)


def smaller_micro_batch(micro: int, effective: int) -> int | None:
    """The largest divisor of the effective batch that is at most half of the micro-batch; None below one document."""
    return fitting_micro_batch(micro // 2, effective)


def fitting_micro_batch(largest: int, effective: int) -> int | None:
    """The largest divisor of the effective batch that is at most `largest`; None below one document."""
    return next((size for size in range(largest, 0, -1) if effective % size == 0), None)


def release_memory() -> None:
    """Give back what no longer has an owner; call it outside of the `except` block, which still owns the frames."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
