"""The nets of a model folder as functions of arrays, run by ONNX Runtime or by torch.

A net takes named arrays and gives named arrays; which ones is written where they are made, in `graphs`. So everything
above it (windows, batches, decoding) is the same for both backends, and neither is loaded before it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doctune.errors import ArtifactError
from doctune.inference.artifact import Artifact, refuse_writer

Arrays = Mapping[str, NDArray[Any]]
Net = Callable[[Arrays], dict[str, NDArray[np.float32]]]

# The nets of each task, by name: `onnx/<name>.onnx` where they are exported.
NETS: Mapping[str, tuple[str, ...]] = {
    "classification": ("model",),
    "question_answering": ("model",),
    "hierarchical_classification": ("encoder", "pooling"),
    "multi_task": ("model",),
}
# Where each backend finds its nets; the first one that is there is taken where none is named.
BACKENDS = ("int8", "onnx", "torch")
# What ONNX Runtime puts together although the parts, an addition and a layer norm, take less time on a CPU.
_SLOWER = ("SkipLayerNormFusion",)
_SUFFIXES = {"onnx": ".onnx", "int8": "_int8.onnx"}


def open_nets(artifact: Artifact, backend: str, onnx: Path | None = None) -> dict[str, Net]:
    """The nets of an artifact, by name.

    Args:
        artifact: of the model folder.
        backend: one of `BACKENDS`.
        onnx: where exported nets are; None: `onnx/` in the model folder.

    Raises:
        ArtifactError: the backend has none there, or they cannot be loaded.
    """
    if backend == "torch":
        return _torch_nets(artifact)
    return {name: OnnxNet(path) for name, path in onnx_files(artifact, backend, onnx).items()}


def choose_backend(artifact: Artifact, wanted: str | None = None) -> str:
    """The backend asked for, or the fastest one for which the folder has nets.

    Raises:
        ArtifactError: no such task or backend, or the folder has not been exported for it.
    """
    refuse_writer(artifact)
    if artifact.task not in NETS:
        raise ArtifactError(
            f"{artifact.folder} was trained for {artifact.task}, which is not run from a model folder; these are: "
            f"{', '.join(NETS)}."
        )
    if wanted is None:
        return next(backend for backend in BACKENDS if _has(artifact, backend))
    if wanted not in BACKENDS:
        raise ArtifactError(f"backend={wanted!r} is not a choice: {', '.join(BACKENDS)}.")
    if not _has(artifact, wanted):
        option = " --int8" if wanted == "int8" else ""
        raise ArtifactError(
            f"{artifact.folder} has no {wanted} net. Make it with `doctune export {artifact.folder}{option}`."
        )
    return wanted


def target_outputs(num_targets: int) -> tuple[str, ...]:
    """What a net with several heads calls their logits, (B, L) each, in the order of the targets."""
    return tuple(f"logits_{number}" for number in range(num_targets))


def onnx_files(artifact: Artifact, backend: str, onnx: Path | None = None) -> dict[str, Path]:
    """Where the ONNX files of each net are, or are to be: in `onnx`, by default that of the model folder.

    Pooling over chunks is too small to be quantised.
    """
    folder = onnx or artifact.folder / "onnx"
    return {
        name: folder / f"{name}{_SUFFIXES['onnx' if name == 'pooling' else backend]}" for name in NETS[artifact.task]
    }


class OnnxNet:
    """A net that ONNX Runtime runs on the CPU.

    Args:
        path: the ONNX file.
        threads: None: one for each core.

    Raises:
        ArtifactError: the file cannot be loaded.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=_SLOWER
            )
        except Exception as error:  # ONNX Runtime raises classes of its own that share no base but this one
            raise ArtifactError(f"{path} cannot be loaded: {str(error).splitlines()[0]}") from error
        self._inputs = {each.name for each in self._session.get_inputs()}
        self._outputs = [each.name for each in self._session.get_outputs()]

    def __call__(self, arrays: Arrays) -> dict[str, NDArray[np.float32]]:
        """Compute; arrays that the net does not take are passed over."""
        given = {name: array for name, array in arrays.items() if name in self._inputs}
        return dict(zip(self._outputs, self._session.run(self._outputs, given), strict=True))


def _has(artifact: Artifact, backend: str) -> bool:
    return backend == "torch" or all(path.is_file() for path in onnx_files(artifact, backend).values())


def _torch_nets(artifact: Artifact) -> dict[str, Net]:
    try:
        from doctune.inference.graphs import TorchNet, graphs
    except ModuleNotFoundError as error:
        raise ArtifactError(
            f"Without an ONNX net, {artifact.folder} needs {error.name}: pip install 'doctune[train]', or run "
            f"`doctune export {artifact.folder}` where doctune[export] is installed."
        ) from error
    return {graph.name: TorchNet(graph) for graph in graphs(artifact)}
