"""Several processes are in tests/integration/test_several_processes.py; here is one alone."""

import torch

from doctune.training.collectives import gathered, highest, is_main, is_together, summed, summed_numbers, whole


def test_one_process_alone_gets_back_what_it_gives():
    device, numbers = torch.device("cpu"), torch.tensor([1.5, 2.0])
    assert not is_together()
    assert is_main()
    assert summed(numbers) is numbers
    assert summed_numbers([1, 2.5], device) == [1, 2.5]
    assert highest(2, device) == 2
    assert gathered({"a": 1}) == [{"a": 1}]
    assert whole(numbers) is numbers
