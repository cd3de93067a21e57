"""ONNX Runtime and torch compute the same from the same arrays, whatever their sizes."""

import json
import re
import shutil

import numpy as np
import pytest

from doctune.errors import ArtifactError
from doctune.inference.artifact import load_artifact
from doctune.inference.nets import BACKENDS, choose_backend, onnx_files, open_nets

# Batch and tokens: one, those that were traced, others, and the longest that the encoders have positions for.
SIZES = [(1, 1), (1, 64), (2, 9), (3, 2), (5, 17), (17, 64)]
MAX_DIFFERENCE = 1e-3


def tokens(batch, length, seed=0):
    """Token ids (B, T), the later rows padded more, and half of each with another type."""
    random = np.random.default_rng(seed)
    lengths = np.maximum(1, length - np.arange(batch))
    mask = (np.arange(length)[None, :] < lengths[:, None]).astype(np.int64)
    ids = np.where(mask == 1, random.integers(5, 60, (batch, length)), 1)
    types = np.broadcast_to(np.arange(length) > length // 2, ids.shape).astype(np.int64)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def both(folder, name="model"):
    artifact = load_artifact(folder)
    return [open_nets(artifact, backend)[name] for backend in ("onnx", "torch")]


def assert_same(found, expected, *shapes):
    assert [*found] == [*expected]
    assert [array.shape for array in found.values()] == [*shapes]
    for name, array in found.items():
        assert array.dtype == np.float32
        assert np.isfinite(array).all()
        assert np.abs(array - expected[name]).max() < MAX_DIFFERENCE


@pytest.mark.parametrize("kind", ["distilbert", "roberta"])
def test_a_classifier_computes_the_same_at_every_size(exported_model, kind):
    onnx, torch = both(exported_model("classification", kind))
    for batch, length in SIZES:
        arrays = tokens(batch, length)
        assert_same(onnx(arrays), torch(arrays), (batch, 3))


def test_a_reader_computes_the_same_at_every_size_and_sees_token_types(exported_model):
    onnx, torch = both(exported_model("question_answering", "bert"))
    for batch, length in SIZES:
        arrays = tokens(batch, length)
        assert_same(onnx(arrays), torch(arrays), (batch, length), (batch, length))
    other = onnx(arrays | {"token_type_ids": np.zeros_like(arrays["token_type_ids"])})
    assert np.abs(other["start_logits"] - onnx(arrays)["start_logits"]).max() > 0.01


def test_a_chunk_encoder_computes_the_same_at_every_size(exported_model):
    onnx, torch = both(exported_model("hierarchical_classification"), "encoder")
    for batch, length in SIZES:
        arrays = tokens(batch, length)
        assert_same(onnx(arrays), torch(arrays), (batch, 32))


@pytest.mark.parametrize(("documents", "chunks"), [(1, 1), (1, 6), (3, 1), (4, 2), (7, 5), (9, 6)])
def test_pooling_computes_the_same_for_any_number_of_documents_and_chunks(exported_model, documents, chunks):
    onnx, torch = both(exported_model("hierarchical_classification"), "pooling")
    counts = np.maximum(1, chunks - np.arange(documents))
    arrays = {
        "vectors": np.random.default_rng(0).normal(size=(documents, chunks, 32)).astype(np.float32),
        "is_real": np.arange(chunks)[None, :] < counts[:, None],
    }
    found = onnx(arrays)
    assert_same(found, torch(arrays), (documents, 3), (documents, chunks))
    assert found["attention"].sum(axis=1) == pytest.approx(np.ones(documents), abs=1e-5)
    assert not found["attention"][~arrays["is_real"]].any()


def test_padding_changes_nothing(exported_model):
    onnx, _ = both(exported_model())
    short = tokens(1, 7)
    long = {name: np.pad(array, ((0, 0), (0, 20))) for name, array in short.items()}
    assert np.abs(onnx(short)["logits"] - onnx(long)["logits"]).max() < MAX_DIFFERENCE


def test_the_fastest_net_that_is_exported_is_chosen(exported_model, tmp_path):
    folder = shutil.copytree(exported_model(), tmp_path / "model")
    artifact = load_artifact(folder)
    assert choose_backend(artifact) == "int8"
    (folder / "onnx/model_int8.onnx").unlink()
    assert choose_backend(artifact) == "onnx"
    (folder / "onnx/model.onnx").unlink()
    assert choose_backend(artifact) == "torch"
    assert [choose_backend(artifact, "torch"), *BACKENDS] == ["torch", "int8", "onnx", "torch"]


def test_half_an_export_is_none(exported_model, tmp_path):
    folder = shutil.copytree(exported_model("hierarchical_classification"), tmp_path / "model")
    (folder / "onnx/pooling.onnx").unlink()
    assert choose_backend(load_artifact(folder)) == "torch"


def test_pooling_is_not_quantised(exported_model):
    artifact = load_artifact(exported_model("hierarchical_classification"))
    assert {name: path.name for name, path in onnx_files(artifact, "int8").items()} == {
        "encoder": "encoder_int8.onnx",
        "pooling": "pooling.onnx",
    }


@pytest.mark.parametrize(("backend", "option"), [("onnx", ""), ("int8", " --int8")])
def test_a_net_that_is_not_exported_is_said_with_the_command_that_makes_it(tiny_model, backend, option):
    folder = tiny_model()
    sentence = f"{folder} has no {backend} net. Make it with `doctune export {folder}{option}`."
    with pytest.raises(ArtifactError, match=f"^{re.escape(sentence)}$"):
        choose_backend(load_artifact(folder), backend)


def test_an_unknown_backend_is_refused(tiny_model):
    with pytest.raises(ArtifactError, match=r"^backend='cuda' is not a choice: int8, onnx, torch\.$"):
        choose_backend(load_artifact(tiny_model()), "cuda")


def test_a_task_that_is_not_run_from_a_model_folder_is_named(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model(), tmp_path / "model")
    settings = json.loads((folder / "doctune.json").read_text()) | {"task": "translation"}
    (folder / "doctune.json").write_text(json.dumps(settings))
    sentence = (
        f"{folder} was trained for translation, which is not run from a model folder; these are: classification, "
        "question_answering, hierarchical_classification, multi_task."
    )
    with pytest.raises(ArtifactError, match=f"^{re.escape(sentence)}$"):
        choose_backend(load_artifact(folder))


def test_a_damaged_net_is_named(exported_model, tmp_path):
    folder = shutil.copytree(exported_model(), tmp_path / "model")
    path = folder / "onnx/model.onnx"
    path.write_bytes(b"no net")
    with pytest.raises(ArtifactError, match=f"^{re.escape(str(path))} cannot be loaded: "):
        open_nets(load_artifact(folder), "onnx")


def test_damaged_weights_are_named(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model(), tmp_path / "model")
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ArtifactError, match=f"^The model in {re.escape(str(folder))} cannot be loaded: "):
        open_nets(load_artifact(folder), "torch")
