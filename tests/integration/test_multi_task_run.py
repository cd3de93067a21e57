"""Several targets from tables to a run folder: what is in it, that it is resumed exactly, that heads and folds work."""

import json
import logging
import os
import signal
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from lightning import Callback
from omegaconf import OmegaConf
from transformers import AutoModel, AutoTokenizer

from doctune.inference.artifact import load_artifact
from doctune.nets.multi_task import MultiTaskClassifier
from doctune.reports.folds import write_folds
from doctune.training import build
from doctune.training.config import from_hydra
from doctune.training.prepare import prepare
from doctune.training.run import train

RECIPE = (
    "deterministic=true",
    "optim.lr=4e-3",
    "loss.balance=uncertainty",
    "trainer.max_epochs=3",
    "trainer.effective_batch_size=8",
    "trainer.micro_batch_size=4",
    "trainer.log_every_n_steps=1",
)
NAMES = ["kind", "tags", "mood"]


@pytest.fixture(scope="module")
def whole_run(compose, tiny, targets_data, tmp_path_factory):
    """A run that was never killed."""
    run = tmp_path_factory.mktemp("whole")
    train(compose(*tiny, *targets_data, *RECIPE), run)
    return run


def read(run, name):
    return json.loads((run / name).read_text(encoding="utf-8"))


def test_the_folder_has_what_every_run_has(whole_run):
    names = {str(path.relative_to(whole_run)) for path in whole_run.rglob("*") if path.is_file()}
    assert names >= {
        "data/labels.json", "data/splits.parquet", "data/account.csv", "data/audit.json", "data/baselines.json",
        "model/config.json", "model/model.safetensors", "model/multi_task.json", "model/multi_task.safetensors",
        "model/tokenizer.json", "model/doctune.json", "predictions/val.parquet", "predictions/test.parquet",
        "predictions/baselines_test.parquet", "report/report.json", "report/summary.txt", "report/index.html",
        "report/methods.txt", "report/per_label.csv", "report/loss_curves.png", "report/metric_curve.png",
        "environment.json", "metrics.csv", "status.json", "training_history.json",
        "checkpoints/last.ckpt",
    }  # fmt: skip
    assert read(whole_run, "status.json")["phase"] == "finished"
    assert read(whole_run, "environment.json")["task"] == "multi_task"
    assert [*read(whole_run, "data/labels.json")] == NAMES


def test_every_epoch_has_scores_of_each_target_and_their_mean(whole_run):
    for epoch in read(whole_run, "training_history.json"):
        assert epoch["val_f1_macro"] == pytest.approx(sum(epoch[f"val_{name}_f1_macro"] for name in NAMES) / 3)
        assert epoch["val_loss"] == pytest.approx(sum(epoch[f"val_{name}_loss"] for name in NAMES), rel=1e-5)
        assert epoch["gap"] == pytest.approx(epoch["val_loss"] - epoch["train_eval_loss"], abs=1e-5)


def test_learnt_weights_are_in_the_metrics_and_have_moved(whole_run):
    header, *rows = (whole_run / "metrics.csv").read_text().splitlines()
    columns = [header.split(",").index(f"train/weight/{name}") for name in NAMES]
    weights = [[float(row.split(",")[column]) for column in columns] for row in rows if row.split(",")[columns[0]]]
    assert weights[0] == [1, 1, 1]
    assert all(weight != 1 for weight in weights[-1])
    assert [*read(whole_run, "environment.json")["target_weights"]] == NAMES


def test_the_model_folder_gives_the_predictions_of_the_run(whole_run):
    artifact = load_artifact(whole_run)
    assert [(each.spec.name, each.spec.kind) for each in artifact.targets] == [
        ("kind", "single"), ("tags", "multi"), ("mood", "single"),
    ]  # fmt: skip
    assert [None if each.thresholds is None else list(each.thresholds) for each in artifact.targets] == [
        None, read(whole_run, "environment.json")["thresholds"]["tags"], None,
    ]  # fmt: skip
    net = MultiTaskClassifier.from_folder(artifact.folder)
    tokenizer = AutoTokenizer.from_pretrained(artifact.folder)
    rows = pq.read_table(whole_run / "predictions/test.parquet").to_pylist()
    table = {json.loads(line)["id"]: json.loads(line) for line in _table(whole_run).read_text().splitlines()}
    for row in rows:
        tokens = tokenizer(table[row["id"]]["text"], truncation=True, max_length=32, return_tensors="pt")
        with torch.no_grad():
            kind, tags, _ = net(tokens["input_ids"], tokens["attention_mask"]).logits
        assert torch.softmax(kind[0], 0).tolist() == pytest.approx(row["kind/probabilities"], abs=1e-5)
        assert torch.sigmoid(tags[0]).tolist() == pytest.approx(row["tags/probabilities"], abs=1e-5)
        assert row["kind/truth"] == [table[row["id"]]["kind"]]
        assert row["mood/truth"] == ([table[row["id"]]["mood"]] if "mood" in table[row["id"]] else None)


def _table(run):
    return Path(read(run, "environment.json")["config"]["data"]["train"][0])


