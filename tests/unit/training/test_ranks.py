import pytest
import torch

from doctune.errors import ConfigError
from doctune.training import build
from doctune.training.config import TrainerConfig
from doctune.training.processes import Rank
from doctune.training.ranks import LocalRanks, require_devices, uses_gpus


@pytest.fixture
def gpus(monkeypatch):
    """A function: so many GPUs are here."""

    def pretend(count):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return pretend


def test_a_gpu_that_is_not_there_is_said(gpus):
    gpus(0)
    with pytest.raises(ConfigError, match=r"there is no CUDA device here\. Use trainer=auto or trainer=cpu"):
        require_devices(TrainerConfig(accelerator="gpu"))


def test_more_gpus_than_there_are_is_said(gpus):
    gpus(2)
    with pytest.raises(ConfigError) as raised:
        require_devices(TrainerConfig(strategy="ddp", devices=3))
    assert str(raised.value) == (
        "trainer.devices=3 is more than the 2 GPUs that are here. Ask for fewer, or for processes on the CPU: "
        "trainer.accelerator=cpu."
    )
    require_devices(TrainerConfig(strategy="ddp", devices=2))


def test_a_cpu_may_have_any_number_of_processes(gpus):
    gpus(2)
    require_devices(TrainerConfig(strategy="ddp", devices=3, accelerator="cpu"))
    gpus(0)
    require_devices(TrainerConfig(strategy="ddp", devices=3))
    assert not uses_gpus(TrainerConfig(strategy="ddp", devices=3))


def test_lightning_is_told_who_the_process_is_without_the_environment():
    ranks = LocalRanks(Rank(1, 4, 12345))
    assert (ranks.global_rank(), ranks.local_rank(), ranks.node_rank(), ranks.world_size()) == (1, 1, 0, 4)
    assert (ranks.main_address, ranks.main_port, ranks.creates_processes_externally) == ("127.0.0.1", 12345, True)


def test_one_process_alone_has_the_forward_passes_of_one_of_several(compose):
    config = build.alone(compose("trainer=ddp", "trainer.effective_batch_size=16", "trainer.micro_batch_size=2"))
    assert (config.trainer.devices, config.trainer.strategy) == (1, "auto")
    assert (config.trainer.device_batch_size(), config.trainer.accumulation()) == (2, 8)
