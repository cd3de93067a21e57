"""Pretrained encoders through `model.path`, with tiny models that the test builds."""

import json
import shutil

import pytest
import torch

from doctune.decode.classification import probabilities
from doctune.inference.engine import load
from doctune.training.run import train

ENCODERS = {"distilbert": "distilbert", "roberta": "roberta", "minilm": "bert"}


@pytest.mark.parametrize("model", ENCODERS)
def test_a_local_encoder_is_fine_tuned_and_exported(model, compose, tiny_encoder, manifest_of_files, tmp_path):
    folder = tiny_encoder(ENCODERS[model])
    config = compose(
        f"model={model}",
        f"model.path={folder}",
        f"data.manifest={manifest_of_files}",
        f"data.cache_dir={tmp_path / 'cache'}",
        "data.max_length=32",
        "trainer=smoke",
        "trainer.accelerator=cpu",
        "trainer.precision='32'",
        "optim.lr=1e-3",
        "logger=csv",
    )
    train(config, tmp_path / "run")
    environment = json.loads((tmp_path / "run/environment.json").read_text())
    assert environment["model"]["architecture"] == ENCODERS[model]
    assert environment["model"]["name"] == model

    from transformers import pipeline

    text = "Take 3 eggs and 4 spoons of sugar."
    pipe = pipeline("text-classification", model=str(tmp_path / "run/model"), device="cpu")
    engine = load(tmp_path / "run")
    (theirs,) = pipe([text])
    assert next(engine.predict([text])).label == theirs["label"]
    before = probabilities(engine.logits([text]))  # the pipeline knows no temperature
    assert before.max() == pytest.approx(theirs["score"], abs=1e-5)


def test_head_and_partial_leave_the_frozen_weights_as_they_were(compose, tiny_encoder, manifest_of_files, tmp_path):
    from safetensors.torch import load_file

    folder = tiny_encoder("bert")
    before = load_file(folder / "model.safetensors")
    changed = {}
    for strategy in (["finetune=head"], ["finetune=partial", "finetune.layers=1"]):
        run = tmp_path / strategy[0]
        config = compose(
            "model=minilm",
            f"model.path={folder}",
            f"data.manifest={manifest_of_files}",
            f"data.cache_dir={tmp_path / 'cache'}",
            "data.max_length=32",
            "trainer=smoke",
            "trainer.accelerator=cpu",
            "trainer.precision='32'",
            "optim.lr=1e-3",
            "logger=csv",
            *strategy,
        )
        train(config, run)
        after = load_file(run / "model/model.safetensors")
        changed[strategy[0]] = {
            name for name, weight in before.items() if not torch.equal(after[f"bert.{name}"], weight)
        }
    assert changed["finetune=head"] == set()
    assert {name.split(".")[2] for name in changed["finetune=partial"] if name.startswith("encoder.layer")} == {"1"}
    assert not [name for name in changed["finetune=partial"] if name.startswith("embeddings")]


@pytest.fixture
def fine_tune(compose, tiny_encoder, manifest_of_files, tmp_path):
    """A short run on a tiny BERT -> its folder."""

    def run(name, *overrides):
        config = compose(
            "model=minilm",
            f"model.path={tiny_encoder('bert')}",
            f"data.manifest={manifest_of_files}",
            f"data.cache_dir={tmp_path / 'cache'}",
            "data.max_length=32",
            "data.duplicate_threshold=1",
            "trainer.max_epochs=2",
            "trainer.effective_batch_size=8",
            "trainer.accelerator=cpu",
            "trainer.precision='32'",
            "optim.lr=1e-3",
            "logger=csv",
            "model.dropout=0",
            "model.head_dropout=0",
            *overrides,
        )
        train(config, tmp_path / name)
        return tmp_path / name

    return run


def losses_of(run):
    history = json.loads((run / "training_history.json").read_text())
    return [epoch[name] for epoch in history for name in ("train_loss", "val_loss", "train_eval_loss")]


def test_stored_encoder_outputs_give_the_losses_of_computing_them_in_each_epoch(fine_tune, tmp_path):
    stored = fine_tune("stored", "finetune=head")
    computed = fine_tune("computed", "finetune=head", "finetune.cache_encoder=false")
    assert losses_of(stored) == pytest.approx(losses_of(computed), abs=1e-5)
    assert len([*tmp_path.glob("cache/features/*/features.npy")]) == 3


def test_stored_encoder_outputs_are_found_again_and_belong_to_one_encoder(fine_tune, tmp_path, caplog):
    caplog.set_level("INFO")
    fine_tune("first", "finetune=head")
    fine_tune("again", "finetune=head", "seed=7")
    assert caplog.text.count("The frozen encoder reads all documents once.") == 1
    fine_tune("bf16", "finetune=head", "trainer.precision=bf16-mixed")
    assert caplog.text.count("The frozen encoder reads all documents once.") == 2


def test_gradient_checkpointing_changes_memory_not_results(fine_tune):
    plain, checkpointed = fine_tune("plain"), fine_tune("checkpointed", "trainer.gradient_checkpointing=true")
    assert losses_of(checkpointed) == pytest.approx(losses_of(plain), abs=1e-5)


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.parametrize(
    "also", ["finetune=gradual", pytest.param("trainer.gradient_checkpointing=true", marks=pytest.mark.slow)]
)
def test_compiled_layers_change_speed_not_results(fine_tune, also):
    plain, compiled = fine_tune("plain", also), fine_tune("compiled", also, "trainer.compile=true")
    assert losses_of(compiled) == pytest.approx(losses_of(plain), abs=1e-5)


def test_gradual_unfreezing_trains_one_more_layer_each_epoch(fine_tune, tiny_encoder):
    from safetensors.torch import load_file

    run = fine_tune("gradual", "finetune=gradual")
    before = load_file(tiny_encoder("bert") / "model.safetensors")
    after = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    changed = {name for name, weight in before.items() if not torch.equal(after[f"net.bert.{name}"], weight)}
    # The first epoch is the head's alone, the second releases the upper of the two layers.
    assert {name.split(".")[2] for name in changed if name.startswith("encoder.layer")} == {"1"}
    assert not [name for name in changed if name.startswith("embeddings")]


@pytest.mark.parametrize(
    "overrides",
    [
        ["loss=focal", "loss.class_weights=effective"],
        ["trainer.precision=bf16-mixed", "trainer.gradient_clip_val=0.5"],
        ["data.sampling.method=oversample", "data.augment.random_window=0.5", "data.augment.token_dropout=0.2"],
        ["data.sampling.method=undersample", "optim.layer_decay=0.8", "schedule=one_cycle"],
    ],
)
def test_losses_samplers_and_schedules_run_together(fine_tune, overrides):
    assert all(0 < loss < 3 for loss in losses_of(fine_tune("run", *overrides)))
