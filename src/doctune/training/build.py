"""Configuration -> objects. Each function takes the part of the configuration that it uses and calls constructors."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import lightning as L
import torch
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, RichProgressBar
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from doctune.corpus.vocabularies import wordpiece
from doctune.errors import ConfigError
from doctune.nets import encoder
from doctune.nets.adapters import AdapterSettings, adapt
from doctune.nets.attention import use_dropout_in_blocks
from doctune.nets.causal import is_decoder
from doctune.nets.compiled import compile_layers
from doctune.nets.dropout import use_dropout
from doctune.nets.frozen import keep_encoder_in_eval
from doctune.nets.parameters import freeze
from doctune.nets.quantised import Quantisation
from doctune.scoring.gap import GapThresholds
from doctune.training import config as schema
from doctune.training.alarms import Alarms
from doctune.training.callbacks.checkpoint import NamedCheckpoint
from doctune.training.callbacks.gap import GapGuard
from doctune.training.callbacks.learning import Chance, LearningGuards
from doctune.training.callbacks.resume_points import ResumePoints
from doctune.training.callbacks.status import StatusFile
from doctune.training.callbacks.stopping import EarlyStopping
from doctune.training.checkpoint_io import WholeCheckpointIO
from doctune.training.data.batches import BatchPlan
from doctune.training.data.views import RandomViews
from doctune.training.environment import has_bf16_instructions
from doctune.training.metrics_file import MetricsFile
from doctune.training.optim import Optimisation
from doctune.training.processes import Rank
from doctune.training.ranks import shared_training
from doctune.training.trackers import mlflow_logger, wandb_logger

Part = TypeVar("Part", Callback, Logger)


@dataclass(frozen=True)
class Encoder:
    """An encoder that is about to be built; `weights` is where they are, None for random ones."""

    config: PretrainedConfig
    tokenizer: PreTrainedTokenizerBase
    weights: str | None

    @property
    def backend(self) -> Tokenizer:
        """The Rust tokenizer behind the transformers one."""
        return self.tokenizer.backend_tokenizer

    @property
    def pads_left(self) -> bool:
        """Whether the encoder was trained with padding before the text."""
        return bool(self.tokenizer.padding_side == "left")


def pretrained_encoder(model: schema.PretrainedConfig, max_length: int) -> Encoder:
    """The encoder's architecture and tokenizer, without its weights yet.

    Raises:
        ArtifactError: it cannot be had.
        ConfigError: it is a decoder, or cannot read windows of `max_length` tokens.
    """
    architecture = encoder.pretrained_config(model.path)
    if is_decoder(architecture):
        raise ConfigError(
            f"model.path={model.path} is a decoder ({architecture.model_type}), whose tokens see only what stands "
            "before them; this data needs an encoder, such as model=minilm. A decoder is tuned with model=mistral "
            f"model.path={model.path} data=instructions."
        )
    return _pretrained(model, architecture, max_length)


def pretrained_decoder(model: schema.CausalConfig, max_length: int) -> Encoder:
    """The architecture and tokenizer of a causal language model, without its weights yet.

    Raises:
        ArtifactError: it cannot be had.
        ConfigError: it is none, or cannot read sequences of `max_length` tokens.
    """
    architecture = encoder.pretrained_config(model.path)
    if not is_decoder(architecture):
        raise ConfigError(
            f"model.path={model.path} is an encoder ({architecture.model_type}), which reads text; data=instructions "
            "needs a decoder, which writes it, such as mistralai/Mistral-7B-Instruct-v0.3."
        )
    return _pretrained(model, architecture, max_length)


def _pretrained(model: schema.PretrainedConfig, architecture: PretrainedConfig, max_length: int) -> Encoder:
    if max_length > encoder.max_window(architecture):
        raise ConfigError(
            f"data.max_length={max_length} is more than {model.name} can read: "
            f"{encoder.max_window(architecture)} tokens."
        )
    encoder.set_dropouts(architecture, _dropouts(model))
    return Encoder(architecture, encoder.pretrained_tokenizer(model.path), model.path)


def _dropouts(model: schema.ModelConfig) -> encoder.Dropouts:
    return encoder.Dropouts(model.dropout, model.head_dropout, model.attention_dropout)


def scratch_encoder(model: schema.ScratchConfig, training_texts: Sequence[str], cache: Path) -> Encoder:
    """A small encoder whose vocabulary comes from the training documents alone; a vocabulary is learnt once."""
    learnt = wordpiece(cache, training_texts, model.vocab_size)
    architecture = encoder.scratch_config(
        num_layers=model.num_layers,
        hidden_size=model.hidden_size,
        num_heads=model.num_heads,
        vocab_size=learnt.get_vocab_size(),
        max_position_embeddings=model.max_position_embeddings,
    )
    encoder.set_dropouts(architecture, _dropouts(model))
    tokenizer = encoder.scratch_tokenizer(learnt, model.max_position_embeddings)
    return Encoder(architecture, tokenizer, None)


def batch_plan(trainer: schema.TrainerConfig) -> BatchPlan:
    """How an effective batch is cut."""
    return BatchPlan(trainer.device_batch_size(), trainer.accumulation(), num_ranks=trainer.devices)


def alone(config: schema.Config) -> schema.Config:
    """The same for one process, with as many documents per forward pass."""
    micro = config.trainer.device_batch_size()
    trainer = replace(config.trainer, devices=1, strategy="auto", micro_batch_size=micro)
    return replace(config, trainer=trainer)


def random_views(augment: schema.AugmentConfig, source: Encoder) -> RandomViews | None:
    """What training sees of a document; None: its first window as it is.

    Raises:
        ConfigError: tokens are to be hidden, and the tokenizer has nothing to hide them behind.
    """
    if not (augment.random_window or augment.token_dropout):
        return None
    hidden = source.tokenizer.mask_token_id
    if hidden is None and augment.token_dropout:
        raise ConfigError("data.augment.token_dropout needs a tokenizer with a mask token, and this one has none.")
    return RandomViews(augment.random_window, augment.token_dropout, int(hidden or 0), source.tokenizer.all_special_ids)


def num_workers(data: schema.DataConfig) -> int:
    """Processes that prepare batches: tokens are memory-mapped, so that they pay only where a GPU would wait."""
    if data.num_workers is not None:
        return data.num_workers
    return min(4, (os.cpu_count() or 1) // 2) if torch.cuda.is_available() else 0


def optimisation(config: schema.Config, steps_per_epoch: int, precision: str) -> Optimisation:
    """Rates and steps; warmup is a share of all steps, unless it is given in steps.

    With a gradient scaler the optimiser is not fused: it would take the scale back itself, after clipping.
    """
    total = steps_per_epoch * config.trainer.max_epochs
    steps = config.schedule.warmup_steps
    return Optimisation(
        lr=config.optim.lr,
        head_lr_multiplier=config.optim.head_lr_multiplier,
        weight_decay=config.optim.weight_decay,
        schedule=config.schedule.name,
        warmup_steps=round(config.schedule.warmup_ratio * total) if steps is None else min(steps, total),
        total_steps=total,
        layer_decay=config.optim.layer_decay,
        pooling_lr_multiplier=config.optim.pooling_lr_multiplier,
        fused=precision != "16-mixed",
        paged=config.finetune.strategy == "qlora" and uses_cuda(config.trainer),
    )


def uses_cuda(trainer: schema.TrainerConfig) -> bool:
    """Whether the run trains on a CUDA device."""
    return trainer.accelerator in ("auto", "gpu") and torch.cuda.is_available()


def resolve_precision(trainer: schema.TrainerConfig) -> tuple[str, str | None]:
    """The precision to use, and a sentence where it is not the one that was asked for."""
    on_cuda = uses_cuda(trainer)
    if trainer.precision == "auto":
        if on_cuda:
            return "16-mixed", None
        on_cpu = trainer.accelerator == "cpu" or not torch.backends.mps.is_available()
        return ("bf16-mixed" if on_cpu and has_bf16_instructions() else "32"), None
    if trainer.precision == "16-mixed" and not on_cuda:
        return "32", "trainer.precision=16-mixed needs a CUDA device, and there is none: 32 is used."
    return trainer.precision, None


def prepare_net(net: PreTrainedModel, config: schema.Config) -> None:
    """Freeze what should not learn, or adapt it, and choose how dropout is computed.

    Args:
        net: a stock one, or one that has its encoder as `base_model` as they do; is changed.
        config: of the run.

    Raises:
        ConfigError: the net has fewer layers than are to be frozen, or none to adapt of such a name; layers are to be
            compiled, and there is no compiler.
    """
    strategy = config.finetune.strategy
    if strategy in schema.ADAPTER_STRATEGIES:
        adapt(net, adapter_settings(config))
    freeze(net, strategy, config.finetune.layers)
    if strategy == "head":
        keep_encoder_in_eval(net)
    if config.trainer.compile:
        compile_layers(net)
    elif not uses_cuda(config.trainer):
        use_dropout(net)  # which a compiler cannot look into
        use_dropout_in_blocks(cast(PreTrainedModel, net.base_model))
    if config.trainer.gradient_checkpointing:
        cast(PreTrainedModel, net.base_model).activation_checkpointing_enable({"use_reentrant": False})


def adapter_settings(config: schema.Config) -> AdapterSettings:
    """How adapters are put into a net; with qlora its base is quantised on the device that trains."""
    wanted, on_cuda = config.finetune, uses_cuda(config.trainer)
    assert None not in (wanted.rank, wanted.alpha, wanted.dropout), "checked with the configuration"
    return AdapterSettings(
        rank=cast(int, wanted.rank),
        alpha=cast(float, wanted.alpha),
        dropout=cast(float, wanted.dropout),
        target_modules=wanted.target_modules,
        quantisation=_quantisation(on_cuda) if wanted.strategy == "qlora" else None,
    )


def _quantisation(on_cuda: bool) -> Quantisation:
    if not on_cuda:
        return Quantisation("cpu", torch.float32)
    return Quantisation("cuda", torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16)


def optimiser_fallback(config: schema.Config) -> str | None:
    """A sentence where the optimiser is not the one that finetune=qlora has on a GPU."""
    if config.finetune.strategy != "qlora" or uses_cuda(config.trainer):
        return None
    return "finetune=qlora: without a CUDA device there is nothing to page, so plain AdamW is used."


def learning_guards(config: schema.Config, chance: Chance, weights: Tensor, alarms: Alarms) -> LearningGuards:
    """Says when training goes wrong.

    Args:
        chance: what an untrained model and a cheap baseline reach.
        weights: of the classes in the loss, (L,).
    """
    return LearningGuards(
        chance,
        weights.cpu(),
        monitor=config.monitor.metric,
        mode=config.monitor.mode,
        explosion=config.callbacks.learning.explosion,
        weight_ratio=config.callbacks.learning.weight_ratio,
        alarms=alarms,
    )


def gap_thresholds(gap: schema.GapConfig) -> GapThresholds:
    """Where a gap becomes good, moderate and critical."""
    return GapThresholds(gap.good, gap.moderate, gap.critical)


def gap_guard(config: schema.Config, alarms: Alarms, status: StatusFile) -> GapGuard:
    """Says when the model learns its training documents by heart."""
    gap = config.callbacks.gap
    return GapGuard(
        gap_thresholds(gap),
        checks=gap.checks if gap.stop else None,
        monitor=config.monitor.metric,
        mode=config.monitor.mode,
        alarms=alarms,
        status=status,
    )


def early_stopping(config: schema.Config) -> EarlyStopping | None:
    """Ends the run when the monitored metric no longer improves; None where it is turned off."""
    wanted = config.callbacks.early_stopping
    if not wanted.enabled:
        return None
    return EarlyStopping(
        config.monitor.metric, mode=config.monitor.mode, patience=wanted.patience, min_delta=wanted.min_delta
    )


def resume_points(config: schema.Config, run: Path, micro_batches: int) -> ResumePoints:
    """Saves within an epoch."""
    kept = config.callbacks.checkpoint
    return ResumePoints(
        run / "checkpoints",
        every_minutes=kept.every_minutes,
        every_n_steps=kept.every_n_steps,
        keep=kept.keep_interval,
        accumulation=config.trainer.accumulation(),
        micro_batches=micro_batches,
    )


def checkpoint_callback(config: schema.Config, run: Path) -> NamedCheckpoint:
    """Keeps the best and the last."""
    kept = config.callbacks.checkpoint
    return NamedCheckpoint(
        run / "checkpoints",
        prefix=kept.prefix,
        monitor=config.monitor.metric,
        mode=config.monitor.mode,
        save_top_k=kept.save_top_k,
    )


def stock_callbacks(config: schema.Config) -> list[Callback]:
    """Lightning's own callbacks that this configuration asks for, and those that the user brings."""
    callbacks: list[Callback] = [LearningRateMonitor("step")]
    if shows_progress(config.trainer):
        callbacks.append(RichProgressBar(leave=True))
    return [*callbacks, *brought_parts(config.trainer.extra_callbacks, Callback, "trainer.extra_callbacks")]


