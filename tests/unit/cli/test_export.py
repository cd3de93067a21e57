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
