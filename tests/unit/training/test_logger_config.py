"""The `logger` group refuses what cannot be logged before anything is loaded."""

import sys
from importlib.util import find_spec

import pytest

from doctune.errors import ConfigError
from doctune.training import config as schema
from doctune.training import config_checks


@pytest.mark.parametrize("package", ["mlflow", "wandb"])
def test_a_missing_package_is_named_with_the_command_that_installs_it(package, compose, monkeypatch):
    monkeypatch.setattr(config_checks, "find_spec", lambda name: None if name == package else find_spec(name))
    with pytest.raises(ConfigError) as refused:
        compose(f"logger={package}")
    assert str(refused.value).splitlines()[1:] == [
        f"  logger={package} needs {package}: pip install 'doctune[{package}]'"
    ]


def test_a_folder_of_that_name_is_no_package(compose, monkeypatch, tmp_path):
    (tmp_path / "wandb").mkdir()
    config = compose("logger=wandb")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(ConfigError, match="logger=wandb needs wandb"):
        schema.check(config)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            ["logger=wandb", "logger.wandb_mode=dryrun"],
            "logger.wandb_mode=dryrun is not a choice: offline, online, disabled.",
        ),
        (["logger.wandb_mode=online"], "logger.wandb_mode=online is for logger=wandb only."),
        (["logger.mlflow_uri=http://host:5000"], "logger.mlflow_uri=http://host:5000 is for logger=mlflow only."),
    ],
)
def test_what_contradicts_itself_is_refused(overrides, sentence, compose):
    with pytest.raises(ConfigError) as refused:
        compose(*overrides)
    assert str(refused.value).splitlines()[1:] == [f"  {sentence}"]