def shows_progress(trainer: schema.TrainerConfig) -> bool:
    """A bar is for people: log files get a line per epoch instead."""
    return trainer.progress and sys.stdout.isatty()


def loggers(
    config: schema.Config, run: Path, metrics: MetricsFile, first_step: int, *, is_main: bool = True
) -> list[Logger]:
    """metrics.csv always; TensorBoard, MLflow, Weights & Biases and the user's own where asked for.

    Of several processes only the main one has all of them; in the others the first two write nothing.

    TensorBoard does not show what a killed run has logged from `first_step` on, because the resumed one logs it again;
    the other two have such steps twice.

    Raises:
        TrainingError: MLflow's store cannot be used, or Weights & Biases is not logged in.
    """
    found: list[Logger] = [metrics]
    if config.logger.tensorboard:
        # Also 0, for a first start: tensorboard's slow reader takes only the second such event for a restart.
        purge: dict[str, Any] = {"purge_step": first_step}
        found.append(TensorBoardLogger(run, name="tensorboard", version="", default_hp_metric=False, **purge))
    if not is_main:
        return found
    if config.logger.mlflow:
        found.append(mlflow_logger(config, run))
    if config.logger.wandb:
        found.append(wandb_logger(config, run))
    return [*found, *brought_parts(config.logger.extra, Logger, "logger.extra")]  # type: ignore[type-abstract]


