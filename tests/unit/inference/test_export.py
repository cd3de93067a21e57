"""Exported nets are kept only where they agree with torch, and the folder says what was measured."""

import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest

from doctune.errors import ArtifactError
from doctune.inference import export as module
from doctune.inference.artifact import load_artifact
from doctune.inference.engine import load
from doctune.inference.examples import TextExamples
from doctune.inference.export import export
from doctune.inference.graphs import TorchNet, graphs
from doctune.inference.nets import OnnxNet
from doctune.labels import Labels
from doctune.nets.hierarchy import HierarchySettings, hierarchical_classifier

KINDS = [
    ("classification", "distilbert", {"model.onnx", "model_int8.onnx"}),
    ("classification", "roberta", {"model.onnx", "model_int8.onnx"}),
    ("question_answering", "bert", {"model.onnx", "model_int8.onnx"}),
    ("multi_task", "distilbert", {"model.onnx", "model_int8.onnx"}),
    ("hierarchical_classification", "distilbert", {"encoder.onnx", "encoder_int8.onnx", "pooling.onnx"}),
]


@pytest.fixture
def artifact(tiny_model, tmp_path):
    """A classifier that is not exported, in a folder that may be changed."""
    return load_artifact(shutil.copytree(tiny_model(), tmp_path / "model"))


def judged(artifact, texts):
    """Examples whose truth is what torch says."""
    truth = tuple(prediction.label for prediction in load(artifact.folder, backend="torch").predict(texts))
    return TextExamples("made texts", artifact.labels, texts, truth)


@pytest.mark.parametrize(("task", "kind", "names"), KINDS, ids=lambda value: value if isinstance(value, str) else "")
def test_every_net_is_there_and_the_quantised_one_is_taken(exported_model, task, kind, names):
    folder = exported_model(task, kind)
    assert {path.name for path in (folder / "onnx").iterdir()} == {*names, "export.json"}
    assert load(folder).backend == "int8"


@pytest.mark.parametrize(("task", "kind", "names"), KINDS, ids=lambda value: value if isinstance(value, str) else "")
def test_the_record_says_what_was_measured(exported_model, task, kind, names):
    folder = exported_model(task, kind)
    record = json.loads((folder / "onnx/export.json").read_text())
    assert list(record) == ["schema", "num_compared", "num_judged", "score_name", "nets", "refused"]
    num_examples = 6 if task == "question_answering" else 7
    assert (record["schema"], record["refused"]) == (1, None)
    assert (record["num_compared"], record["num_judged"]) == (num_examples, num_examples)
    torch, full = record["nets"][:2]
    assert list(torch) == ["backend", "size_mb", "examples_per_s", "max_difference", "agreement", "score"]
    assert [net["backend"] for net in record["nets"]] == ["torch", "onnx", "int8"]
    assert [net["max_difference"] is None for net in record["nets"]] == [True, False, True]
    assert full["max_difference"] <= 1e-3
    assert (torch["agreement"], full["agreement"]) == (1.0, 1.0)
    assert full["score"] == torch["score"]
    assert torch["size_mb"] == sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 1e6
    full_files = [folder / "onnx" / name for name in names if "int8" not in name]
    assert full["size_mb"] == pytest.approx(sum(path.stat().st_size for path in full_files) / 1e6)
    assert all(net["examples_per_s"] > 0 for net in record["nets"])


@pytest.mark.usefixtures("traced_before")
def test_a_score_is_measured_where_the_labels_are_known(artifact, model_texts):
    report = export(artifact, judged(artifact, model_texts))
    truth = report.nets[0]
    assert [(net.backend, net.score) for net in report.nets] == [("torch", truth.score), ("onnx", truth.score)]
    assert (report.score_name, report.num_judged, report.refused) == ("macro F1", 7, None)
    assert {path.name for path in (artifact.folder / "onnx").iterdir()} == {"model.onnx", "export.json"}


@pytest.mark.usefixtures("traced_before")
def test_int8_that_changes_answers_is_refused_and_full_precision_stays(artifact, model_examples, monkeypatch):
    monkeypatch.setattr(module, "MIN_AGREEMENT", 1.01)
    report = export(artifact, model_examples(artifact), int8=True)
    assert report.refused == (
        f"int8 is refused: {report.nets[2].agreement:.2%} of the answers are the same as torch's; at least 101% must "
        "be, and the score may fall by at most 0.5 points. Full precision stays."
    )
    assert json.loads((artifact.folder / "onnx/export.json").read_text())["refused"] == report.refused
    assert {path.name for path in (artifact.folder / "onnx").iterdir()} == {"model.onnx", "export.json"}
    assert load(artifact.folder).backend == "onnx"


