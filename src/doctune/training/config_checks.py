"""What contradicts itself in a configuration, each in a sentence, before anything is loaded."""

from __future__ import annotations

import math
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

from doctune.corpus.duplicates import MIN_THRESHOLD
from doctune.text.chunks import Keep
from doctune.text.questions import WindowSettings
from doctune.training.config_adapter_checks import ADAPTER_LIBRARIES, ADAPTER_STRATEGIES, adapter_problems
from doctune.training.config_data import (
    AugmentConfig,
    ChunksConfig,
    DataConfig,
    FileContentConfig,
    InstructionsConfig,
    MultiTaskConfig,
    SquadConfig,
)
from doctune.training.config_instruction_checks import instruction_problems, kind_problems
from doctune.training.config_schema import (
    Config,
    LoggerConfig,
    OptimConfig,
    ScratchConfig,
    SplitConfig,
    TrainerConfig,
)
from doctune.training.config_target_checks import target_problems

PRECISIONS = ("auto", "32", "16-mixed", "bf16-mixed")
ACCELERATORS = ("auto", "cpu", "gpu", "mps")
PARALLEL = ("ddp", "fsdp")
STRATEGIES = ("full", "head", "partial", "gradual", *ADAPTER_STRATEGIES)
LOSSES = ("cross_entropy", "focal")
BALANCES = ("fixed", "uncertainty")
CLASS_WEIGHTS = ("none", "balanced", "effective")
SCHEDULES = ("linear", "cosine", "one_cycle", "constant")
SAMPLINGS = ("none", "oversample", "undersample")
PDF_BACKENDS = ("pymupdf", "pypdfium2")
SMALL_CLASSES = ("fail", "drop", "merge")
KEEPS = get_args(Keep)
POOLINGS = ("attention", "mean", "max", "transformer")
CHUNK_VECTORS = ("cls", "mean")
TEXT_VECTORS = ("mean", "cls")
CLASS_METRICS = ("val/f1_macro", "val/accuracy", "val/loss", "val/f1_mix")
METRICS = {
    "file_content": CLASS_METRICS,
    "chunks": CLASS_METRICS,
    "squad": ("val/f1", "val/exact_match", "val/loss"),
    "multi_task": ("val/f1_macro", "val/loss"),  # and those of each target
    "instructions": ("val/loss", "val/perplexity"),
}
SPLITS = ("holdout", "kfold")
WANDB_MODES = ("offline", "online", "disabled")
ENGINES = ("local", "ray")


def problems(config: Config) -> Iterator[str]:
    """Every contradiction: key, value found and values allowed."""
    yield from kind_problems(config)
    yield from _choice_problems(config)
    yield from _range_problems(config)
    yield from _batch_problems(config.trainer)
    yield from _device_problems(config)
    yield from _split_problems(config.split)
    yield from _metric_problems(config)
    yield from _engine_problems(config)
    yield from _combination_problems(config)
    yield from adapter_problems(config.finetune)
    for package in ADAPTER_LIBRARIES.get(config.finetune.strategy, ()):
        if not _is_installed(package):
            yield f"finetune={config.finetune.strategy} needs {package}: pip install 'doctune[lora]'"
    yield from _logger_problems(config.logger)
    yield from _cascade_problems(config)


def _choice_problems(config: Config) -> Iterator[str]:
    choices = [
        ("trainer.precision", config.trainer.precision, PRECISIONS),
        ("trainer.accelerator", config.trainer.accelerator, ACCELERATORS),
        ("trainer.strategy", config.trainer.strategy, ("auto", *PARALLEL)),
        ("finetune.strategy", config.finetune.strategy, STRATEGIES),
        ("loss.name", config.loss.name, LOSSES),
        ("loss.class_weights", config.loss.class_weights, CLASS_WEIGHTS),
        ("loss.balance", config.loss.balance, BALANCES),
        ("data.sampling.method", config.data.sampling.method, SAMPLINGS),
        ("schedule.name", config.schedule.name, SCHEDULES),
        ("split.kind", config.split.kind, SPLITS),
        ("split.small_classes", config.split.small_classes, SMALL_CLASSES),
        ("monitor.metric", config.monitor.metric, _metrics(config.data)),
        ("monitor.mode", config.monitor.mode, ("min", "max")),
        ("logger.wandb_mode", config.logger.wandb_mode, WANDB_MODES),
        ("prepare.engine", config.prepare.engine, ENGINES),
    ]
    if isinstance(config.data, FileContentConfig):
        choices.append(("data.extract.pdf_backend", config.data.extract.pdf_backend, PDF_BACKENDS))
    if isinstance(config.data, ChunksConfig):
        choices.append(("data.keep", config.data.keep, KEEPS))
        choices.append(("data.pooling", config.data.pooling, POOLINGS))
        choices.append(("data.chunk_vector", config.data.chunk_vector, CHUNK_VECTORS))
    if isinstance(config.data, MultiTaskConfig):
        choices.append(("data.vector", config.data.vector, TEXT_VECTORS))
    for key, value, allowed in choices:
        if value not in allowed:
            yield f"{key}={value} is not a choice: {', '.join(allowed)}."


