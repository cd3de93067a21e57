"""One finished run, looked at from every side."""

import csv
import json
import re
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from doctune.cli.main import main
from doctune.decode.classification import probabilities
from doctune.inference.engine import load
from doctune.scoring.classification import score
from doctune.text.extract import extract


def read_json(path):
    return json.loads(path.read_text())


def test_the_folder_has_what_the_contract_names(finished_run):
    names = {str(path.relative_to(finished_run)) for path in finished_run.rglob("*") if path.is_file()}
    assert {
        "environment.json",
        "status.json",
        "metrics.csv",
        "training_history.json",
        "checkpoints/last.ckpt",
        "data/labels.json",
        "data/splits.parquet",
        "data/audit.json",
        "data/account.csv",
        "data/baselines.json",
        "model/config.json",
        "model/model.safetensors",
        "model/tokenizer.json",
        "model/doctune.json",
        "predictions/val.parquet",
        "predictions/test.parquet",
        "report/index.html",
        "report/methods.txt",
        "report/report.json",
        "report/summary.txt",
        "report/loss_curves.png",
        "report/confusion_matrix.png",
    } <= names
    best = [
        name
        for name in names
        if re.fullmatch(r"checkpoints/checkpoint_\d{8}_\d{6}_epoch0\d\d_loss\d+\.\d{4}\.ckpt", name)
    ]
    assert len(best) == 1
    assert any(name.startswith("tensorboard/events") for name in names)
    assert not [name for name in names if name.endswith(".part")]


def test_it_learnt_the_three_kinds(finished_run):
    report = read_json(finished_run / "report/report.json")
    assert report["schema"] == 1
    assert report["test"]["f1_macro"] == 1.0
    assert report["test"]["ci95"]["f1_macro"] == [1.0, 1.0]
    assert report["baselines"]["majority"]["test"]["accuracy"] == pytest.approx(1 / 3, abs=1e-3)


def test_status_ends_with_finished(finished_run):
    status = read_json(finished_run / "status.json")
    assert list(status) == [
        "phase", "epoch", "epochs", "step", "steps", "train_loss", "monitor", "value", "gap_status", "rate",
        "eta_low_s", "eta_high_s", "updated_at", "pid", "started_at", "host", "warnings", "may_stop_early",
    ]  # fmt: skip
    assert (status["phase"], status["epoch"], status["epochs"], status["monitor"]) == (
        "finished",
        16,
        16,
        "val/f1_macro",
    )
    assert status["step"] == status["steps"] == 16 * 9  # 36 training documents in batches of 4


def test_history_and_metrics_tell_the_same(finished_run):
    history = read_json(finished_run / "training_history.json")
    assert [epoch["epoch"] for epoch in history] == [*range(1, 17)]
    assert history[-1]["lr"] == 0
    assert all(0 <= epoch["padding_share"] < 0.5 for epoch in history)
    with (finished_run / "metrics.csv").open() as stream:
        rows = [*csv.DictReader(stream)]
    logged = [float(row["val/loss"]) for row in rows if row["val/loss"]]
    assert logged[:16] == pytest.approx([epoch["val_loss"] for epoch in history], rel=1e-5)
    assert len([row for row in rows if row["train/loss_step"]]) == 16 * 9


def test_live_metrics_equal_the_reported_ones(finished_run):
    labels = read_json(finished_run / "data/labels.json")
    rows = pq.read_table(finished_run / "predictions/val.parquet").to_pylist()
    truth = np.array([labels.index(row["truth"]) for row in rows])
    scores = score(truth, np.array([labels.index(row["prediction"]) for row in rows]), len(labels))
    history = read_json(finished_run / "training_history.json")
    best = max(history, key=lambda epoch: epoch["val_f1_macro"])
    assert scores.f1_macro == pytest.approx(best["val_f1_macro"], abs=1e-6)
    assert scores.accuracy == pytest.approx(best["val_accuracy"], abs=1e-6)


