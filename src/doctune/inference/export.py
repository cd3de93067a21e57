"""The nets of a model folder as ONNX files, kept only where they agree with torch on real documents.

Full precision must give the same numbers; quantised weights (int8, with activations quantised as they come) must give
nearly always the same label and cost nearly nothing of the score. B. Jacob et al., "Quantization and Training of Neural
Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018, describes the arithmetic.
"""

from __future__ import annotations

import logging
import shutil
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from doctune.errors import ArtifactError
from doctune.files import write_json, written_whole
from doctune.inference.artifact import Artifact
from doctune.inference.compared import largest_difference
from doctune.inference.engine import Engine
from doctune.inference.examples import Examples
from doctune.inference.nets import Net, onnx_files, open_nets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doctune.inference.graphs import Graph, TorchNet

# What exported nets must keep to.
MAX_DIFFERENCE = 1e-3
MIN_AGREEMENT = 0.99
MAX_LOSS_OF_SCORE = 0.005
# Real examples on which the nets are compared number by number and timed.
COMPARED_EXAMPLES = 200
# Sizes at which a net is traced; any other size is computed as well. No two are equal, and none is 1, so that the
# exporter takes none for a constant.
_TRACED_SIZES = {"batch": 2, "tokens": 9, "documents": 7, "chunks": 5}
# The first with attention as one operator.
_OPSET = 23
# Of the weights: embeddings and matrices. Attention multiplies activations alone.
_QUANTISED_OPERATORS = ["Gather", "Gemm", "MatMul"]
REPORT_FILE = "export.json"


@dataclass(frozen=True)
class Exported:
    """What one kind of net is like.

    Attributes:
        backend: "torch", "onnx" or "int8".
        size_mb: of its weights, in 10^6 bytes.
        examples_per_s: of the compared examples, one batch after the other.
        max_difference: between its outputs and torch's on the compared batches; None where it is not asked.
        agreement: share of the judged examples that get the same label or answer as torch gives, 0 to 1.
        score: on the judged examples, None where their labels are not known.
    """

    backend: str
    size_mb: float
    examples_per_s: float
    max_difference: float | None
    agreement: float
    score: float | None


@dataclass(frozen=True)
class ExportReport:
    """What came of an export: torch first, then what was exported; `refused` says why int8 was not kept."""

    folder: Path
    examples: str
    num_compared: int
    num_judged: int
    score_name: str
    nets: tuple[Exported, ...]
    refused: str | None


def export(artifact: Artifact, examples: Examples, *, int8: bool = False) -> ExportReport:
    """Write `onnx/` into the model folder, and `onnx/export.json` with what was measured.

    Args:
        artifact: of the model folder.
        examples: real ones, on which the nets are compared.
        int8: quantise, too.

    Raises:
        ArtifactError: the nets cannot be exported, or do not agree with torch; what was exported before stays then.
    """
    _refuse_without_libraries()
    with _in_place_of(artifact.folder / "onnx") as folder:
        judge = _Judge(artifact, examples, folder)
        _export_graphs(artifact, folder)
        full = judge.measure("onnx")
        _refuse_disagreement(full)
        nets, refused = [judge.torch, full], None
        if int8:
            _quantise(artifact, folder)
            small = judge.measure("int8")
            refused = _refusal(small, judge.torch, examples.score_name)
            nets.append(small)
        if refused is not None:
            for path in _quantised_files(artifact, folder).values():
                path.unlink()
        report = ExportReport(
            artifact.folder,
            examples.source,
            len(judge.compared),
            len(examples),
            examples.score_name,
            tuple(nets),
            refused,
        )
        # Without the paths of this machine: the folder is made to be carried to others.
        record = {name: value for name, value in asdict(report).items() if name not in ("folder", "examples")}
        write_json(folder / REPORT_FILE, {"schema": 1, **record})
    return report


@contextmanager
def _in_place_of(folder: Path) -> Iterator[Path]:
    """Give an empty folder beside this one; when the block ends well it takes its place, else it is removed."""
    made, before = folder.with_name(f".{folder.name}.part"), folder.with_name(f".{folder.name}.before")
    _tidy(folder, made, before)  # after a kill
    try:
        yield made
        if folder.exists():
            folder.rename(before)
        made.rename(folder)
    finally:
        _tidy(folder, made, before)


def _tidy(folder: Path, made: Path, before: Path) -> None:
    """Leave nothing but the folder: the new one, or where that has not taken its place, the one before."""
    if before.exists() and not folder.exists():
        before.rename(folder)
    for left in (made, before):
        shutil.rmtree(left, ignore_errors=True)