def _metrics(data: DataConfig) -> tuple[str, ...]:
    """What can be monitored with this kind of data."""
    named = data.targets if isinstance(data, MultiTaskConfig) else ()
    return (*METRICS[data.kind], *(f"val/{name}/f1_macro" for name in named))


def _engine_problems(config: Config) -> Iterator[str]:
    engine = config.prepare.engine
    if engine == "ray" and not isinstance(config.data, FileContentConfig):
        yield f"prepare.engine=ray reads the files of a manifest, and data={config.data.kind} has none: leave it out."
    if config.prepare.ray_address is not None and engine != "ray":
        yield f"prepare.ray_address={config.prepare.ray_address} is for prepare.engine=ray only."


def _range_problems(config: Config) -> Iterator[str]:
    yield from _share_problems(config)
    yield from _positive_problems(config)
    yield from _count_problems(config)
    yield from _not_negative_problems(config)
    yield from _single_range_problems(config)


def _share_problems(config: Config) -> Iterator[str]:
    shares = {
        "loss.label_smoothing": config.loss.label_smoothing,
        "schedule.warmup_ratio": config.schedule.warmup_ratio,
        "model.dropout": config.model.dropout,
        "model.attention_dropout": config.model.attention_dropout,
        "model.head_dropout": config.model.head_dropout,
        "loss.beta": config.loss.beta,
        "data.augment.token_dropout": config.data.augment.token_dropout,
    }
    for key, share in shares.items():
        if share is not None and not 0 <= share < 1:
            yield f"{key}={share} must be at least 0 and below 1."
    up_to_one = {
        "data.augment.random_window": config.data.augment.random_window,
        "data.sampling.strength": config.data.sampling.strength,
    }
    if isinstance(config.data, SquadConfig):
        up_to_one["data.empty_windows"] = config.data.empty_windows
    for key, share in up_to_one.items():
        if not 0 <= share <= 1:
            yield f"{key}={share} must be between 0 and 1."


def _positive_problems(config: Config) -> Iterator[str]:
    positive = {
        "optim.lr": config.optim.lr,
        "optim.head_lr_multiplier": config.optim.head_lr_multiplier,
        "optim.pooling_lr_multiplier": config.optim.pooling_lr_multiplier,
        "loss.balance_lr": config.loss.balance_lr,
        "trainer.max_epochs": config.trainer.max_epochs,
        "trainer.effective_batch_size": config.trainer.effective_batch_size,
        "callbacks.early_stopping.patience": config.callbacks.early_stopping.patience,
        "callbacks.learning.weight_ratio": config.callbacks.learning.weight_ratio,
        "callbacks.learning.explosion": config.callbacks.learning.explosion,
        "split.val": config.split.val,
        "split.test": config.split.test,
    }
    for key, number in positive.items():
        if not (number > 0 and math.isfinite(number)):
            yield f"{key}={number} must be larger than 0."