def test_checkpoints_load_without_pickle(finished_run):
    checkpoint = torch.load(finished_run / "checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["hyper_parameters"]["optimisation"]["total_steps"] == 144
    assert {name.split("{")[0] for name in checkpoint["callbacks"]} == {
        "CheckLog", "GapGuard", "History", "LearningGuards", "MetricsRows", "NamedCheckpoint",
    }  # fmt: skip
    inside = checkpoint["doctune"]
    assert inside["metrics"]["val/loss"] == pytest.approx(
        read_json(finished_run / "training_history.json")[-1]["val_loss"]
    )
    assert inside["config"]["optim"]["lr"] == 4e-3
    assert {"git", "versions", "saved_at"} <= set(inside)


def test_environment_says_what_a_rerun_needs(finished_run):
    environment = read_json(finished_run / "environment.json")
    assert environment["seed"] == 5
    assert environment["versions"]["torch"] == torch.__version__.split("+")[0] or environment["versions"]["torch"]
    assert (finished_run / environment["best_checkpoint"]).is_file()
    assert environment["model"]["architecture"] == "distilbert"
    assert environment["model"]["trainable"] == environment["model"]["total"]
    assert environment["precision"] == "32"


def test_predict_and_the_transformers_pipeline_agree(finished_run, manifest_of_files):
    from transformers import pipeline

    texts = [extract(path).text for path in sorted(manifest_of_files.parent.glob("*.txt"))[::7]]
    pipe = pipeline("text-classification", model=str(finished_run / "model"), device="cpu")
    engine = load(finished_run)
    theirs = pipe(texts, truncation=True)
    assert [prediction.label for prediction in engine.predict(texts)] == [answer["label"] for answer in theirs]
    before = probabilities(engine.logits(texts)).max(axis=1)  # the pipeline knows no temperature
    assert before.tolist() == pytest.approx([a["score"] for a in theirs], abs=1e-5)


def test_saved_predictions_are_those_of_the_exported_model(finished_run):
    rows = pq.read_table(finished_run / "predictions/test.parquet").to_pylist()
    engine = load(finished_run)
    texts = [extract(row["path"], engine.artifact.extract).text for row in rows]
    assert [prediction.label for prediction in engine.predict(texts)] == [row["prediction"] for row in rows]
    before = probabilities(engine.logits(texts))  # the temperature is fitted on what is saved
    assert np.allclose(before, [row["probabilities"] for row in rows], atol=1e-5)


def test_predict_keeps_the_order_and_gives_every_file_a_row(finished_run, manifest_of_files, tmp_path, capsys):
    files = sorted(manifest_of_files.parent.glob("*.txt"))[:6]
    (tmp_path / "empty.txt").write_text("")
    paths = [files[3], tmp_path / "empty.txt", files[0], files[1]]
    assert main(["predict", str(finished_run), *map(str, paths)]) == 0
    rows = [*csv.DictReader(capsys.readouterr().out.splitlines())]
    assert list(rows[0]) == ["path", "status", "label", "score", "reason"]
    assert [row["path"] for row in rows] == [str(path) for path in paths]
    assert [row["status"] for row in rows] == ["ok", "empty", "ok", "ok"]
    kinds = {"r": "recipe", "l": "ledger", "p": "program", "y": ""}
    assert [row["label"] for row in rows] == [kinds[path.stem[-1]] for path in paths]
    assert rows[1]["reason"]


@pytest.mark.parametrize("file_format", ["jsonl", "csv", "parquet"])
def test_predict_walks_folders_and_writes_files(finished_run, manifest_of_files, tmp_path, capsys, file_format):
    out = tmp_path / "labels"
    arguments = [str(manifest_of_files.parent), "--format", file_format, "--out", str(out)]
    assert main(["predict", str(finished_run), *arguments]) == 0
    assert f"61 rows written to {out}" in capsys.readouterr().err
    if file_format == "jsonl":
        rows = [json.loads(line) for line in out.read_text().splitlines()]
    elif file_format == "csv":
        rows = [*csv.DictReader(out.read_text().splitlines())]
    else:
        rows = pq.read_table(out).to_pylist()
    assert [row["path"] for row in rows] == sorted(str(path) for path in manifest_of_files.parent.iterdir())


def test_predict_reads_text_from_standard_input(finished_run):
    done = subprocess.run(
        [sys.executable, "-m", "doctune.cli.main", "predict", str(finished_run)],
        input="Take 3 eggs and 4 spoons of sugar. Bake the dough. Serve warm.",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[1].startswith("-,ok,recipe,")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["no/such/run", "."], "no/such/run: there is no such run folder"),
        (["RUN", "no/such/file"], "no/such/file: there is no such file or folder"),
        (["RUN", ".", "--format", "parquet"], "--format parquet is binary: give it a file with --out FILE.parquet"),
    ],
)
def test_predict_says_what_is_wrong(finished_run, capsys, arguments, sentence):
    arguments = [str(finished_run) if argument == "RUN" else argument for argument in arguments]
    assert main(["predict", *arguments]) == 2
    assert sentence in capsys.readouterr().err