class _Judge:
    """Measures nets on real examples, beside those of torch.

    Attributes:
        compared: the examples on which nets are timed and compared number by number.
        torch: what the torch nets are like.
    """

    def __init__(self, artifact: Artifact, examples: Examples, onnx: Path) -> None:
        self._artifact = artifact
        self._onnx = onnx
        self._examples = examples
        self.compared = examples.spread(COMPARED_EXAMPLES)
        self._torch_nets = open_nets(artifact, "torch")
        engine = Engine(artifact, self._torch_nets, "torch")
        self._truth = examples.answers(engine)
        self.torch = self._measured(engine, self._truth, None)

    def measure(self, backend: str) -> Exported:
        """What the nets of a backend are like; only those of full precision must give the same numbers."""
        nets = open_nets(self._artifact, backend, self._onnx)
        engine = Engine(self._artifact, nets, backend)
        answers = self._examples.answers(engine)
        return self._measured(engine, answers, self._max_difference(nets) if backend == "onnx" else None)

    def _measured(self, engine: Engine, answers: Sequence[str], max_difference: float | None) -> Exported:
        begun = time.perf_counter()  # of a second round: the first is slower
        self.compared.answers(engine)
        seconds = time.perf_counter() - begun
        return Exported(
            engine.backend,
            self._megabytes(engine.backend),
            len(self.compared) / seconds,
            max_difference,
            float(np.mean([one == other for one, other in zip(answers, self._truth, strict=True)])),
            self._examples.score(answers),
        )

    def _megabytes(self, backend: str) -> float:
        from doctune.nets.adapter_files import is_adapter

        if backend == "torch" and is_adapter(self._artifact.folder):  # which does not have all that is computed with
            modules = [cast("TorchNet", net).module for net in self._torch_nets.values()]
            return sum({id(each): each.nbytes for module in modules for each in module.parameters()}.values()) / 1e6
        torch_files = self._artifact.folder.glob("*.safetensors")
        paths = torch_files if backend == "torch" else onnx_files(self._artifact, backend, self._onnx).values()
        return sum(path.stat().st_size for path in paths) / 1e6

    def _max_difference(self, nets: Mapping[str, Net]) -> float:
        return largest_difference(self._artifact, self._torch_nets, nets, self.compared)


def _refuse_disagreement(full: Exported) -> None:
    if full.max_difference is not None and full.max_difference <= MAX_DIFFERENCE and full.agreement == 1:
        return
    raise ArtifactError(
        f"The exported nets do not agree with torch: outputs differ by up to {full.max_difference:.2g} (at most "
        f"{MAX_DIFFERENCE:g} is allowed), {full.agreement:.2%} of the answers are the same (all must be). They were "
        "not kept; the model is run as it was before."
    )


def _refusal(small: Exported, truth: Exported, score_name: str) -> str | None:
    """Why quantised nets are not good enough; None where they are."""
    lost = 0.0 if small.score is None or truth.score is None else truth.score - small.score
    if small.agreement >= MIN_AGREEMENT and lost <= MAX_LOSS_OF_SCORE:
        return None
    scores = "" if small.score is None else f", {score_name} {small.score:.4f} instead of {truth.score:.4f}"
    return (
        f"int8 is refused: {small.agreement:.2%} of the answers are the same as torch's{scores}; at least "
        f"{MIN_AGREEMENT:.0%} must be, and the score may fall by at most {100 * MAX_LOSS_OF_SCORE:g} points. Full "
        "precision stays."
    )


def _export_graphs(artifact: Artifact, onnx: Path) -> None:
    from doctune.inference.graphs import graphs

    paths = onnx_files(artifact, "onnx", onnx)
    for graph in graphs(artifact):
        _export_graph(graph, paths[graph.name])


def _export_graph(graph: Graph, path: Path) -> None:
    """Trace a net and write it, with every named dimension free."""
    import torch

    sizes = {axis: min(size, graph.largest.get(axis, size)) for axis, size in _TRACED_SIZES.items()}
    example = tuple(
        _example(name, [sizes[axis] if isinstance(axis, str) else axis for axis in axes])
        for name, axes in graph.inputs.items()
    )
    free = tuple(
        {place: torch.export.Dim.DYNAMIC for place, axis in enumerate(axes) if isinstance(axis, str)}
        for axes in graph.inputs.values()
    )
    with _quiet():
        program = torch.onnx.export(
            graph.module,
            example,
            dynamo=True,
            input_names=[*graph.inputs],
            output_names=[*graph.outputs],
            dynamic_shapes=free,
            opset_version=_OPSET,
            verbose=False,
        )
    assert program is not None, "the exporter gives a program where it is not told to write a file"
    with written_whole(path) as temporary:
        program.save(str(temporary))


def _example(name: str, sizes: Sequence[int]) -> Any:
    """An array to trace with; the second half of the first row is padding."""
    import torch

    if name == "vectors":
        return torch.randn(*sizes)
    array = torch.ones(*sizes, dtype=torch.bool if name == "is_real" else torch.long)
    if name in ("is_real", "attention_mask"):
        array[0, (array.shape[1] + 1) // 2 :] = 0
    return array


def _quantised_files(artifact: Artifact, onnx: Path) -> dict[str, Path]:
    """The files of the nets that are quantised."""
    full = onnx_files(artifact, "onnx", onnx)
    return {name: path for name, path in onnx_files(artifact, "int8", onnx).items() if path != full[name]}


def _quantise(artifact: Artifact, folder: Path) -> None:
    """Weights in eight bits, with a scale for each output channel.

    They are signed and use seven of the bits: so their products with unsigned activations are fastest where the
    processor has an instruction for them (VNNI), and cannot overflow where it has none.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    full = onnx_files(artifact, "onnx", folder)
    for name, path in _quantised_files(artifact, folder).items():
        model = onnx.load(full[name])
        del model.graph.value_info[:]  # the exporter's shapes do not fit what quantisation puts in their place
        with written_whole(path) as temporary, _quiet():
            quantize_dynamic(
                model,
                temporary,
                op_types_to_quantize=_QUANTISED_OPERATORS,
                per_channel=True,
                reduce_range=True,
                weight_type=QuantType.QInt8,
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """What exporter and quantiser say to their developers is kept from users."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _refuse_without_libraries() -> None:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
        import torch  # noqa: F401
    except ModuleNotFoundError as error:
        raise ArtifactError(f"Exporting needs {error.name}: pip install 'doctune[export]'.") from error