def _count_problems(config: Config) -> Iterator[str]:
    at_least_one = {
        "trainer.log_every_n_steps": config.trainer.log_every_n_steps,
        "trainer.check_every_n_steps": config.trainer.check_every_n_steps,
        "callbacks.checkpoint.every_n_steps": config.callbacks.checkpoint.every_n_steps,
        "callbacks.checkpoint.save_top_k": config.callbacks.checkpoint.save_top_k,
        "callbacks.checkpoint.keep_interval": config.callbacks.checkpoint.keep_interval,
        "callbacks.gap.checks": config.callbacks.gap.checks,
        "data.augment.windows": config.data.augment.windows,
        "finetune.layers": config.finetune.layers,
        "cascade.trees": config.cascade.trees,
        "cascade.max_features": config.cascade.max_features,
    }
    if isinstance(config.model, ScratchConfig):
        for name in ("num_layers", "hidden_size", "num_heads", "vocab_size", "max_position_embeddings"):
            at_least_one[f"model.{name}"] = getattr(config.model, name)
    if isinstance(config.data, FileContentConfig):
        at_least_one["data.extract.workers"] = config.data.extract.workers
        at_least_one["data.max_documents"] = config.data.max_documents
    if isinstance(config.data, ChunksConfig):
        for name in ("max_chunks", "chunks_per_pass"):
            at_least_one[f"data.{name}"] = getattr(config.data, name)
    if isinstance(config.data, MultiTaskConfig | InstructionsConfig):
        at_least_one["data.max_train"] = config.data.max_train
    if isinstance(config.data, SquadConfig):
        for name in ("max_question_length", "max_answer_length", "max_questions", "max_judge_questions"):
            at_least_one[f"data.{name}"] = getattr(config.data, name)
    for key, count in at_least_one.items():
        if count is not None and count < 1:
            yield f"{key}={count} must be at least 1."


def _not_negative_problems(config: Config) -> Iterator[str]:
    not_negative = {
        "data.num_workers": config.data.num_workers,
        "data.prune_unused_days": config.data.prune_unused_days,
        "trainer.gradient_clip_val": config.trainer.gradient_clip_val,
        "loss.gamma": config.loss.gamma,
        "schedule.warmup_steps": config.schedule.warmup_steps,
        "optim.weight_decay": config.optim.weight_decay,
    }
    for key, amount in not_negative.items():
        if amount is not None and not amount >= 0:
            yield f"{key}={amount} must not be negative."


def _single_range_problems(config: Config) -> Iterator[str]:
    minutes = config.callbacks.checkpoint.every_minutes
    if minutes is not None and not minutes > 0:
        yield f"callbacks.checkpoint.every_minutes={minutes} must be larger than 0; null saves at epochs' ends only."
    decay = config.optim.layer_decay
    if decay is not None and not 0 < decay <= 1:
        yield f"optim.layer_decay={decay} must be above 0 and at most 1."
    gap = config.callbacks.gap
    if not gap.good < gap.moderate < gap.critical:
        yield f"callbacks.gap: good={gap.good}, moderate={gap.moderate}, critical={gap.critical} must rise."
    if config.data.max_length < 8:
        yield f"data.max_length={config.data.max_length} must be at least 8 tokens."
    if not 0 <= config.seed < 2**32:
        yield f"seed={config.seed} must be between 0 and {2**32 - 1}."
    if config.split.val + config.split.test >= 1:
        yield f"split.val={config.split.val} and split.test={config.split.test} leave nothing to train on."


def _batch_problems(trainer: TrainerConfig) -> Iterator[str]:
    micro, effective, devices = trainer.micro_batch_size, trainer.effective_batch_size, trainer.devices
    if micro is not None and micro < 1:
        yield f"trainer.micro_batch_size={micro} must be at least 1."
    elif devices > 1 and effective % (devices * (micro or 1)):
        together = devices * (micro or 1)
        of_micro = "" if micro is None else f" times trainer.micro_batch_size={micro}"
        yield (
            f"trainer.effective_batch_size={effective} is not a multiple of trainer.devices={devices}{of_micro}: "
            f"choose {_multiples_beside(effective, together)}."
        )
    elif micro is not None and effective % micro:
        yield (
            f"trainer.effective_batch_size={effective} is not a multiple of trainer.micro_batch_size={micro}: "
            f"choose {_multiples_beside(effective, micro)}."
        )


def _multiples_beside(number: int, step: int) -> str:
    """The multiples of `step` below and above `number`; below the first there is none."""
    below, above = number // step * step, (number // step + 1) * step
    return f"{below} or {above}" if below else str(above)


def _device_problems(config: Config) -> Iterator[str]:
    trainer = config.trainer
    if trainer.devices < 1:
        yield (
            f"trainer.devices={trainer.devices} must be at least 1: say how many GPUs, or processes on a CPU, are to "
            "work together."
        )
    if trainer.devices < 2:
        return
    if trainer.strategy not in PARALLEL:
        yield (
            f"trainer.devices={trainer.devices} needs trainer=ddp, where each has the whole model, or trainer=fsdp, "
            "where they share it."
        )
    if trainer.accelerator == "mps":
        yield f"trainer.devices={trainer.devices}: trainer.accelerator=mps has one device."
    if trainer.strategy == "fsdp":
        yield from _sharding_problems(config)


