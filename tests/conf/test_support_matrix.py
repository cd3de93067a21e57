"""The README's support matrix is true: each cell runs, or is refused in a sentence."""

from pathlib import Path

import pytest

from doctune.errors import ConfigError

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
MODELS = {"a pretrained model": ("distilbert", "roberta", "minilm"), "`distilbert_mini`": ("distilbert_mini",)}


def cells():
    rows = [line.strip("| ").split(" | ") for line in README.splitlines() if line.startswith("| `data=")]
    for what, full, frozen, predict in rows:
        data, _, kind = what.partition(" with ")
        assert predict == "yes"
        for model in MODELS[kind]:
            yield data.strip("`").removeprefix("data="), model, "full", full
            for strategy in ("head", "partial", "gradual"):
                yield data.strip("`").removeprefix("data="), model, strategy, frozen


@pytest.mark.parametrize(("data", "model", "finetune", "answer"), cells())
def test_the_matrix_says_what_happens(compose, data, model, finetune, answer):
    overrides = (f"data={data}", f"model={model}", f"finetune={finetune}")
    if answer == "yes":
        assert compose(*overrides).finetune.strategy == finetune
    else:
        with pytest.raises(ConfigError, match=f"finetune={finetune} would freeze the random weights of model={model}"):
            compose(*overrides)


def test_the_matrix_names_every_model():
    models = {path.stem for path in (Path(__file__).parents[2] / "conf/model").glob("*.yaml")}
    assert {model for _, model, _, _ in cells()} == models
