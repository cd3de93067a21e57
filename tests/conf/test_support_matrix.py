"""The README's support matrix is true: each cell runs, or is refused in a sentence."""

from pathlib import Path

import pytest

from doctune.errors import ConfigError

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
MODELS = {
    "a pretrained model": ("distilbert", "roberta", "minilm"),
    "`distilbert_mini`": ("distilbert_mini",),
    "`mistral`": ("mistral",),
}


def rows():
    """The data, the kind of model, and the cells: full, frozen, and the commands. A cell may name what works."""
    for line in README.splitlines():
        if line.startswith("| `data="):
            what, *cells = line.strip("| ").split(" | ")
            data, _, kind = what.partition(" with ")
            yield data.strip("`").removeprefix("data="), kind, cells


def cells():
    for data, kind, (full, frozen, *_) in rows():
        for model in MODELS[kind]:
            yield data, model, "full", full
            for strategy in ("head", "partial", "gradual", "lora", "qlora"):
                works = frozen == "yes" or f"`{strategy}`" in frozen
                yield data, model, strategy, "yes" if works else "refused"


@pytest.mark.parametrize(("data", "model", "finetune", "answer"), cells())
def test_the_matrix_says_what_happens(compose, data, model, finetune, answer):
    overrides = (f"data={data}", f"model={model}", f"finetune={finetune}")
    if answer == "yes":
        assert compose(*overrides).finetune.strategy == finetune
    else:
        scratch = f"would freeze the random weights of model={model}"
        refusal = "is for a new head" if data == "instructions" else scratch
        with pytest.raises(ConfigError, match=f"finetune={finetune} {refusal}"):
            compose(*overrides)


def test_the_matrix_names_every_model_and_every_kind_of_data():
    conf = Path(__file__).parents[2] / "conf"
    assert {model for _, model, _, _ in cells()} == {path.stem for path in (conf / "model").glob("*.yaml")}
    assert {data for data, _, _, _ in cells()} == {path.stem for path in (conf / "data").glob("*.yaml")}