def brought_parts(entries: Sequence[dict[str, Any]], kind: type[Part], key: str) -> list[Part]:
    """Instances of the classes that users bring: `{_target_: package.Class, argument: value}`.

    Raises:
        ConfigError: no such class, or not a Lightning one of that kind.
    """
    return [_brought_part(dict(entry), kind, f"{key}[{index}]") for index, entry in enumerate(entries)]


def _brought_part(entry: dict[str, Any], kind: type[Part], key: str) -> Part:
    target = entry.pop("_target_", None)
    if not isinstance(target, str) or "." not in target:
        raise ConfigError(f"{key} needs a _target_ such as lightning.pytorch.callbacks.DeviceStatsMonitor.")
    module_name, _, class_name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{key}: {target} cannot be imported: {error}.") from error
    if not (isinstance(found, type) and issubclass(found, kind)):
        raise ConfigError(f"{key}: {target} is not a Lightning {kind.__name__}.")
    try:
        return found(**entry)
    except TypeError as error:
        raise ConfigError(f"{key}: {target} does not take these arguments: {error}.") from error


def trainer(
    config: schema.Config,
    run: Path,
    precision: str,
    callbacks: Sequence[Callback],
    loggers: Sequence[Logger],
    rank: Rank | None = None,
) -> Trainer:
    """Lightning's Trainer; batches shard themselves.

    Args:
        rank: which of several processes this is; None: it is the only one.
    """
    wanted = config.trainer
    devices: dict[str, Any] = {"accelerator": wanted.accelerator, "devices": 1}
    if rank is not None:
        devices = shared_training(wanted, releases_layers=config.finetune.strategy == "gradual", rank=rank)
    return L.Trainer(
        **devices,
        default_root_dir=run,
        precision=precision,  # type: ignore[arg-type]  # checked against PRECISIONS
        max_epochs=wanted.max_epochs,
        accumulate_grad_batches=wanted.accumulation(),
        gradient_clip_val=wanted.gradient_clip_val or None,
        deterministic=config.deterministic,
        log_every_n_steps=wanted.log_every_n_steps,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_model_summary=False,
        enable_progress_bar=shows_progress(wanted),
        logger=list(loggers),
        callbacks=list(callbacks),
        plugins=[WholeCheckpointIO()],
    )


def reader(config: schema.Config, precision: str, callback: Callback) -> Trainer:
    """A Trainer that only reads, on the same device with the same precision: for a frozen encoder's outputs."""
    return L.Trainer(
        accelerator=config.trainer.accelerator,
        devices=1,
        precision=precision,  # type: ignore[arg-type]  # checked against PRECISIONS
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=shows_progress(config.trainer),
        callbacks=[callback],
    )
