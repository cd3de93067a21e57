"""An adapter in files: peft's own format, with heads among its tensors, and `base.json`, which tells its base apart.

`PeftModel.from_pretrained` of peft loads the folder onto the base model with a head of the same size.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers.utils import logging as transformers_logging

from doctune.errors import ArtifactError
from doctune.files import write_json, written_whole
from doctune.nets.adapters import ADAPTER_NAME, Adapter, adapter_of, inject, saved_weights
from doctune.nets.base_model import BaseModel, require_same_base
from doctune.nets.encoder_weights import pretrained_encoder, read_weights
from doctune.nets.quantised import Quantisation

SCHEMA = 1
CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
BASE_FILE = "base.json"
# What belongs to an adapter and not to the model that it is merged into.
FILES = (CONFIG_FILE, WEIGHTS_FILE, BASE_FILE)
# What peft calls the net that it wraps.
_WRAPPED = "base_model.model."


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter, and not a whole model."""
    return (folder / CONFIG_FILE).is_file()


def save_transformer(net: PreTrainedModel, folder: Path) -> None:
    """Write a transformers model as `save_pretrained` does; of an adapted one its adapters and heads only."""
    adapter = adapter_of(net)
    if adapter is None:
        net.save_pretrained(folder)
        return
    folder.mkdir(parents=True, exist_ok=True)
    net.config.save_pretrained(folder)
    with written_whole(folder / WEIGHTS_FILE) as temporary:
        save_file({name: weight.contiguous() for name, weight in _tensors(net).items()}, temporary, {"format": "pt"})
    write_json(folder / CONFIG_FILE, _as_json(adapter))
    quantised = {"type": "nf4", "double": True} if adapter.is_quantised else None
    write_json(folder / BASE_FILE, {"schema": SCHEMA, "sha256": adapter.base.sha256, "quantised": quantised})


def save_net(net: Any, folder: Path) -> None:
    """Write a transformers model, or a net of our own, whose encoder may be adapted, with all that it has besides."""
    if isinstance(net, PreTrainedModel):
        save_transformer(net, folder)
    else:
        net.save_pretrained(folder)


def load_transformer(folder: Path, auto_class: Any) -> PreTrainedModel:
    """What `save_transformer` wrote of an adapted net: base and adapters, on the CPU, in evaluation mode.

    Args:
        folder: the adapter's.
        auto_class: of transformers, for the task.

    Raises:
        ArtifactError: a library or the base is missing, the base is another one, or a file is missing or damaged.
    """
    _refuse_without_library("peft", folder)
    adapter = _read_adapter(folder)
    if adapter.is_quantised:
        _refuse_without_library("bitsandbytes", folder)
    require_same_base(adapter.base, folder)
    net, missing = _load_base(folder, adapter, auto_class)
    inject(net, adapter, Quantisation() if adapter.is_quantised else None)
    tensors, expected = read_weights(folder / WEIGHTS_FILE), _tensors(net)
    if {name: tensor.shape for name, tensor in tensors.items()} != {n: t.shape for n, t in expected.items()}:
        raise ArtifactError(
            f"{folder / WEIGHTS_FILE} does not hold the weights that {CONFIG_FILE} describes. "
            "Both are written together: copy the whole folder again."
        )
    for name, weight in expected.items():
        weight.copy_(tensors[name])
    if lacking := sorted(name for name in missing if _WRAPPED + name not in tensors and not name.startswith("pooler.")):
        raise ArtifactError(
            f"The base model {adapter.base.name} of {folder} lacks {len(lacking)} weights, among them {lacking[0]}."
        )
    return net.eval()


def load_encoder(folder: Path) -> PreTrainedModel:
    """The bare encoder of a folder, adapted where it holds an adapter, in evaluation mode and single precision.

    Raises:
        ArtifactError: it cannot be loaded.
    """
    return load_transformer(folder, AutoModel) if is_adapter(folder) else pretrained_encoder(str(folder))


def _tensors(net: PreTrainedModel) -> dict[str, Tensor]:
    """The weights of an adapted net under the names that peft gives them in a file."""
    return {
        _WRAPPED + name.replace(f".{ADAPTER_NAME}", "") if ".lora_" in name else _WRAPPED + name: weight
        for name, weight in saved_weights(net).items()
    }


def _as_json(adapter: Adapter) -> dict[str, Any]:
    """As `LoraConfig.save_pretrained` writes it, of which a set has no order; ours are the same for the same run."""
    settings = adapter.config.to_dict() | {"inference_mode": True}
    return {
        name: sorted(value) if isinstance(value, set | frozenset) else value for name, value in sorted(settings.items())
    }


def _read_adapter(folder: Path) -> Adapter:
    from peft import LoraConfig

    try:
        config = LoraConfig.from_pretrained(str(folder))
        read = json.loads((folder / BASE_FILE).read_text(encoding="utf-8"))
        if read["schema"] > SCHEMA:
            raise ValueError(f"it has schema {read['schema']}, and this doctune knows up to {SCHEMA}")
        base = BaseModel(str(config.base_model_name_or_path), config.revision, read["sha256"])
        return Adapter(config, base, read["quantised"] is not None)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{folder / CONFIG_FILE} and {BASE_FILE} cannot be used: {type(error).__name__}: {error}."
        ) from error


def _load_base(folder: Path, adapter: Adapter, auto_class: Any) -> tuple[PreTrainedModel, set[str]]:
    """The base with a new head of the adapter's size, and the names of the weights that it did not bring."""
    base = adapter.base
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # the load report lists the new head as missing
    transformers_logging.disable_progress_bar()
    try:
        net, report = auto_class.from_pretrained(
            base.name,
            config=AutoConfig.from_pretrained(folder),
            revision=base.revision or "main",
            dtype="auto" if adapter.is_quantised else "float32",
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
        return net, set(report["missing_keys"])
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ArtifactError(
            f"{folder} is an adapter of {base.name}, which cannot be loaded: {str(error).strip().splitlines()[0]} "
            "Where it can be, `doctune export RUN --merge` makes a model that needs no other."
        ) from error
    finally:
        transformers_logging.set_verbosity(verbosity)


def _refuse_without_library(name: str, folder: Path) -> None:
    from importlib.util import find_spec

    if find_spec(name) is None:
        raise ArtifactError(
            f"{folder} is an adapter, and loading it needs {name}: pip install 'doctune[lora]', or run "
            f"`doctune export {folder} --merge` where that is installed."
        )
