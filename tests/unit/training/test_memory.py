"""Which errors say that memory ran out, and what is tried next."""

import errno
import weakref

import pytest
import torch

from doctune.training.memory import fitting_micro_batch, is_out_of_memory, release_memory, smaller_micro_batch


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        MemoryError(),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("MPS backend out of memory (MPS allocated: 5.00 GB, other allocations: 1.00 GB)."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_an_error_that_says_so_is_out_of_memory(error):
    assert is_out_of_memory(error)


def test_what_torch_says_when_an_allocation_fails_is_understood():
    with pytest.raises(RuntimeError) as failed:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(failed.value)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        OSError(errno.ENOSPC, "No space left on device"),
        OSError("out of memory"),
        ValueError("out of memory"),
        KeyboardInterrupt(),
    ],
)
def test_other_errors_are_not(error):
    assert not is_out_of_memory(error)


@pytest.mark.parametrize(
    ("micro", "effective", "smaller"),
    [
        (32, 32, 16),
        (16, 48, 8),
        (12, 12, 6),
        (9, 9, 3),  # 4 does not divide 9
        (5, 10, 2),
        (7, 7, 1),
        (2, 6, 1),
        (1, 8, None),
    ],
)
def test_the_next_micro_batch_is_at_most_half_and_divides_the_effective_batch(micro, effective, smaller):
    assert smaller_micro_batch(micro, effective) == smaller


def test_memory_is_given_back_without_a_gpu_too():
    class Held:
        pass

    held = Held()
    held.itself = held  # only the collector finds it
    watch = weakref.ref(held)
    del held
    release_memory()
    assert watch() is None


def test_a_micro_batch_that_once_fitted_fits_the_share_of_another_number_of_devices():
    assert fitting_micro_batch(4, 16) == 4
    assert fitting_micro_batch(4, 6) == 3
    assert fitting_micro_batch(4, 1) == 1
