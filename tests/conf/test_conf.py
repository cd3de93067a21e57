"""Promises about the files in conf/."""

from pathlib import Path

import pytest
import yaml

from doctune.errors import ConfigError
from doctune.training import config as schema
from doctune.training.app import conf_dir

FILES = sorted(path for path in conf_dir().rglob("*.yaml") if path.name != "config.yaml")
GROUPS = {
    "finetune": schema.FinetuneConfig,
    "loss": schema.LossConfig,
    "optim": schema.OptimConfig,
    "schedule": schema.ScheduleConfig,
    "split": schema.SplitConfig,
    "trainer": schema.TrainerConfig,
    "callbacks": schema.CallbacksConfig,
    "logger": schema.LoggerConfig,
}
SCHEMAS = {
    "/schema/model/pretrained": schema.PretrainedConfig,
    "/schema/model/scratch": schema.ScratchConfig,
    "/schema/data/file_content": schema.FileContentConfig,
    "/schema/data/chunks": schema.ChunksConfig,
    "/schema/data/squad": schema.SquadConfig,
    "/schema/data/multi_task": schema.MultiTaskConfig,
    "/schema/data/instructions": schema.InstructionsConfig,
    "/schema/model/causal": schema.CausalConfig,
}


def name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def choices(group: str) -> list[str]:
    return [path.stem for path in FILES if path.parent.name == group]


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_file_is_short_and_says_what_choosing_it_means(path):
    lines = [line for line in path.read_text().splitlines() if not line.startswith("# @package")]
    assert len(lines) < 25
    assert lines[0].startswith("# ")
    assert "python train.py" in lines[0]


@pytest.mark.parametrize("path", FILES, ids=name)
def test_every_choice_composes_and_can_be_run(path, compose):
    group, choice = path.parent.name, path.stem
    fold = ["split.fold=0"] if choice == "kfold" else []
    needed = {"finetune": ["model=minilm"], "split": fold, "sweep": fold}
    partner = {"instructions": ["model=mistral"], "mistral": ["data=instructions"]}  # a decoder has data of its own
    compose(f"{group}={choice}", *needed.get(group, []), *partner.get(choice, []))


@pytest.mark.parametrize("model", choices("model"))
@pytest.mark.parametrize("data", choices("data"))
def test_every_pair_of_model_and_data_composes_but_decoders_have_data_of_their_own(model, data, compose):
    if (model == "mistral") != (data == "instructions"):
        with pytest.raises(ConfigError, match=r"is a decoder|tunes a decoder"):
            compose(f"model={model}", f"data={data}")
    else:
        assert compose(f"model={model}", f"data={data}").model.name == model


def deviations(values: dict, defaults: object, path: str = ""):
    for key, value in values.items():
        default = getattr(defaults, key, None)
        if isinstance(value, dict):
            yield from deviations(value, default, f"{path}{key}.")
        else:
            yield f"{path}{key}", value, default


def set_by_models() -> set[str]:
    """Keys outside their own group that a model= sets, so that an experiment must say what it wants of them."""
    found = set()
    for path in FILES:
        if path.parent.name == "model" and path.read_text().startswith("# @package _global_"):
            values = yaml.safe_load(path.read_text())
            del values["defaults"]
            found |= {key for key, _, _ in deviations(values, schema.Config())}
    return found


@pytest.mark.parametrize("path", FILES, ids=name)
def test_no_line_repeats_a_default(path):
    values = yaml.safe_load(path.read_text()) or {}
    based_on = [
        next(iter(entry), "").split("@")[0] if isinstance(entry, dict) else entry.split("@")[0]
        for entry in values.pop("defaults", [])
    ]
    root = schema.Config()
    for base in based_on:
        if base.startswith("/schema/model"):
            root.model = SCHEMAS[base]()
        if base.startswith("/schema/data"):
            root.data = SCHEMAS[base]()
    is_global = path.read_text().startswith("# @package _global_")
    own = {"model": root.model, "data": root.data}.get(path.parent.name) or GROUPS.get(path.parent.name, lambda: None)()
    for key, value, default in deviations(values, root if is_global else own):
        is_needed = path.parent.name == "experiment" and key in set_by_models()
        assert value != default or is_needed, f"{key}: {value} is the default already"