def _sharding_problems(config: Config) -> Iterator[str]:
    """What cannot be done with weights that no process has whole."""
    strategy = config.finetune.strategy
    if config.data.kind != "file_content":
        yield f"trainer=fsdp is for classifiers of one window (data=ifmos); data={config.data.kind} needs trainer=ddp."
    if strategy == "head":
        yield "trainer=fsdp shares what the optimiser holds, and finetune=head leaves little of it: use trainer=ddp."
    if strategy == "gradual":
        yield "trainer=fsdp cannot release layers while it trains, as finetune=gradual does: use trainer=ddp."
    if config.trainer.precision == "16-mixed":
        yield "trainer=fsdp has no gradient scaler for trainer.precision=16-mixed: use bf16-mixed or 32."


def _split_problems(split: SplitConfig) -> Iterator[str]:
    if split.kind == "holdout" and split.fold is not None:
        yield f"split.fold={split.fold} is for split=kfold only."
    if split.kind != "kfold":
        return
    numbers = ",".join(str(number) for number in range(split.folds))
    if split.folds < 2:
        yield f"split.folds={split.folds} must be at least 2."
    elif split.fold is None:
        yield f"split=kfold needs split.fold; all of them: python train.py -m split=kfold split.fold={numbers}"
    elif not 0 <= split.fold < split.folds:
        yield f"split.fold={split.fold} is not one of the split.folds={split.folds} folds: {numbers}."
    if split.file is not None:
        yield "split.file is for split=holdout: a saved split has its parts already."


def _metric_problems(config: Config) -> Iterator[str]:
    given = config.metric.class_weights
    if given is not None and not _is_weights(given):
        yield (
            f"metric.class_weights={given} must give each label a number from 0, and one more than 0, such as "
            "{General: 0.3, Teen: 0.3, Mature: 0.4}."
        )
        return
    if config.monitor.metric == "val/f1_mix" and given is None:
        yield (
            "monitor.metric=val/f1_mix mixes the F1 of the labels in the shares that metric.class_weights gives, and "
            "it gives none: 'metric.class_weights={General: 0.3, Teen: 0.3, Mature: 0.4}'."
        )
    if given is not None and not isinstance(config.data, FileContentConfig):
        yield f"metric.class_weights are for classes; data={config.data.kind} has none."


def _is_weights(given: Any) -> bool:
    """Whether it is a mapping to numbers from 0, not all of them 0."""
    if not isinstance(given, dict):
        return False
    weights = [*given.values()]
    are_numbers = all(isinstance(each, int | float) and 0 <= each < math.inf for each in weights)
    return are_numbers and any(weights)


def _combination_problems(config: Config) -> Iterator[str]:
    if config.finetune.strategy == "partial" and config.finetune.layers is None:
        yield "finetune=partial needs finetune.layers, the number of encoder layers to freeze from the bottom."
    if config.finetune.strategy != "partial" and config.finetune.layers is not None:
        yield f"finetune.layers={config.finetune.layers} is for finetune=partial only."
    is_frozen = config.finetune.strategy == "head" and not isinstance(config.model, ScratchConfig)
    if is_frozen and config.finetune.cache_encoder and _augments(config.data.augment):
        yield "data.augment shows other tokens in each epoch; with finetune=head it needs finetune.cache_encoder=false."
    if config.loss.name != "focal" and config.loss.gamma is not None:
        yield f"loss.gamma={config.loss.gamma} is for loss=focal only."
    if config.loss.name == "focal" and config.loss.gamma is None:
        yield "loss.name=focal needs loss.gamma; loss=focal sets both, with gamma 2."
    if isinstance(config.model, ScratchConfig):
        if config.finetune.strategy != "full":
            yield f"finetune={config.finetune.strategy} would freeze the random weights of model={config.model.name}."
        if config.data.max_length > config.model.max_position_embeddings:
            yield (
                f"data.max_length={config.data.max_length} is more than {config.model.name} can read: "
                f"model.max_position_embeddings={config.model.max_position_embeddings}."
            )
        if config.model.num_heads > 0 and config.model.hidden_size % config.model.num_heads:
            yield (
                f"model.hidden_size={config.model.hidden_size} is not a multiple of "
                f"model.num_heads={config.model.num_heads}."
            )
    if isinstance(config.data, FileContentConfig):
        yield from _file_content_problems(config.data)
    if isinstance(config.data, ChunksConfig):
        yield from _chunks_problems(config.data)
    elif config.optim.pooling_lr_multiplier != OptimConfig.pooling_lr_multiplier:
        yield f"optim.pooling_lr_multiplier={config.optim.pooling_lr_multiplier} is for data=chunks only."
    if isinstance(config.data, SquadConfig):
        yield from _squad_problems(config, config.data)
    if isinstance(config.data, MultiTaskConfig):
        yield from target_problems(config, config.data)
    if isinstance(config.data, InstructionsConfig):
        yield from instruction_problems(config, config.data)
    if not isinstance(config.data, MultiTaskConfig) and config.loss.balance != "fixed":
        yield f"loss.balance={config.loss.balance} weighs several targets; data={config.data.kind} has one."


