"""The encoder's layers through torch.compile, which makes few kernels of many."""

from __future__ import annotations

import os
import shutil
import sys

from transformers import PreTrainedModel

from doctune.errors import ConfigError
from doctune.nets.parameters import encoder_layers


def compile_layers(net: PreTrainedModel) -> None:
    """Compile each layer at its first call, for batches of any size and length; layers that are alike share the result.

    Args:
        net: is changed; its weights keep their names.

    Raises:
        ConfigError: there is no compiler, which torch needs for kernels on a CPU and for what starts them on a GPU.
    """
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler) is None:
        raise ConfigError(
            f"trainer.compile=true needs the C++ compiler {compiler}, which is not on this machine: install it (on "
            "Debian and Ubuntu: apt install g++), name another in the environment variable CXX, or leave it out."
        )
    for layer in encoder_layers(net):
        layer.compile(dynamic=True)
