"""`doctune export` compares on a run's own documents, or on named ones, and says what it cost and gained."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from doctune.cli.export import as_text
from doctune.cli.main import main
from doctune.inference import export as module
from doctune.inference.artifact import load_artifact
from doctune.inference.engine import load
from doctune.inference.export import Exported, ExportReport


@pytest.fixture
def run(tiny_model, model_texts, tmp_path):
    """A run with a validation part of six documents."""
    shutil.copytree(tiny_model(), tmp_path / "run" / "model")
    paths = [tmp_path / "files" / f"{number}.txt" for number in range(6)]
    paths[0].parent.mkdir()
    for path, text in zip(paths, model_texts[1:], strict=True):
        path.write_text(text)
    (tmp_path / "run/predictions").mkdir()
    columns = {"path": [str(path) for path in paths], "truth": ["code", "invoice", "recipe"] * 2}
    pq.write_table(pa.table(columns), tmp_path / "run/predictions/val.parquet")
    return tmp_path / "run"


@pytest.mark.usefixtures("traced_before")
@pytest.mark.parametrize("given", ["run", "run/model"])
def test_nets_are_compared_on_the_validation_part(run, tmp_path, capsys, given):
    assert main(["export", str(tmp_path / given)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown[:3]] == ["net", "torch", "onnx"]
    assert shown[0].split() == ["net", "MB", "examples/s", "largest", "difference", "same", "answer", "macro", "F1"]
    assert shown[3:] == [
        f"Compared with torch on the val part of {run}: 6 for speed and numbers, 6 for answers.",
        f"Written to {run / 'model/onnx'}, from where `doctune predict` and `doctune ask` take it.",
    ]
    assert load(run).backend == "onnx"


@pytest.mark.usefixtures("traced_before")
def test_named_documents_are_compared_on_instead(run, tmp_path, capsys):
    shutil.rmtree(run / "predictions")
    assert main(["export", str(run), "--documents", str(tmp_path / "files")]) == 0
    shown = capsys.readouterr().out
    assert "macro F1" not in shown  # their labels are not known
    assert "Compared with torch on the documents named: 6 for speed and numbers, 6 for answers.\n" in shown


@pytest.mark.usefixtures("traced_before")
def test_a_refused_int8_is_said_with_where_the_rest_is(run, monkeypatch, capsys):
    monkeypatch.setattr(module, "MIN_AGREEMENT", 1.01)
    assert main(["export", str(run), "--int8"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown[1:4]] == ["torch", "onnx", "int8"]
    assert re.match(r"int8 is refused: \d+\.00% of the answers are the same as torch's, macro F1 0\.", shown[-2])
    assert shown[-1].startswith(f"Written to {run / 'model/onnx'}, ")


def test_a_checkpoint_is_exported_beside_the_model(run, model_texts, capsys):
    import torch

    from doctune.inference.graphs import load_net

    net = load_net(load_artifact(run))
    weights = {f"net.{name}": tensor for name, tensor in net.state_dict().items()}
    weights["net.classifier.bias"] = weights["net.classifier.bias"] + torch.tensor([2.0, 0.0, -1.0])
    (run / "checkpoints").mkdir()
    torch.save({"state_dict": weights}, run / "checkpoints/epoch003_loss0.1234.ckpt")
    settings = json.loads((run / "model/doctune.json").read_text())
    (run / "model/doctune.json").write_text(json.dumps(settings | {"temperature": 3.0}))
    assert main(["export", str(run), "--checkpoint", str(run / "checkpoints/epoch003_loss0.1234.ckpt")]) == 0
    folder = run / "exported" / "epoch003_loss0.1234"
    assert f"Written to {folder / 'onnx'}, " in capsys.readouterr().out
    engine = load(folder)
    assert (engine.backend, engine.artifact.temperature) == ("onnx", 1.0)
    expected = load(run).logits(model_texts) + np.array([2, 0, -1], np.float32)
    assert np.abs(engine.logits(model_texts) - expected).max() < 1e-3
    assert not (run / "model/onnx").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], "nowhere: there is no such run folder."),
        (["RUN", "--documents", "nothing"], "nothing does not exist; give files or folders that do."),
        (
            ["RUN", "--documents", "RUN/model/config.json"],
            "Of 1 files of the documents named 1 can be read; at least 5",
        ),
        (["RUN", "--checkpoint", "RUN/model/config.json"], "config.json cannot be read as a checkpoint ("),
        (
            ["RUN", "--checkpoint", "RUN/last.ckpt"],
            "last.ckpt cannot be read as a checkpoint (FileNotFoundError).",
        ),
    ],
)
def test_what_is_wrong_is_said(run, capsys, arguments, sentence):
    assert main(["export", *(argument.replace("RUN", str(run)) for argument in arguments)]) == 2
    assert sentence in capsys.readouterr().err
    assert not (run / "exported").exists()


def test_a_run_without_predictions_asks_for_documents(run, capsys):
    shutil.rmtree(run / "predictions")
    assert main(["export", str(run)]) == 2
    assert capsys.readouterr().err == (
        f"doctune: {run / 'predictions/val.parquet'} is not there: without a run there are no real documents to "
        "compare on. Name some with --documents PATH….\n"
    )


@pytest.fixture
def adapted_run(adapted_model, run):
    """The same run with an adapter for a model."""
    shutil.rmtree(run / "model")
    shutil.copytree(adapted_model(), run / "model")
    return run


def test_an_adapter_is_merged_into_a_model_for_itself(adapted_run, model_texts, capsys):
    from transformers import AutoModelForSequenceClassification

    assert main(["export", str(adapted_run), "--merge"]) == 0
    folder = adapted_run / "model/merged"
    difference, written = capsys.readouterr().out.splitlines()
    said = re.fullmatch(
        r"Merged and unmerged outputs differ by up to (\d\.\de-\d\d) on the val part of "
        rf"{adapted_run} \(6 compared\)\.",
        difference,
    )
    assert float(said[1]) < 1e-5
    assert written == (
        f"Written to {folder} (0.1 MB): a model for itself, which `doctune predict {folder}` and transformers take."
    )
    assert not [path.name for path in folder.iterdir() if path.name.startswith(("adapter", "base"))]
    assert np.abs(load(folder).logits(model_texts) - load(adapted_run).logits(model_texts)).max() < 1e-6
    stock = AutoModelForSequenceClassification.from_pretrained(folder)
    assert stock.config.id2label == load(folder).labels.id2label
    assert not [name for name in stock.state_dict() if "lora" in name]


def test_a_base_in_four_bits_is_dequantised_and_said(adapted_model, run, capsys):
    shutil.rmtree(run / "model")
    shutil.copytree(adapted_model("classification", quantised=True), run / "model")
    assert main(["export", str(run), "--merge"]) == 0
    difference, dequantised, _ = capsys.readouterr().out.splitlines()
    assert float(re.search(r"up to (\S+) on", difference)[1]) < 1e-4
    assert dequantised == (
        "The model below the adapter was in four bits: what was written are the weights that these stand for, on which "
        "the adapter was trained, in single precision."
    )


def test_a_merged_model_that_disagrees_is_not_kept(adapted_run, monkeypatch, capsys):
    from doctune.inference import merge

    monkeypatch.setattr(merge, "MAX_DIFFERENCE", -1.0)
    assert main(["export", str(adapted_run), "--merge"]) == 2
    assert re.search(
        r"The merged model does not agree with the unmerged one: outputs differ by up to \S+ \(at most -1 is "
        r"allowed\)\. Nothing was kept; the adapter is as it was\.",
        capsys.readouterr().err,
    )
    assert not (adapted_run / "model/merged").exists()


def test_a_whole_model_has_nothing_to_merge(run, capsys):
    assert main(["export", str(run), "--merge"]) == 2
    assert capsys.readouterr().err == (
        f"doctune: {run / 'model'} holds no adapter: its weights are all there, and nothing is to be merged.\n"
    )


def test_merging_and_quantising_are_two_things(run, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["export", str(run), "--merge", "--int8"])
    assert "argument --int8: not allowed with argument --merge" in capsys.readouterr().err


def test_an_adapter_is_merged_in_memory_for_onnx(adapted_run, model_texts, capsys):
    expected = load(adapted_run).logits(model_texts)
    assert main(["export", str(adapted_run)]) == 0
    torch_row, onnx_row = capsys.readouterr().out.splitlines()[1:3]
    assert float(torch_row.split()[1]) > 0  # the base's weights are computed with, too
    assert float(onnx_row.split()[3]) < 1e-3
    engine = load(adapted_run)
    assert engine.backend == "onnx"
    assert np.abs(engine.logits(model_texts) - expected).max() < 1e-3
    assert (adapted_run / "model/adapter_model.safetensors").is_file()


def test_a_checkpoint_of_an_adapter_is_merged_beside_the_model(adapted_run, model_texts):
    import torch

    from doctune.inference.graphs import load_net
    from doctune.nets.adapters import saved_weights

    weights = {f"net.{name}": tensor for name, tensor in saved_weights(load_net(load_artifact(adapted_run))).items()}
    weights["net.classifier.bias"] = weights["net.classifier.bias"] + torch.tensor([2.0, 0.0, -1.0])
    (adapted_run / "checkpoints").mkdir()
    torch.save({"state_dict": weights}, adapted_run / "checkpoints/last.ckpt")
    assert (
        main(["export", str(adapted_run), "--merge", "--checkpoint", str(adapted_run / "checkpoints/last.ckpt")]) == 0
    )
    expected = load(adapted_run).logits(model_texts) + np.array([2, 0, -1], np.float32)
    assert np.abs(load(adapted_run / "exported/last/merged").logits(model_texts) - expected).max() < 1e-5


def test_the_table_of_what_was_measured():
    nets = (
        Exported("torch", 266.2, 12.34, None, 1.0, 0.9123),
        Exported("onnx", 266.5, 20.0, 1.9e-6, 1.0, 0.9123),
        Exported("int8", 67.0, 45.6, None, 0.995, 0.91),
    )
    report = ExportReport(Path("run/model"), "the val part of run", 200, 812, "macro F1", nets, None)
    assert as_text(report).splitlines() == [
        "net          MB  examples/s  largest difference  same answer  macro F1",
        "torch     266.2        12.3                          100.00%    0.9123",
        "onnx      266.5        20.0             1.9e-06      100.00%    0.9123",
        "int8       67.0        45.6                           99.50%    0.9100",
        "Compared with torch on the val part of run: 200 for speed and numbers, 812 for answers.",
        f"Written to {Path('run/model/onnx')}, from where `doctune predict` and `doctune ask` take it.",
    ]