@pytest.mark.usefixtures("traced_before")
def test_int8_that_costs_too_much_of_the_score_is_refused(artifact, model_texts, monkeypatch):
    monkeypatch.setattr(module, "MIN_AGREEMENT", 0.0)
    monkeypatch.setattr(module, "MAX_LOSS_OF_SCORE", -1.1)
    report = export(artifact, judged(artifact, model_texts), int8=True)
    torch, _, small = report.nets
    assert report.refused == (
        f"int8 is refused: {small.agreement:.2%} of the answers are the same as torch's, macro F1 {small.score:.4f} "
        f"instead of {torch.score:.4f}; at least 0% must be, and the score may fall by at most -110 points. Full "
        "precision stays."
    )
    assert not (artifact.folder / "onnx/model_int8.onnx").exists()


@pytest.mark.usefixtures("traced_before")
def test_nets_that_disagree_are_not_kept(artifact, model_examples, monkeypatch):
    monkeypatch.setattr(module, "MAX_DIFFERENCE", 0.0)
    with pytest.raises(
        ArtifactError,
        match=r"^The exported nets do not agree with torch: outputs differ by up to [1-9]\S*e-\d\d \(at most 0 is "
        r"allowed\), 100\.00% of the answers are the same \(all must be\)\. They were not kept; the model is run as "
        r"it was before\.$",
    ):
        export(artifact, model_examples(artifact), int8=True)
    assert not (artifact.folder / "onnx").exists()
    assert load(artifact.folder).backend == "torch"


@pytest.mark.usefixtures("traced_before")
def test_nets_of_other_weights_are_not_kept(artifact, model_examples):
    from safetensors.torch import load_file, save_file

    path = artifact.folder / "model.safetensors"
    weights = load_file(path)
    save_file(weights | {"classifier.bias": weights["classifier.bias"] + 0.25}, path, {"format": "pt"})
    with pytest.raises(ArtifactError, match=r"outputs differ by up to 0\.25 \(at most 0\.001 is allowed\), "):
        export(artifact, model_examples(artifact))
    assert not (artifact.folder / "onnx").exists()


@pytest.mark.usefixtures("traced_before")
def test_an_interrupted_export_leaves_nothing_new_and_what_was_there_before(artifact, model_examples, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_quantise", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export(artifact, model_examples(artifact), int8=True)
    assert not [*artifact.folder.glob("*onnx*")]

    export(artifact, model_examples(artifact))
    before = {path: path.stat().st_mtime_ns for path in (artifact.folder / "onnx").iterdir()}
    with pytest.raises(KeyboardInterrupt):
        export(artifact, model_examples(artifact), int8=True)
    assert {path: path.stat().st_mtime_ns for path in (artifact.folder / "onnx").iterdir()} == before
    assert [path.name for path in artifact.folder.glob("*onnx*")] == ["onnx"]
    assert load(artifact.folder).backend == "onnx"

    (artifact.folder / "onnx").rename(artifact.folder / ".onnx.before")  # as a kill at the worst moment leaves it
    with pytest.raises(KeyboardInterrupt):
        export(artifact, model_examples(artifact), int8=True)
    assert {path: path.stat().st_mtime_ns for path in (artifact.folder / "onnx").iterdir()} == before
    assert [path.name for path in artifact.folder.glob("*onnx*")] == ["onnx"]


@pytest.mark.parametrize("library", ["onnx", "onnxscript"])
def test_a_missing_library_is_named_and_an_earlier_export_stays(
    exported_model, tmp_path, model_examples, monkeypatch, library
):
    artifact = load_artifact(shutil.copytree(exported_model(), tmp_path / "model"))
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ArtifactError, match=rf"^Exporting needs {library}: pip install 'doctune\[export\]'\.$"):
        export(artifact, model_examples(artifact))
    assert (artifact.folder / "onnx/model.onnx").is_file()


@pytest.mark.parametrize("max_chunks", [1, 4])
def test_pooling_of_few_chunks_is_exported_too(tiny_model, tmp_path, max_chunks):
    """There are positions for no more chunks than that, fewer than others are traced with."""
    import transformers as hf

    folder = shutil.copytree(tiny_model("hierarchical_classification"), tmp_path / "model")
    net = hierarchical_classifier(
        hf.AutoConfig.from_pretrained(folder), Labels(("a", "b")), str(folder), HierarchySettings(max_chunks)
    )
    net.save_pretrained(folder)
    artifact = load_artifact(folder)
    assert artifact.chunks is not None
    pooling = graphs(replace(artifact, chunks=replace(artifact.chunks, max_chunks=max_chunks)))[1]
    module._export_graph(pooling, tmp_path / "pooling.onnx")
    onnx, torch = OnnxNet(tmp_path / "pooling.onnx"), TorchNet(pooling)
    for documents, chunks in ((1, 1), (5, max_chunks), (7, 1)):
        vectors = np.random.default_rng(0).normal(size=(documents, chunks, 32)).astype(np.float32)
        arrays = {"vectors": vectors, "is_real": np.ones((documents, chunks), bool)}
        assert np.abs(onnx(arrays)["logits"] - torch(arrays)["logits"]).max() < 1e-5
