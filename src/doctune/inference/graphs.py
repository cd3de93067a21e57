"""The torch nets of a model folder, each with the names of what it takes and gives: what is run, and what is exported.

Shapes: B texts or windows, C chunks, N chunks of the longest document, T tokens, D hidden, L labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)
from transformers.utils import logging as transformers_logging

from doctune.errors import ArtifactError
from doctune.inference.artifact import GENERATION, Artifact
from doctune.inference.nets import Arrays, target_outputs
from doctune.nets.adapter_files import is_adapter, load_transformer
from doctune.nets.adapters import merge
from doctune.nets.hierarchy import HierarchicalClassifier
from doctune.nets.multi_task import MultiTaskClassifier


@dataclass(frozen=True)
class Graph:
    """A net as it is exported.

    Attributes:
        name: of its file.
        module: takes `inputs` in their order and gives `outputs`, one tensor or a tuple.
        inputs: each with the names of its dimensions; those of one name are equally long.
        outputs: their names.
        largest: the size up to which a dimension can be computed, for those that have one.
    """

    name: str
    module: nn.Module
    inputs: Mapping[str, tuple[str | int, ...]]
    outputs: tuple[str, ...]
    largest: Mapping[str, int] = field(default_factory=dict)


class TorchNet:
    """A graph as a function of arrays.

    Attributes:
        module: what computes.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.module = graph.module

    def __call__(self, arrays: Arrays) -> dict[str, NDArray[np.float32]]:
        """Compute; arrays that the net does not take are passed over."""
        given = [torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in self._graph.inputs]
        with torch.inference_mode():
            found = self._graph.module(*given)
        tensors = found if isinstance(found, tuple) else (found,)
        return {name: each.float().numpy() for name, each in zip(self._graph.outputs, tensors, strict=True)}


def graphs(artifact: Artifact, *, merged: bool = True) -> list[Graph]:
    """The nets of an artifact, in evaluation mode.

    Args:
        artifact: of the model folder.
        merged: add adapters to the weights beside them, which is faster; False: keep them as they were trained.

    Raises:
        ArtifactError: its weights cannot be loaded.
    """
    net = load_net(artifact)
    if merged:
        merge(net)
    return _GRAPHS[artifact.task](net, artifact.folder)


def load_net(artifact: Artifact) -> Any:
    """The net of an artifact as training has it, in evaluation mode; adapters are beside their base.

    Raises:
        ArtifactError: its weights cannot be loaded.
    """
    if artifact.task == "hierarchical_classification":
        return HierarchicalClassifier.from_folder(artifact.folder)
    if artifact.task == "multi_task":
        return MultiTaskClassifier.from_folder(artifact.folder)
    heads = {
        "classification": AutoModelForSequenceClassification,
        "question_answering": AutoModelForQuestionAnswering,
        GENERATION: AutoModelForCausalLM,
    }
    return _pretrained(heads[artifact.task], artifact.folder)


class _Classifier(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits: Tensor = self.net(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


class _Targets(nn.Module):
    def __init__(self, net: MultiTaskClassifier) -> None:
        super().__init__()
        self.net = net

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        logits: tuple[Tensor, ...] = self.net(input_ids, attention_mask).logits
        return logits


class _Reader(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        output = self.net(input_ids=input_ids, attention_mask=attention_mask)
        return output.start_logits, output.end_logits


class _TypedReader(_Reader):
    def forward(  # type: ignore[override]
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor
    ) -> tuple[Tensor, Tensor]:
        output = self.net(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        return output.start_logits, output.end_logits


class _ChunkEncoder(nn.Module):
    def __init__(self, net: HierarchicalClassifier) -> None:
        super().__init__()
        self.net = net

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.net.encode(input_ids, attention_mask)


class _ChunkPooling(nn.Module):
    def __init__(self, net: HierarchicalClassifier) -> None:
        super().__init__()
        self.net = net

    def forward(self, vectors: Tensor, is_real: Tensor) -> tuple[Tensor, Tensor]:
        return self.net.pool(vectors, is_real)


_TOKENS: Mapping[str, tuple[str | int, ...]] = {
    "input_ids": ("batch", "tokens"),
    "attention_mask": ("batch", "tokens"),
}


def _classification(net: nn.Module, folder: Path) -> list[Graph]:
    return [Graph("model", _Classifier(net), _TOKENS, ("logits",))]


def _question_answering(net: nn.Module, folder: Path) -> list[Graph]:
    outputs = ("start_logits", "end_logits")
    if _has_token_types(folder):
        inputs = {**_TOKENS, "token_type_ids": ("batch", "tokens")}
        return [Graph("model", _TypedReader(net), inputs, outputs)]
    return [Graph("model", _Reader(net), _TOKENS, outputs)]


def _has_token_types(folder: Path) -> bool:
    """Whether the tokenizer says that its model was trained with them."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ArtifactError(f"{folder / 'tokenizer.json'} cannot be loaded: {reason}") from error
    return "token_type_ids" in tokenizer.model_input_names


def _hierarchical(net: HierarchicalClassifier, folder: Path) -> list[Graph]:
    width, most = int(net.config.hidden_size), net.settings.max_chunks
    chunks = "chunks" if most > 1 else 1
    pooled: Mapping[str, tuple[str | int, ...]] = {
        "vectors": ("documents", chunks, width),
        "is_real": ("documents", chunks),
    }
    return [
        Graph("encoder", _ChunkEncoder(net), _TOKENS, ("vectors",)),
        Graph("pooling", _ChunkPooling(net), pooled, ("logits", "attention"), {"chunks": most}),
    ]


def _multi_task(net: MultiTaskClassifier, folder: Path) -> list[Graph]:
    return [Graph("model", _Targets(net), _TOKENS, target_outputs(len(net.targets)))]


_GRAPHS: Mapping[str, Callable[[Any, Path], list[Graph]]] = {
    "classification": _classification,
    "question_answering": _question_answering,
    "hierarchical_classification": _hierarchical,
    "multi_task": _multi_task,
}


def _pretrained(auto_class: Any, folder: Path) -> nn.Module:
    if is_adapter(folder):
        return load_transformer(folder, auto_class)
    transformers_logging.disable_progress_bar()
    try:
        net: nn.Module = auto_class.from_pretrained(folder, dtype="float32", local_files_only=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ArtifactError(f"The model in {folder} cannot be loaded: {str(error).splitlines()[0]}") from error
    return net.eval()