def test_the_report_has_a_verdict_and_baselines_of_each_target(whole_run):
    report = read(whole_run, "report/report.json")
    assert [*report["targets"]] == NAMES
    assert report["verdict"].startswith("Better than the baseline on 0 of 3 targets. kind: Too few texts to judge (6 ")
    assert {name: [*found["baselines"]] for name, found in report["targets"].items()} == {
        "kind": ["majority", "tfidf_svm"],
        "tags": ["label_prior", "tfidf_logistic"],
        "mood": ["majority", "tfidf_svm"],
    }
    scores = [found["test"]["f1_macro"] for found in report["targets"].values() if found["test"]]
    assert (report["test"]["f1_macro"], report["test"]["targets"]) == (
        pytest.approx(sum(scores) / len(scores)),
        len(scores),
    )
    low, high = report["test"]["ci95"]["f1_macro"]
    assert 0 <= low <= report["test"]["f1_macro"] <= high <= 1
    for found in report["targets"].values():
        low, high = found["val"]["ci95"]["f1_macro"]
        assert low <= found["val"]["f1_macro"] <= high
    summary = (whole_run / "report/summary.txt").read_text()
    assert all(len(line) <= 100 for line in summary.splitlines())
    assert "TF-IDF + logistic regression" in summary
    page = (whole_run / "report/index.html").read_text()
    assert [f'<section id="target-{number}"><h2><bdi>{name}' in page for number, name in enumerate(NAMES, start=1)] == [
        True, True, True,
    ]  # fmt: skip
    assert "tags (2 labels, any number per text) and mood (2 labels, one per text)." in page


class Kill(Callback):
    """Ends the process, without a last word, after so many batches."""

    def __init__(self, count):
        self.left = count

    def on_train_batch_end(self, *_, **__):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("batches", "every_minutes"),
    [pytest.param(17, "1e-9", id="in an accumulation window"), pytest.param(14, "null", id="after an epoch's end")],
)
def test_a_killed_run_ends_as_if_it_had_never_been_killed(
    batches, every_minutes, compose, tiny, targets_data, whole_run, monkeypatch, tmp_path
):
    config = compose(*tiny, *targets_data, *RECIPE, f"callbacks.checkpoint.every_minutes={every_minutes}")
    with monkeypatch.context() as patched:
        stock = build.stock_callbacks
        patched.setattr(build, "stock_callbacks", lambda config: [*stock(config), Kill(batches)])
        child = os.fork()
        if child == 0:
            try:
                train(config, tmp_path)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert not (tmp_path / "report").exists()
    train(config, tmp_path)
    ours, theirs = (
        torch.load(run / "checkpoints/last.ckpt", weights_only=True) for run in (tmp_path, whole_run)
    )  # fmt: skip
    assert ours["global_step"] == theirs["global_step"]
    assert "balance.raw" in theirs["state_dict"]
    for name, weight in theirs["state_dict"].items():
        assert torch.equal(ours["state_dict"][name], weight), name
    assert (tmp_path / "metrics.csv").read_text() == (whole_run / "metrics.csv").read_text()
    reports = [read(run, "report/report.json") for run in (tmp_path, whole_run)]
    assert reports[0]["targets"] == reports[1]["targets"]


def test_a_frozen_encoder_reads_once_and_only_heads_learn(compose, tiny, targets_data, tiny_encoder, caplog, tmp_path):
    ours = [each for each in tiny if not each.startswith("model.")]
    pretrained = ("model=distilbert", f"model.path={tiny_encoder('distilbert')}", "finetune=head")
    config = compose(*ours, *pretrained, *targets_data, *RECIPE, "trainer.max_epochs=1")
    with caplog.at_level(logging.INFO):
        train(config, tmp_path)
    assert "The frozen encoder reads all documents once." in caplog.text
    model = read(tmp_path, "environment.json")["model"]
    assert model["trainable"] == 7 * 33  # 3 + 2 + 2 labels, each with 32 weights and a bias
    exported = MultiTaskClassifier.from_folder(tmp_path / "model").encoder.state_dict()
    for name, weight in AutoModel.from_pretrained(tiny_encoder("distilbert")).state_dict().items():
        assert torch.equal(exported[name], weight), name


def test_folds_judge_every_text_once(compose, tiny, targets_data, tmp_path):
    judged = []
    for fold in range(2):
        run = tmp_path / f"fold-{fold}"
        folds = ("split=kfold", "split.folds=2", f"split.fold={fold}", "data.stratify=tags", "trainer.max_epochs=1")
        train(compose(*tiny, *targets_data, *RECIPE, *folds), run)
        judged += pq.read_table(run / "predictions/test.parquet", columns=["id"])["id"].to_pylist()
    assert sorted(judged) == [f"t{number:03d}" for number in range(60)]
    write_folds(tmp_path)
    results = read(tmp_path, "kfold/kfold_results.json")
    assert (results["missing"], results["oof"]["texts"], [*results["targets"]]) == ([], 60, NAMES)
    tested = [fold["test"]["f1_macro"] for fold in results["folds"]]
    assert results["combined"]["test"]["mean"] == pytest.approx(sum(tested) / 2)


def test_prepare_writes_the_account_and_the_split_that_training_uses(compose, tiny, targets_data, whole_run, tmp_path):
    prepare(compose(*tiny, *targets_data), tmp_path)
    for name in ("labels.json", "account.csv", "audit.json"):
        assert (tmp_path / "data" / name).read_text() == (whole_run / "data" / name).read_text()
    ours, theirs = (pq.read_table(run / "data/splits.parquet") for run in (tmp_path, whole_run))
    assert ours.equals(theirs)


def test_a_saved_configuration_is_read_again(whole_run):
    saved = read(whole_run, "environment.json")["config"]
    again = from_hydra(OmegaConf.create(saved))
    assert again.data.typed_targets()["tags"].kind == "multi"
