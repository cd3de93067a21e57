"""A checkpoint becomes a model folder with its own weights, if it is one of the same model."""

import json
import re
import shutil

import numpy as np
import pytest
import torch

from doctune.errors import ArtifactError
from doctune.inference.artifact import load_artifact
from doctune.inference.checkpoint import model_of_checkpoint
from doctune.inference.engine import load
from doctune.inference.graphs import load_net


def weights_of(folder, change=lambda tensor: tensor):
    """The weights of a model folder under the names of a checkpoint."""
    return {f"net.{name}": change(tensor) for name, tensor in load_net(load_artifact(folder)).state_dict().items()}


def save(path, weights):
    path.parent.mkdir(exist_ok=True, parents=True)
    torch.save({"state_dict": weights, "epoch": 3}, path)
    return path


@pytest.fixture
def calibrated(tiny_model, tmp_path):
    """A run whose model folder has a temperature, and something exported."""

    def make(task="classification"):
        folder = shutil.copytree(tiny_model(task), tmp_path / "run" / "model")
        (folder / "onnx").mkdir()
        (folder / "onnx/model.onnx").write_bytes(b"the net of other weights")
        settings = json.loads((folder / "doctune.json").read_text())
        (folder / "doctune.json").write_text(json.dumps(settings | {"temperature": 2.5}))
        return load_artifact(folder)

    return make


@pytest.mark.parametrize("task", ["classification", "hierarchical_classification"])
def test_the_folder_has_the_weights_of_the_checkpoint_and_no_temperature(calibrated, tmp_path, model_texts, task):
    artifact = calibrated(task)
    weights = weights_of(artifact.folder, lambda tensor: tensor * 0.5 if tensor.is_floating_point() else tensor)
    path = save(tmp_path / "run/checkpoints/last.ckpt", {**weights, "loss.weight": torch.ones(3)})
    made = model_of_checkpoint(artifact, path, tmp_path / "run/exported/last")
    assert made == load_artifact(tmp_path / "run/exported/last")
    assert (made.temperature, made.labels, made.chunks) == (1.0, artifact.labels, artifact.chunks)
    net = load_net(artifact)
    net.load_state_dict({name.removeprefix("net."): tensor for name, tensor in weights.items()})
    net.save_pretrained(artifact.folder)
    expected = load(artifact.folder, backend="torch").logits(model_texts)
    engine = load(made.folder)
    assert engine.backend == "torch"  # what was exported of other weights is not copied
    assert np.array_equal(engine.logits(model_texts), expected)


def test_the_run_is_left_as_it_was(calibrated, tmp_path):
    artifact = calibrated()
    before = {path.name: path.read_bytes() for path in artifact.folder.rglob("*") if path.is_file()}
    path = save(tmp_path / "last.ckpt", weights_of(artifact.folder))
    model_of_checkpoint(artifact, path, tmp_path / "exported")
    assert {path.name: path.read_bytes() for path in artifact.folder.rglob("*") if path.is_file()} == before


def test_an_earlier_folder_is_replaced(calibrated, tmp_path):
    artifact = calibrated()
    folder = tmp_path / "exported"
    (folder / "onnx").mkdir(parents=True)
    (folder / "onnx/model.onnx").write_bytes(b"old")
    model_of_checkpoint(artifact, save(tmp_path / "last.ckpt", weights_of(artifact.folder)), folder)
    assert not (folder / "onnx").exists()


def test_a_checkpoint_of_another_model_is_refused_and_writes_nothing(calibrated, tiny_model, tmp_path):
    artifact = calibrated()
    path = save(tmp_path / "other.ckpt", weights_of(tiny_model("hierarchical_classification")))
    with pytest.raises(ArtifactError) as refused:
        model_of_checkpoint(artifact, path, tmp_path / "exported")
    assert str(refused.value) == (
        f"{path} is a checkpoint of another model than {artifact.folder}: 40 tensors are missing or of another shape, "
        "44 are left over, classifier.bias among them. Give a checkpoint of the same run."
    )
    assert not (tmp_path / "exported").exists()


def test_a_head_of_another_size_is_another_model(calibrated, tmp_path):
    artifact = calibrated()
    weights = weights_of(artifact.folder)
    path = save(tmp_path / "other.ckpt", weights | {"net.classifier.bias": torch.zeros(4)})
    sentence = "1 tensors are missing or of another shape, 0 are left over, classifier.bias among them"
    with pytest.raises(ArtifactError, match=sentence):
        model_of_checkpoint(artifact, path, tmp_path / "exported")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (None, "FileNotFoundError"),
        (b"", "EOFError"),
        (b"no checkpoint at all", "UnpicklingError"),
        (b"PK\x03\x04 half a file", "RuntimeError"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_named(calibrated, tmp_path, content, kind):
    path = tmp_path / "last.ckpt"
    if content is not None:
        path.write_bytes(content)
    sentence = f"{path} cannot be read as a checkpoint ({kind}). Give a .ckpt file of the run's checkpoints/ folder."
    with pytest.raises(ArtifactError, match=f"^{re.escape(sentence)}$"):
        model_of_checkpoint(calibrated(), path, tmp_path / "exported")


@pytest.mark.parametrize("content", [{"weights": 1}, {"state_dict": [1, 2]}, [1]])
def test_a_file_of_torch_that_is_no_checkpoint_is_named(calibrated, tmp_path, content):
    path = tmp_path / "last.ckpt"
    torch.save(content, path)
    with pytest.raises(ArtifactError, match=r"last\.ckpt cannot be read as a checkpoint \(\w+Error\)\. Give a"):
        model_of_checkpoint(calibrated(), path, tmp_path / "exported")


def test_a_checkpoint_that_would_run_code_is_not_loaded(calibrated, tmp_path):
    class Trap:
        def __reduce__(self):
            return (print, ("code was run",))

    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": Trap()}, path)
    with pytest.raises(ArtifactError, match=r"cannot be read as a checkpoint \(UnpicklingError\)"):
        model_of_checkpoint(calibrated(), path, tmp_path / "exported")
