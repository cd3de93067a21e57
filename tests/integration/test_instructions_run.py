"""A language model tuned on conversations: the folder, the report, checks within epochs, exact resume."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from lightning import Callback

from doctune.cli.main import main
from doctune.inference.generation import Sampling
from doctune.inference.generator import load_generator
from doctune.training import build
from doctune.training.callbacks.disk_space import DiskSpace
from doctune.training.prepare import prepare
from doctune.training.run import train

ROOT = Path(__file__).parents[2]
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven"]
# 38 training conversations: 5 steps of two micro-batches an epoch; checks after steps 4, 5 and 8, 10.
RECIPE = (
    "model=mistral",
    "data=instructions",
    "model.dropout=0.1",
    "data.max_length=64",
    "data.duplicate_threshold=1",  # all questions are alike
    "data.generate=3",
    "data.max_new_tokens=8",
    "deterministic=true",
    "optim.lr=1e-2",
    "split.val=0.2",
    "split.test=0.2",
    "trainer.accelerator=cpu",
    "trainer.precision='32'",
    "trainer.progress=false",
    "trainer.max_epochs=2",
    "trainer.effective_batch_size=8",
    "trainer.micro_batch_size=4",
    "trainer.log_every_n_steps=1",
    "trainer.check_every_n_steps=4",
    "callbacks.checkpoint.every_n_steps=1",
    "callbacks.checkpoint.keep_interval=2",
    "callbacks.checkpoint.every_minutes=null",
    "logger.tensorboard=false",
)


@pytest.fixture(scope="module")
def recipe(tiny_mistral, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    rows = [
        {"question": f"What is the sum of {one} and {two}?", "answer": f"The answer is {NAMES[(one + two) % 8]}."}
        for one in range(8)
        for two in range(8)
    ]
    lines = [*map(json.dumps, rows), "not json", json.dumps({"prompt": "x"})]
    (folder / "train.jsonl").write_text("\n".join(lines))
    return (
        *RECIPE,
        f"model.path={tiny_mistral}",
        f"data.train=[{folder / 'train.jsonl'}]",
        f"data.cache_dir={folder / 'cache'}",
    )


@pytest.fixture(scope="module")
def whole_run(recipe, tmp_path_factory):
    """A run that was never killed, made as a person makes it."""
    run = tmp_path_factory.mktemp("whole") / "run"
    command = [sys.executable, str(ROOT / "train.py"), *recipe, f"hydra.run.dir={run}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=run.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    return run


def read(run, name):
    return json.loads((run / name).read_text(encoding="utf-8"))


def test_the_folder_has_what_every_run_has(whole_run):
    names = {str(path.relative_to(whole_run)) for path in whole_run.rglob("*") if path.is_file()}
    assert names >= {
        "data/splits.parquet", "data/account.csv", "data/audit.json", "data/baselines.json",
        "model/config.json", "model/model.safetensors", "model/tokenizer.json", "model/chat_template.jinja",
        "model/doctune.json", "predictions/val.parquet", "predictions/test.parquet",
        "predictions/untrained_val.parquet", "predictions/untrained_test.parquet", "report/report.json",
        "report/index.html", "report/summary.txt", "report/loss_curves.png", "report/metric_curve.png",
        "environment.json", "metrics.csv", "status.json", "training_history.json", "training_metrics.json",
        "training_metrics.csv", "training_summary.json", "checkpoints/last.ckpt", "train.log",
    }  # fmt: skip
    assert read(whole_run, "status.json")["phase"] == "finished"
    assert read(whole_run, "environment.json")["task"] == "instruction_tuning"


def test_rejected_lines_are_in_the_account_and_in_the_log(whole_run):
    with (whole_run / "data/account.csv").open(newline="") as stream:
        left_out = [row for row in csv.DictReader(stream) if row["part"] == "left_out"]
    assert [(row["path"], row["status"]) for row in left_out] == [
        ("train.jsonl:65", "malformed"), ("train.jsonl:66", "missing_key"),
    ]  # fmt: skip
    log = (whole_run / "train.log").read_text()
    for row in left_out:
        assert f"Left out: {row['path']}: {row['reason']}" in log


def test_every_check_is_a_row_and_the_best_one_is_kept(whole_run):
    rows = read(whole_run, "training_metrics.json")
    assert [(row["step"], row["epoch"]) for row in rows] == [(4, 1), (5, 1), (8, 2), (10, 2)]
    for row in rows:
        assert row["gap"] == pytest.approx(row["val_loss"] - row["train_loss"], abs=1e-5)
    with (whole_run / "training_metrics.csv").open(newline="") as stream:
        table = [*csv.DictReader(stream)]
    assert [*table[0]] == ["step", "epoch", "train_loss", "val_loss", "gap", "gap_status", "lr", "tokens"]
    assert [float(row["val_loss"]) for row in table] == [row["val_loss"] for row in rows]
    assert [epoch["val_loss"] for epoch in read(whole_run, "training_history.json")] == [
        row["val_loss"] for row in rows if row["step"] in (5, 10)
    ]
    best = min(rows, key=lambda row: row["val_loss"])
    summary = read(whole_run, "training_summary.json")
    assert summary["seconds"] > 0
    assert {name: value for name, value in summary.items() if name != "seconds"} == {
        "best_step": best["step"], "best_epoch": best["epoch"], "best_val_loss": best["val_loss"],
        "gap_at_best": best["gap"], "gap_status": best["gap_status"], "status": "max_epochs", "checks": 4, "steps": 10,
        "tokens": 2 * read(whole_run, "data/audit.json")["tokens"]["train"]["all"],
    }  # fmt: skip
    environment = read(whole_run, "environment.json")
    assert environment["best_step"] == best["step"]
    assert environment["best_score"] == pytest.approx(best["val_loss"])
    weights = torch.load(whole_run / environment["best_checkpoint"], weights_only=True)
    assert weights["global_step"] == best["step"]


def test_interval_checkpoints_are_pruned_to_the_number_kept(whole_run):
    names = sorted(path.name for path in (whole_run / "checkpoints").glob("step_*"))
    assert [name.rpartition("_")[2] for name in names] == ["step0000008.ckpt", "step0000009.ckpt"]


def test_the_report_sets_after_beside_before_and_samples_beside_references(whole_run):
    report = read(whole_run, "report/report.json")
    test, before = report["test"], report["baselines"]["untrained"]["test"]
    assert test["perplexity"] < before["perplexity"]
    for name in ("loss", "perplexity", "exact_match", "precision", "recall", "f1"):
        low, high = test["ci95"][name]
        assert low <= test[name] <= high
    assert report["verdict"].startswith("Too few conversations to judge (13 of at least 30): test perplexity ")
    assert report["comparison"]["baseline"] == "untrained"
    assert [*report["baselines"]] == ["unigram", "untrained"]
    assert len(report["samples"]) == test["completions"] == 3
    page = (whole_run / "report/index.html").read_text()
    for sample in report["samples"]:
        assert sample["reference"] in page
    assert report["gap"]["value"] == read(whole_run, "training_summary.json")["gap_at_best"]
    assert all(len(line) <= 100 for line in (whole_run / "report/summary.txt").read_text().splitlines())


def test_the_model_folder_writes_what_the_report_shows(whole_run):
    rows = [row for row in pq.read_table(whole_run / "predictions/test.parquet").to_pylist() if row["prediction"]]
    found = load_generator(whole_run).generate([row["prompt"] for row in rows], Sampling(8))
    assert [each.text for each in found] == [row["prediction"] for row in rows]


class Kill(Callback):
    """Ends the process, without a last word, after so many batches."""

    def __init__(self, count):
        self.left = count

    def on_train_batch_end(self, *_, **__):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def killed(monkeypatch, config, run, batches):
    """Train in a forked process that dies after so many batches."""
    with monkeypatch.context() as patched:
        stock = build.stock_callbacks
        patched.setattr(build, "stock_callbacks", lambda config: [*stock(config), Kill(batches)])
        child = os.fork()
        if child == 0:
            try:
                train(config, run)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)


# Of 20 batches: 8 end the check after step 4, which is saved with the 9th; 17 are in the window after step 8.
@pytest.mark.parametrize("batches", [9, 17])
def test_a_killed_run_ends_as_if_it_had_never_been_killed(batches, compose, recipe, whole_run, monkeypatch, tmp_path):
    config = compose(*recipe)
    killed(monkeypatch, config, tmp_path, batches)
    train(config, tmp_path)
    ours, theirs = (torch.load(run / "checkpoints/last.ckpt", weights_only=True) for run in (tmp_path, whole_run))
    assert ours["global_step"] == theirs["global_step"]
    for name, weight in theirs["state_dict"].items():
        assert torch.equal(ours["state_dict"][name], weight), name
    for name in ("metrics.csv", "training_metrics.json", "training_metrics.csv"):
        assert (tmp_path / name).read_text() == (whole_run / name).read_text(), name
    ours, theirs = (read(run, "training_summary.json") | {"seconds": 0} for run in (tmp_path, whole_run))
    assert ours == theirs
    assert read(tmp_path, "report/report.json")["test"] == read(whole_run, "report/report.json")["test"]


def test_packing_trains_on_every_conversation_in_fewer_rows(compose, recipe, tmp_path):
    train(compose(*recipe, "data.packing=true", "data.generate=0", "trainer.max_epochs=1"), tmp_path)
    assert (
        read(tmp_path, "training_summary.json")["tokens"] == read(tmp_path, "data/audit.json")["tokens"]["train"]["all"]
    )
    report = read(tmp_path, "report/report.json")
    assert report["samples"] == []
    assert "f1" not in report["test"]
    assert report["test"]["perplexity"] < report["baselines"]["untrained"]["test"]["perplexity"]


@pytest.fixture(scope="module", params=["lora", "qlora"])
def adapted_run(request, compose, recipe, tmp_path_factory):
    run = tmp_path_factory.mktemp(request.param)
    train(compose(*recipe, f"finetune={request.param}", "finetune.rank=4"), run)
    return run


def test_a_decoder_learns_through_adapters_alone(adapted_run, tiny_mistral):
    assert {path.name for path in (adapted_run / "model").glob("*.safetensors")} == {"adapter_model.safetensors"}
    state = torch.load(adapted_run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all("lora_" in name for name in state if name.startswith("net."))
    report = read(adapted_run, "report/report.json")
    assert report["parameters"]["trainable"] < report["parameters"]["total"] / 2
    assert report["test"]["perplexity"] < report["baselines"]["untrained"]["test"]["perplexity"]
    assert read(adapted_run, "environment.json")["base"]["name"] == str(tiny_mistral)


def test_an_adapter_on_its_base_writes_what_the_report_shows(adapted_run):
    rows = [row for row in pq.read_table(adapted_run / "predictions/test.parquet").to_pylist() if row["prediction"]]
    found = load_generator(adapted_run).generate([row["prompt"] for row in rows], Sampling(8))
    assert [each.text for each in found] == [row["prediction"] for row in rows]


def test_a_merged_decoder_agrees_and_needs_no_base(adapted_run, capsys):
    prompts = ["What is the sum of two and three?", "What is the sum of six and one?"]
    before = load_generator(adapted_run).generate(prompts, Sampling(8))
    assert main(["export", str(adapted_run), "--merge"]) == 0
    said = capsys.readouterr().out
    assert f"on the val part of {adapted_run} (13 compared)." in said
    assert float(re.search(r"differ by up to (\S+) on", said)[1]) < 1e-4
    merged = adapted_run / "model/merged"
    assert f"`doctune generate {merged}` and transformers take." in said
    assert not (merged / "adapter_config.json").exists()
    assert load_generator(merged).generate(prompts, Sampling(8)) == before


def test_a_killed_adapter_run_ends_with_the_same_bits(compose, recipe, adapted_run, monkeypatch, tmp_path):
    config = compose(*recipe, f"finetune={adapted_strategy(adapted_run)}", "finetune.rank=4")
    killed(monkeypatch, config, tmp_path, 9)
    train(config, tmp_path)
    ours, theirs = (torch.load(run / "checkpoints/last.ckpt", weights_only=True) for run in (tmp_path, adapted_run))
    assert ours["state_dict"].keys() == theirs["state_dict"].keys()
    assert all(torch.equal(ours["state_dict"][name], weight) for name, weight in theirs["state_dict"].items())
    assert read(tmp_path, "training_metrics.json") == read(adapted_run, "training_metrics.json")


def adapted_strategy(run):
    return read(run, "environment.json")["config"]["finetune"]["strategy"]


def test_a_language_model_is_compared_on_the_conversations_of_its_run(whole_run, capsys):
    assert main(["export", str(whole_run), "--merge", "--documents", str(ROOT)]) == 2
    assert capsys.readouterr().err == (
        "doctune: A language model is compared on the conversations of its run: leave out --documents.\n"
    )
    assert main(["export", str(whole_run), "--int8"]) == 2
    assert "writes text, and neither labels nor answers from documents, and is not exported to ONNX" in (
        capsys.readouterr().err
    )


def test_prepare_writes_the_account_and_the_split_that_training_uses(compose, recipe, whole_run, tmp_path):
    prepare(compose(*recipe), tmp_path)
    for name in ("account.csv", "audit.json"):
        assert (tmp_path / "data" / name).read_text() == (whole_run / "data" / name).read_text()


def test_a_nearly_full_disk_is_said_once_before_it_fails_a_run(tmp_path, monkeypatch):
    said = []
    space = DiskSpace(tmp_path / "checkpoints", checkpoint_bytes=10**9, kept=4, model_bytes=5 * 10**8, say=said.append)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=4_600_000_000))
    space.check()
    assert said == []
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=2_000_000_000))
    (tmp_path / "checkpoints").mkdir()
    for name in ("a", "b", "c"):
        (tmp_path / "checkpoints" / f"{name}.ckpt").touch()
    space.on_save_checkpoint(None, None, {})
    assert said == []  # three of the four are there already
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=1_200_000_000))
    space.on_save_checkpoint(None, None, {})
    space.on_save_checkpoint(None, None, {})
    assert said == [
        "The disk may be too small: 1 more checkpoint and the model take about 1.5 GB, and 1.2 GB are free. Make room, "
        "or lower callbacks.checkpoint.save_top_k or keep_interval."
    ]
