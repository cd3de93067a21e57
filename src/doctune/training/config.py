"""The configuration of a run: its schema, what Hydra composes onto it, and the checks of the whole.

What every key means stands in `config_schema` and, for data, in `config_data`. Hydra composes `conf/` onto these
dataclasses, `from_hydra` turns the result into one checked `Config`. Nothing here imports torch, so that `--help` and
`--cfg job` answer at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, cast

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from doctune.errors import ConfigError
from doctune.training.config_adapter_checks import ADAPTER_STRATEGIES
from doctune.training.config_checks import problems
from doctune.training.config_data import (
    AugmentConfig,
    ChunksConfig,
    DataConfig,
    ExtractConfig,
    FileContentConfig,
    InstructionsConfig,
    MultiTaskConfig,
    SamplingConfig,
    SquadConfig,
    TargetConfig,
)
from doctune.training.config_schema import (
    CallbacksConfig,
    CascadeConfig,
    CausalConfig,
    CheckpointConfig,
    Config,
    EarlyStoppingConfig,
    FinetuneConfig,
    GapConfig,
    LearningConfig,
    LoggerConfig,
    LossConfig,
    MetricConfig,
    ModelConfig,
    MonitorConfig,
    OptimConfig,
    PrepareConfig,
    PretrainedConfig,
    ScheduleConfig,
    ScratchConfig,
    SearchConfig,
    SplitConfig,
    TrainerConfig,
)
from doctune.training.key_names import hint, known_keys

__all__ = [
    "ADAPTER_STRATEGIES",
    "DATA_KINDS",
    "MODEL_KINDS",
    "AugmentConfig",
    "CallbacksConfig",
    "CascadeConfig",
    "CausalConfig",
    "CheckpointConfig",
    "ChunksConfig",
    "Config",
    "DataConfig",
    "EarlyStoppingConfig",
    "ExtractConfig",
    "FileContentConfig",
    "FinetuneConfig",
    "GapConfig",
    "InstructionsConfig",
    "LearningConfig",
    "LoggerConfig",
    "LossConfig",
    "MetricConfig",
    "ModelConfig",
    "MonitorConfig",
    "MultiTaskConfig",
    "OptimConfig",
    "PrepareConfig",
    "PretrainedConfig",
    "SamplingConfig",
    "ScheduleConfig",
    "ScratchConfig",
    "SearchConfig",
    "SplitConfig",
    "SquadConfig",
    "TargetConfig",
    "TrainerConfig",
    "check",
    "from_hydra",
    "register_schemas",
]

MODEL_KINDS: dict[str, type] = {"pretrained": PretrainedConfig, "scratch": ScratchConfig, "causal": CausalConfig}
DATA_KINDS: dict[str, type] = {
    "file_content": FileContentConfig,
    "chunks": ChunksConfig,
    "squad": SquadConfig,
    "multi_task": MultiTaskConfig,
    "instructions": InstructionsConfig,
}


def register_schemas() -> None:
    """Give Hydra the dataclasses: the root as `schema/config`, choices of a group as `schema/<group>/<kind>`."""
    store = ConfigStore.instance()
    store.store(group="schema", name="config", node=Config, package="_global_")
    for group, kinds in {"schema/model": MODEL_KINDS, "schema/data": DATA_KINDS}.items():
        for kind, node in kinds.items():
            store.store(group=group, name=kind, node=node)
    store.store(group="hydra/sweeper", name="doctune", node=SearchConfig)


def from_hydra(composed: Any) -> Config:
    """The composed configuration as one checked `Config`.

    Raises:
        ConfigError: a value is missing or has the wrong type, or values contradict each other; all problems at once.
    """
    try:
        if OmegaConf.get_type(composed) is dict:  # the saved configuration of a run: plain values
            composed = _with_schema(composed)
        config = cast(Config, OmegaConf.to_object(composed))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {str(error).splitlines()[0]}") from error
    added = [*_unknown_keys(composed, config)]
    if added:
        known = {*known_keys(composed)}
        raise ConfigError(
            f"There is no key {', '.join(added)}.{hint(added, known - {*added})} `--cfg job` lists all keys; `+key=` "
            "cannot add new ones."
        )
    check(config)
    return config


def _with_schema(saved: Any) -> Any:
    """A saved configuration, typed again."""
    typed = OmegaConf.structured(Config)
    for group, kinds in {"model": MODEL_KINDS, "data": DATA_KINDS}.items():
        kind = saved[group].kind
        if kind not in kinds:
            raise ConfigError(f"{group}.kind={kind} is not a choice: {', '.join(kinds)}.")
        typed[group] = OmegaConf.structured(kinds[kind])
    return OmegaConf.merge(typed, saved)


def _unknown_keys(composed: Any, schema: Any, path: str = "") -> Iterator[str]:
    """The full paths of keys that `+key=value` added beside the schema's own."""
    known = {known_field.name for known_field in fields(schema)}
    for key in composed:
        if key not in known:
            yield f"{path}{key}"
        elif is_dataclass(getattr(schema, key)):
            yield from _unknown_keys(composed[key], getattr(schema, key), f"{path}{key}.")


def check(config: Config) -> None:
    """Refuse contradictions before anything is loaded.

    Raises:
        ConfigError: one line per problem, each with key, value found and values allowed.
    """
    found = [*problems(config)]
    if found:
        lines = "\n".join(f"  {problem}" for problem in found)
        raise ConfigError(f"The configuration cannot be run:\n{lines}")
