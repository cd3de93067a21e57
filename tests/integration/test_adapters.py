"""finetune=lora and finetune=qlora: only adapters and heads learn, are kept and exported; the base is found again."""

import hashlib
import json
import os
import shutil
import signal

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from lightning import Callback
from safetensors.torch import load_file, save_file

from doctune.cli.main import main
from doctune.decode.classification import probabilities
from doctune.errors import ArtifactError
from doctune.inference.engine import load
from doctune.training import build
from doctune.training.run import train

# 48 training documents: 6 steps of two micro-batches an epoch. Dropout is on.
RECIPE = (
    "model=minilm",
    "data.max_length=32",
    "data.duplicate_threshold=1",
    "deterministic=true",
    "optim.lr=1e-2",
    "optim.layer_decay=0.5",
    "trainer.max_epochs=2",
    "trainer.effective_batch_size=8",
    "trainer.micro_batch_size=4",
    "trainer.accelerator=cpu",
    "trainer.precision='32'",
    "trainer.progress=false",
    "logger=csv",
)


@pytest.fixture(scope="module")
def base(tiny_encoder, tmp_path_factory):
    """A tiny BERT that no other module uses."""
    return shutil.copytree(tiny_encoder("bert", width=64), tmp_path_factory.mktemp("base") / "bert")


@pytest.fixture(scope="module")
def configure(compose, base, manifest_of_files, tmp_path_factory):
    data = (f"data.manifest={manifest_of_files}", f"data.cache_dir={tmp_path_factory.mktemp('cache')}")
    return lambda *overrides: compose(*RECIPE, f"model.path={base}", *data, *overrides)


class Weights(Callback):
    """All weights of the net, its base included, at the start and at the end of training."""

    def on_fit_start(self, trainer, pl_module):
        self.before = {name: weight.detach().clone() for name, weight in pl_module.net.named_parameters()}

    def on_fit_end(self, trainer, pl_module):
        self.after = {name: weight.detach().clone() for name, weight in pl_module.net.named_parameters()}

    def changed(self):
        return {name for name, weight in self.before.items() if not torch.equal(weight, self.after[name])}


def with_callback(patch, callback):
    stock = build.stock_callbacks
    patch.setattr(build, "stock_callbacks", lambda config: [*stock(config), callback])


@pytest.fixture(scope="module")
def lora_run(configure, tmp_path_factory):
    """A run and what its weights were."""
    run, weights = tmp_path_factory.mktemp("lora"), Weights()
    with pytest.MonkeyPatch.context() as patch:
        with_callback(patch, weights)
        train(configure("finetune=lora"), run)
    return run, weights


def read_checkpoint(run, name="last.ckpt"):
    return torch.load(run / "checkpoints" / name, weights_only=True)


def learns(name):
    return "lora_" in name or "pooler" in name or "classifier" in name


def assert_inference_gives_what_the_run_stored(run):
    """The exported adapter on its base gives the validation predictions of the best checkpoint."""
    stored = pq.read_table(run / "predictions/val.parquet").to_pylist()
    engine = load(run)
    texts = [open(row["path"], encoding="utf-8").read() for row in stored]  # noqa: SIM115
    ours = probabilities(engine.logits(texts))
    for row, computed in zip(stored, ours, strict=True):
        assert engine.labels.names[int(computed.argmax())] == row["prediction"]
    environment = json.loads((run / "environment.json").read_text())
    assert engine.artifact.temperature == environment["temperature"]["temperature"]


def test_only_adapters_and_head_learn(lora_run):
    _, weights = lora_run
    assert weights.changed() == {name for name in weights.before if learns(name)}
    assert len(weights.changed()) == 4 * 2 + 2 + 2


def test_a_checkpoint_holds_what_learns_and_no_base(lora_run):
    run, weights = lora_run
    state = {name for name in read_checkpoint(run)["state_dict"] if name.startswith("net.")}
    assert state == {f"net.{name}" for name in weights.before if learns(name)}


def test_a_model_folder_holds_the_adapter_and_says_what_it_is_of(lora_run, base):
    run, _ = lora_run
    assert sorted(path.name for path in (run / "model").iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", "base.json", "config.json", "doctune.json",
        "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    sha256 = hashlib.sha256((base / "model.safetensors").read_bytes()).hexdigest()
    assert json.loads((run / "model/base.json").read_text()) == {"schema": 1, "sha256": sha256, "quantised": None}
    environment = json.loads((run / "environment.json").read_text())
    assert environment["base"] == {"name": str(base), "revision": None, "sha256": sha256}


def test_the_report_says_how_many_parameters_learnt(lora_run):
    run, weights = lora_run
    learnt = sum(weight.numel() for name, weight in weights.before.items() if learns(name))
    total = sum(weight.numel() for weight in weights.before.values())
    report = json.loads((run / "report/report.json").read_text())
    assert {key: report["model"][key] for key in ("total", "trainable")} == {"total": total, "trainable": learnt}


def test_the_best_checkpoint_is_what_is_exported_and_predicts(lora_run):
    run, _ = lora_run
    best = json.loads((run / "environment.json").read_text())["best_checkpoint"]
    kept = torch.load(run / best, weights_only=True)["state_dict"]
    exported = load_file(run / "model/adapter_model.safetensors")
    for name, weight in exported.items():
        ours = name.removeprefix("base_model.model.").replace(
            ".weight", ".default.weight" if "lora_" in name else ".weight"
        )
        assert torch.equal(kept[f"net.{ours}"], weight), name
    assert_inference_gives_what_the_run_stored(run)


def test_evaluate_reads_the_adapter(lora_run, capsys):
    run, _ = lora_run
    assert main(["evaluate", str(run)]) == 0
    assert "6 of 6" in capsys.readouterr().out


class Kill(Callback):
    """Ends the process, without a last word, after so many micro-batches."""

    def __init__(self, count):
        self.left = count

    def on_train_batch_end(self, *_, **__):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def killed(patch, config, run, count):
    """Train in a forked process that dies."""
    with_callback(patch, Kill(count))
    child = os.fork()
    if child == 0:
        try:
            train(config, run)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)


