"""An adapter merged into its base: a model folder that needs neither the base nor peft.

Merged and unmerged nets are compared on real examples, and a merged one that disagrees is not kept.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from doctune.errors import ArtifactError
from doctune.inference.artifact import GENERATION, Artifact
from doctune.inference.compared import largest_difference, largest_logit_difference
from doctune.inference.examples import Examples, WrittenExamples
from doctune.inference.graphs import TorchNet, graphs, load_net
from doctune.nets.adapter_files import FILES, is_adapter, save_net
from doctune.nets.adapters import adapter_of, merge

FOLDER = "merged"
# How far outputs of merged and unmerged nets may be apart, and on how many examples that is measured.
MAX_DIFFERENCE = 1e-3
COMPARED_EXAMPLES = 200
COMPARED_TEXTS = 50  # a language model is larger


@dataclass(frozen=True)
class Merged:
    """What came of a merge.

    Attributes:
        folder: what was written.
        size_mb: of its weights, in 10^6 bytes.
        max_difference: between the outputs of the merged and the unmerged nets.
        num_compared: on how many examples.
        examples: what these are.
        was_quantised: whether the base was in four bits, and its dequantised weights were written.
        is_writer: whether it is a language model.
    """

    folder: Path
    size_mb: float
    max_difference: float
    num_compared: int
    examples: str
    was_quantised: bool
    is_writer: bool


def merge_model(artifact: Artifact, examples: Examples | WrittenExamples) -> Merged:
    """Write `merged/` into the model folder: all weights, with what the adapter has learnt.

    Args:
        artifact: of a model folder that holds an adapter.
        examples: real ones, on which merged and unmerged nets are compared; written ones for a language model.

    Raises:
        ArtifactError: the folder holds no adapter, it or its base cannot be loaded, or the nets do not agree; nothing
            is left then.
    """
    if isinstance(examples, WrittenExamples):
        texts = examples.spread(COMPARED_TEXTS)
        return _merge(
            artifact, examples.source, len(texts), lambda made: largest_logit_difference(artifact, made, texts)
        )
    compared = examples.spread(COMPARED_EXAMPLES)

    def difference(made: Artifact) -> float:
        before, after = (
            {graph.name: TorchNet(graph) for graph in graphs(each, merged=False)} for each in (artifact, made)
        )
        return largest_difference(artifact, before, after, compared)

    return _merge(artifact, examples.source, len(compared), difference)


def _merge(artifact: Artifact, source: str, num_compared: int, difference_to: Callable[[Artifact], float]) -> Merged:
    if not is_adapter(artifact.folder):
        raise ArtifactError(
            f"{artifact.folder} holds no adapter: its weights are all there, and nothing is to be merged."
        )
    folder = artifact.folder / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    try:
        made, was_quantised = _write_merged(artifact, folder)
        difference = difference_to(made)
        _refuse_disagreement(difference)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 1e6
    return Merged(folder, size, difference, num_compared, source, was_quantised, artifact.task == GENERATION)


def _write_merged(artifact: Artifact, folder: Path) -> tuple[Artifact, bool]:
    """The merged model's folder, and whether the base was in four bits."""
    net = load_net(artifact)
    adapter = adapter_of(net)
    assert adapter is not None, "the folder holds an adapter"
    merge(net)
    shutil.copytree(artifact.folder, folder, ignore=shutil.ignore_patterns("onnx", FOLDER, "*.safetensors", *FILES))
    save_net(net, folder)
    made = replace(artifact, folder=folder)
    made.save()
    return made, adapter.is_quantised


def _refuse_disagreement(difference: float) -> None:
    if difference <= MAX_DIFFERENCE:
        return
    raise ArtifactError(
        f"The merged model does not agree with the unmerged one: outputs differ by up to {difference:.2g} (at most "
        f"{MAX_DIFFERENCE:g} is allowed). Nothing was kept; the adapter is as it was."
    )