def _logger_problems(logger: LoggerConfig) -> Iterator[str]:
    if logger.mlflow_uri is not None and not logger.mlflow:
        yield f"logger.mlflow_uri={logger.mlflow_uri} is for logger=mlflow only."
    if logger.wandb_mode != LoggerConfig.wandb_mode and not logger.wandb:
        yield f"logger.wandb_mode={logger.wandb_mode} is for logger=wandb only."
    for package, is_wanted in {"mlflow": logger.mlflow, "wandb": logger.wandb}.items():
        if is_wanted and not _is_installed(package):
            yield f"logger={package} needs {package}: pip install 'doctune[{package}]'"


def _cascade_problems(config: Config) -> Iterator[str]:
    if not config.cascade.forest:
        return
    if not isinstance(config.data, FileContentConfig):
        yield f"cascade.forest=true is for classes; data={config.data.kind} has none."
    if not _is_installed("skops"):
        yield "cascade.forest=true needs skops: pip install 'doctune[cascade]'"


def _is_installed(package: str) -> bool:
    found = find_spec(package)
    return found is not None and found.origin is not None  # a plain folder ./wandb could be imported too


def _augments(augment: AugmentConfig) -> bool:
    return bool(augment.random_window or augment.token_dropout)


def _file_content_problems(data: FileContentConfig) -> Iterator[str]:
    if not MIN_THRESHOLD <= data.duplicate_threshold <= 1:
        yield f"data.duplicate_threshold={data.duplicate_threshold} must be between {MIN_THRESHOLD} and 1."
    for key, share in {"min_confidence": data.min_confidence, "max_unusable": data.max_unusable}.items():
        if not 0 <= share <= 1:
            yield f"data.{key}={share} must be between 0 and 1."
    is_database = Path(data.manifest).suffix.lower() in (".db", ".sqlite", ".sqlite3")
    if data.query is not None and not is_database:
        yield f"data.query is for an SQLite database (.db, .sqlite, .sqlite3); data.manifest={data.manifest} is none."


def _chunks_problems(data: ChunksConfig) -> Iterator[str]:
    largest = data.max_length - 3
    if not 0 <= data.chunk_stride <= largest:
        yield (
            f"data.chunk_stride={data.chunk_stride} must be from 0 to {largest}: a chunk of data.max_length="
            f"{data.max_length} has {largest + 1} tokens besides the special ones, and each must bring a new one."
        )
    if data.augment.random_window:
        yield "data.augment.random_window is for data that shows one window; data=chunks shows up to data.max_chunks."


def _squad_problems(config: Config, data: SquadConfig) -> Iterator[str]:
    cut = WindowSettings(data.max_length, data.doc_stride, data.max_question_length).problem()
    if cut:
        yield cut
    if data.doc_stride < 0:
        yield f"data.doc_stride={data.doc_stride} must not be negative."
    if config.loss.name != "cross_entropy":
        yield f"loss={config.loss.name} is for classes; data=squad needs loss=cross_entropy."
    if data.sampling.method != "none":
        yield f"data.sampling.method={data.sampling.method} is for classes; data=squad has none."
    if data.augment.random_window:
        yield "data.augment.random_window is for classifiers; data=squad shows all windows of a context anyway."
    if data.test_path is not None and config.split.kind == "kfold":
        yield "data.test_path names the questions that judge, and split=kfold makes every fold judge: leave one out."