EVERY_STEP = "callbacks.checkpoint.every_minutes=1e-9"


def test_a_killed_run_goes_on_to_the_same_bits(configure, lora_run, monkeypatch, tmp_path):
    whole, _ = lora_run
    with monkeypatch.context() as patch:
        killed(patch, configure("finetune=lora", EVERY_STEP), tmp_path, count=9)
    train(configure("finetune=lora", EVERY_STEP), tmp_path)
    ours, theirs = read_checkpoint(tmp_path), read_checkpoint(whole)
    assert ours["state_dict"].keys() == theirs["state_dict"].keys()
    assert all(torch.equal(ours["state_dict"][name], weight) for name, weight in theirs["state_dict"].items())
    moments, expected = (each["optimizer_states"][0]["state"] for each in (ours, theirs))
    assert all(torch.equal(moments[i][name], value) for i, state in expected.items() for name, value in state.items())
    assert (tmp_path / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()
    exported = [(run / "model/adapter_model.safetensors").read_bytes() for run in (tmp_path, whole)]
    assert exported[0] == exported[1]


def test_a_run_is_not_resumed_on_another_base(configure, base, monkeypatch, tmp_path):
    moved = shutil.copytree(base, tmp_path / "moved")
    config = configure("finetune=lora", f"model.path={moved}", EVERY_STEP)
    with monkeypatch.context() as patch:
        killed(patch, config, tmp_path / "run", count=5)
    weights = load_file(moved / "model.safetensors")
    weights["embeddings.LayerNorm.bias"] += 1e-3
    save_file(weights, moved / "model.safetensors", {"format": "pt"})
    with pytest.raises(ArtifactError) as refused:
        train(config, tmp_path / "run")
    assert str(refused.value) == (
        f"{tmp_path / 'run'} cannot be resumed: it trains an adapter of {moved}, whose weights are no longer those "
        "that it was trained on. Start a new run, or bring them back."
    )


class Exhaust(Callback):
    """More than two documents at once do not fit into memory."""

    def on_fit_start(self, trainer, pl_module):
        forward = type(pl_module.net).forward.__get__(pl_module.net)

        def limited(input_ids, **inputs):
            if len(input_ids) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate more than there is.")
            return forward(input_ids=input_ids, **inputs)

        pl_module.net.forward = limited


def test_when_memory_runs_out_adapters_go_on_in_smaller_pieces(configure, monkeypatch, tmp_path):
    with_callback(monkeypatch, Exhaust())
    train(configure("finetune=lora", "trainer.max_epochs=1"), tmp_path)
    assert json.loads((tmp_path / "environment.json").read_text())["micro_batch_size"] == 2


@pytest.fixture(scope="module")
def qlora_run(configure, tmp_path_factory):
    run = tmp_path_factory.mktemp("qlora")
    train(configure("finetune=qlora", "trainer.gradient_checkpointing=true"), run)
    return run


def test_a_base_in_four_bits_trains_and_predicts_as_it_was_trained(qlora_run):
    assert json.loads((qlora_run / "model/base.json").read_text())["quantised"] == {"type": "nf4", "double": True}
    assert all(learns(name) for name in read_checkpoint(qlora_run)["state_dict"] if name.startswith("net."))
    assert_inference_gives_what_the_run_stored(qlora_run)


def test_plain_adamw_on_a_cpu_is_said_once(configure, monkeypatch, tmp_path, caplog):
    caplog.set_level("INFO")
    train(configure("finetune=qlora", "trainer.max_epochs=1"), tmp_path)
    assert caplog.text.count("without a CUDA device there is nothing to page, so plain AdamW is used.") == 1


def test_a_merged_four_bit_run_agrees(qlora_run, tmp_path, capsys):
    run = shutil.copytree(qlora_run, tmp_path / "run")
    assert main(["export", str(run), "--merge"]) == 0
    assert "was in four bits" in capsys.readouterr().out
    text = ["Take 3 eggs and 4 spoons of sugar."]
    assert np.abs(load(run / "model/merged").logits(text) - load(run).logits(text)).max() < 1e-5


def test_long_documents_learn_through_adapters(configure, tmp_path):
    config = configure(
        "data=chunks", "finetune=lora", "data.max_chunks=3", "trainer.max_epochs=1", "data.chunk_stride=4"
    )
    train(config, tmp_path)
    assert {path.name for path in (tmp_path / "model").glob("*.safetensors")} == {
        "adapter_model.safetensors", "hierarchy.safetensors",
    }  # fmt: skip
    assert_inference_gives_what_the_run_stored(tmp_path)


def test_several_targets_learn_through_adapters(compose, tiny_encoder, targets_data, tmp_path):
    recipe = [each for each in RECIPE if not each.startswith("data.duplicate")]
    train(compose(*recipe, *targets_data, f"model.path={tiny_encoder('bert')}", "finetune=lora"), tmp_path)
    assert {path.name for path in (tmp_path / "model").glob("*.safetensors")} == {
        "adapter_model.safetensors", "multi_task.safetensors",
    }  # fmt: skip
    (found,) = load(tmp_path).predict_targets(["bake the dough with sugar"])
    assert [each.target for each in found] == ["kind", "tags", "mood"]
