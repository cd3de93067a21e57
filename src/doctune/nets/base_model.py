"""The pretrained model below an adapter: where it is, and how another one in its place is noticed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel

from doctune.errors import ArtifactError

# What transformers loads from a folder, the first that is there: one file, or the index of several.
_WEIGHTS = (
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
)


@dataclass(frozen=True)
class BaseModel:
    """A model from the hub, or from a folder of this machine.

    Attributes:
        name: on the hub, or the absolute path of the folder.
        revision: the hub's commit; None for a folder.
        sha256: of the folder's weights, see `weights_sha256`; None for a model of the hub, which its commit fixes.
    """

    name: str
    revision: str | None
    sha256: str | None


def base_model_of(net: PreTrainedModel) -> BaseModel:
    """Where the weights of a net came from, as `from_pretrained` has noted it.

    Raises:
        ArtifactError: the folder holds no weights.
    """
    name = str(net.name_or_path)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return BaseModel(str(folder.resolve()), None, weights_sha256(folder))
    return BaseModel(name, getattr(net.config, "_commit_hash", None), None)


def weights_sha256(folder: Path) -> str:
    """What `sha256sum` says of the weights' file; of several, of all of them one after the other, in name order.

    Raises:
        ArtifactError: there are none.
    """
    digest = hashlib.sha256()
    for path in weight_files(folder):
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def weight_files(folder: Path) -> list[Path]:
    """The files that transformers loads the weights of a folder from, in name order.

    Raises:
        ArtifactError: there are none.
    """
    for single, index in _WEIGHTS:
        if (folder / single).is_file():
            return [folder / single]
        if (folder / index).is_file():
            names = json.loads((folder / index).read_text(encoding="utf-8"))["weight_map"].values()
            return [folder / name for name in sorted(set(names))]
    raise ArtifactError(f"{folder} has no weights: neither {_WEIGHTS[0][0]} nor {_WEIGHTS[1][0]} is in it.")


def require_same_base(base: BaseModel, adapter: Path) -> None:
    """Notice a base that is gone or has other weights; one of the hub is fixed by its commit and not asked here.

    Args:
        base: what the adapter was trained on.
        adapter: the adapter's folder, for the message.

    Raises:
        ArtifactError: it is gone or another one; the message says what to do.
    """
    if base.sha256 is None:
        return
    if not Path(base.name).is_dir():
        raise ArtifactError(
            f"{adapter} is an adapter of the model in {base.name}, and there is no such folder. Put that model back, "
            f"or write where it is now as base_model_name_or_path into {adapter / 'adapter_config.json'}."
        )
    found = weights_sha256(Path(base.name))
    if found != base.sha256:
        raise ArtifactError(
            f"{adapter} is an adapter of other weights than those in {base.name}: their SHA-256 is {found[:16]}…, and "
            f"it was trained on {base.sha256[:16]}…. Put the model that it was trained on back."
        )
