"""What contradicts itself in a configuration of several targets, each in a sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from doctune.corpus.duplicates import MIN_THRESHOLD
from doctune.corpus.targets import DerivedTarget, Target, TargetColumn, check_targets
from doctune.errors import ConfigError
from doctune.training.config_data import MultiTaskConfig, TargetConfig
from doctune.training.config_schema import Config, LossConfig

# Columns that `doctune predict` writes beside those of the targets.
_TAKEN = ("path", "status", "reason")


def target_problems(config: Config, data: MultiTaskConfig) -> Iterator[str]:
    """Every contradiction: key, value found and values allowed."""
    yield from _data_problems(config, data)
    try:
        targets = data.typed_targets()
    except ConfigError as problem:
        yield str(problem)
        return
    mixed_up = [*_source_problems(targets)]
    yield from mixed_up
    if not mixed_up:
        yield from _label_problems(targets)
    if data.stratify is not None and data.stratify not in targets:
        yield f"data.stratify={data.stratify} is no target; targets: {', '.join(targets)}."
    yield from _weight_problems(config.loss, targets)


def described_target(name: str, target: TargetConfig, label_names: tuple[str, ...] = ()) -> Target:
    """The target as the corpus knows it.

    Args:
        label_names: what `target.names` holds; () while it has not been read.

    Raises:
        ConfigError: it contradicts itself.
    """
    if target.source is not None:
        groups = {group: tuple(labels) for group, labels in target.groups.items()}
        return DerivedTarget(name, target.source, groups, target.kind, target.mixed)
    return TargetColumn(name, target.kind, target.column or "", target.separator, label_names, target.names or "")


def _data_problems(config: Config, data: MultiTaskConfig) -> Iterator[str]:
    if not data.train:
        yield "data.train is empty; name at least one table: data.train=[train.tsv]."
    if not MIN_THRESHOLD <= data.duplicate_threshold <= 1:
        yield f"data.duplicate_threshold={data.duplicate_threshold} must be between {MIN_THRESHOLD} and 1."
    if not 0 <= data.max_unusable <= 1:
        yield f"data.max_unusable={data.max_unusable} must be between 0 and 1."
    if data.sampling.method != "none":
        yield (
            f"data.sampling.method={data.sampling.method} is for data with one label per text; several targets have "
            "loss.class_weights."
        )
    if config.split.kind == "kfold" and (data.val or data.test):
        yield (
            "data.val and data.test name the texts that choose and judge, and split=kfold makes every fold judge: "
            "data.val=[] data.test=[]."
        )


def _source_problems(targets: Mapping[str, TargetConfig]) -> Iterator[str]:
    """Keys of a target that are for the other kind: one with a column of its own, or one that follows from another."""
    for name, target in targets.items():
        key = f"data.targets.{name}"
        if not name or "/" in name:
            yield f"{key}: the name of a target must not be empty or have a slash, which metrics put behind it."
        if name in _TAKEN:
            yield f"{key}: a target cannot be called {name}, as a column of the predictions is."
        if target.source is None and target.groups:
            yield f"{key}.groups needs {key}.source, the target whose labels are grouped."
        if target.source is None and target.mixed is not None:
            yield f"{key}.mixed={target.mixed} is for a target with a source."
        if target.source is not None and (target.column is not None or target.names is not None):
            yield f"{key} follows from {key}.source={target.source}, so it has no column and no names of its own."


def _label_problems(targets: Mapping[str, TargetConfig]) -> Iterator[str]:
    described = []
    for name, target in targets.items():
        try:
            described.append(described_target(name, target))
        except ConfigError as problem:
            yield str(problem)
    if len(described) < len(targets):
        return
    try:
        check_targets(described)
    except ConfigError as problem:
        yield str(problem)


def _weight_problems(loss: LossConfig, targets: Mapping[str, TargetConfig]) -> Iterator[str]:
    weights = {f"data.targets.{name}.weight": target.weight for name, target in targets.items()}
    for key, weight in weights.items():
        if not 0 <= weight < float("inf"):
            yield f"{key}={weight} must be a number from 0."
        if loss.balance == "uncertainty" and weight != TargetConfig.weight:
            yield f"{key}={weight} is for loss.balance=fixed; loss.balance=uncertainty learns the weights."
    if targets and not any(weights.values()):
        yield f"{', '.join(weights)} are all 0; nothing would be learnt."
    if loss.balance == "fixed" and loss.balance_lr != LossConfig.balance_lr:
        yield f"loss.balance_lr={loss.balance_lr} is for loss.balance=uncertainty only."
