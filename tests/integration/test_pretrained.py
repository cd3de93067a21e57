"""Pretrained encoders through `model.path`, with tiny models that the test builds."""

import json

import pytest
import torch

from doctune.inference.predictor import load
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
    (ours,) = load(tmp_path / "run").predict([text])
    (theirs,) = pipe([text])
    assert (ours.label, ours.score) == (theirs["label"], pytest.approx(theirs["score"], abs=1e-5))


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
