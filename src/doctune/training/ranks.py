"""Several processes on one machine that train one model: who each is, and how Lightning is told.

doctune starts them itself, see `processes`. Lightning's own launchers do not fit a Hydra application: the one of
`strategy=ddp` starts the command line again, in a multirun that is the whole sweep, once per process; the one of
`ddp_spawn` ends with `fit`, and what callbacks have learnt stays behind in processes that are gone.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import torch
from lightning import LightningModule
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

from doctune.errors import ConfigError
from doctune.training import config as schema
from doctune.training.processes import Rank


class LocalRanks(ClusterEnvironment):
    """Tells Lightning what a `Rank` says; nothing is left in the environment of the process, where a later run of a
    sweep would find it."""

    def __init__(self, rank: Rank) -> None:
        self._rank = rank

    @property
    def creates_processes_externally(self) -> bool:
        """They run already."""
        return True

    @property
    def main_address(self) -> str:
        """This machine."""
        return "127.0.0.1"

    @property
    def main_port(self) -> int:
        """Where the processes meet."""
        return self._rank.port

    @staticmethod
    def detect() -> bool:
        """It is never guessed."""
        return False

    def world_size(self) -> int:
        """How many processes there are."""
        return self._rank.count

    def set_world_size(self, size: int) -> None:
        """It is known."""

    def global_rank(self) -> int:
        """Which one this is."""
        return self._rank.number

    def set_global_rank(self, rank: int) -> None:
        """It is known."""

    def local_rank(self) -> int:
        """Which GPU is its own."""
        return self._rank.number

    def node_rank(self) -> int:
        """There is one machine."""
        return 0


def shared_training(trainer: schema.TrainerConfig, *, releases_layers: bool, rank: Rank) -> dict[str, Any]:
    """What Lightning's Trainer is given so that this process trains with the others.

    Args:
        trainer: the wish for more than one device.
        releases_layers: some weights will learn later.
        rank: which process this is.
    """
    return {
        "accelerator": "gpu" if uses_gpus(trainer) else "cpu",
        "devices": rank.count,
        "strategy": _strategy(trainer.strategy, releases_layers, rank),
    }


def uses_gpus(trainer: schema.TrainerConfig) -> bool:
    """Whether the devices are GPUs; processes work together on those of NVIDIA or AMD, else on the CPU."""
    return trainer.accelerator != "cpu" and torch.cuda.is_available()


def require_devices(trainer: schema.TrainerConfig) -> None:
    """Refuse what this machine does not have, before anything is loaded.

    Raises:
        ConfigError: a GPU is asked for, and there is none, or more of them than there are.
    """
    if trainer.accelerator == "gpu" and not torch.cuda.is_available():
        raise ConfigError("trainer.accelerator=gpu: there is no CUDA device here. Use trainer=auto or trainer=cpu.")
    if uses_gpus(trainer) and trainer.devices > torch.cuda.device_count():
        raise ConfigError(
            f"trainer.devices={trainer.devices} is more than the {torch.cuda.device_count()} GPUs that are here. Ask "
            "for fewer, or for processes on the CPU: trainer.accelerator=cpu."
        )


def take_share_of_cores(count: int) -> None:
    """Let this process compute with as many threads as are its own, unless the user has said how many."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // count))


def load_weights(module: LightningModule, weights: dict[str, Any]) -> None:
    """Give a module the weights of a checkpoint, also where it has a share of each only."""
    set_model_state_dict(module, weights, options=StateDictOptions(full_state_dict=True))


def shard(net: nn.Module, layers: Iterable[nn.Module], mesh: DeviceMesh) -> None:
    """Share the weights of a net among the processes of a mesh: a layer's are together only while it computes (FSDP2).

    Args:
        net: with its weights; all processes have the same.
        layers: its largest parts, one gathered after the other.
        mesh: of one dimension.
    """
    for part in (*layers, net):
        fully_shard(part, mesh=mesh)


def _strategy(name: str, releases_layers: bool, rank: Rank) -> Strategy:
    if name == "fsdp":
        sharded = ModelParallelStrategy(
            data_parallel_size=rank.count, tensor_parallel_size=1, save_distributed_checkpoint=False
        )
        sharded.cluster_environment = LocalRanks(rank)
        return sharded
    # Buffers never change, and processes have different numbers of validation batches, where DDP would send them too.
    return DDPStrategy(
        cluster_environment=LocalRanks(rank), broadcast_buffers=False, find_unused_parameters=releases_layers
    )
