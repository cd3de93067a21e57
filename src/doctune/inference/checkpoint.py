"""A checkpoint of training -> a `model/` folder of its own, beside that of the run's best weights."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from doctune.errors import ArtifactError
from doctune.inference.artifact import Artifact
from doctune.inference.graphs import load_net
from doctune.nets.adapter_files import save_net
from doctune.nets.adapters import saved_weights

# The module that Lightning trains has its net under this name.
_PREFIX = "net."
# What torch and its content give for a file that is missing, damaged, or something else.
_UNREADABLE = (
    OSError,
    RuntimeError,
    EOFError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    pickle.UnpicklingError,
)


def model_of_checkpoint(artifact: Artifact, checkpoint: Path, folder: Path) -> Artifact:
    """Write the model folder of an artifact with the weights of a checkpoint of the same run.

    Its temperature is 1: the artifact's was chosen for other weights.

    Args:
        artifact: of the run.
        checkpoint: a `.ckpt` file of the run.
        folder: what is to be written; replaced where it is there.

    Raises:
        ArtifactError: the file is no checkpoint, or of another model.
    """
    weights = _net_weights(checkpoint)
    net = load_net(artifact)
    missing, unexpected = _differences(saved_weights(net), weights)
    if missing or unexpected:
        example = sorted(missing | unexpected)[0]
        raise ArtifactError(
            f"{checkpoint} is a checkpoint of another model than {artifact.folder}: {len(missing)} tensors are "
            f"missing or of another shape, {len(unexpected)} are left over, {example} among them. "
            "Give a checkpoint of the same run."
        )
    net.load_state_dict(weights, strict=False)  # the base of an adapted net is not in checkpoints
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(
        artifact.folder, folder, ignore=shutil.ignore_patterns("onnx", ".onnx.*", "merged", "*.safetensors")
    )
    save_net(net, folder)
    made = replace(artifact, folder=folder, temperature=1.0)
    made.save()
    return made


def _net_weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    try:
        state: Any = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
        return {name.removeprefix(_PREFIX): tensor for name, tensor in state.items() if name.startswith(_PREFIX)}
    except _UNREADABLE as error:  # torch's own words would advise to load a file that is not trusted
        raise ArtifactError(
            f"{checkpoint} cannot be read as a checkpoint ({type(error).__name__}). Give a .ckpt file of the run's "
            "checkpoints/ folder."
        ) from error


def _differences(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> tuple[set[str], set[str]]:
    """The names that are missing or of another shape, and those that are left over."""
    missing = {name for name, tensor in ours.items() if name not in theirs or theirs[name].shape != tensor.shape}
    return missing, theirs.keys() - ours.keys()
