"""Configuration -> objects. Each function takes the part of the configuration that it uses and calls constructors."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import lightning as L
import torch
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, RichProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from tokenizers import Tokenizer
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from doctune.corpus.prepare import Corpus
from doctune.errors import ConfigError
from doctune.nets import encoder
from doctune.nets.assemble import classifier
from doctune.nets.parameters import freeze
from doctune.text.vocabulary import learn_wordpiece
from doctune.training import config as schema
from doctune.training.callbacks.checkpoint import NamedCheckpoint
from doctune.training.data.file_content import Facts, FileContentDataModule
from doctune.training.environment import has_bf16_instructions
from doctune.training.modules.classification import ClassificationModule
from doctune.training.optim import Optimisation

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


def pretrained_encoder(model: schema.PretrainedConfig, max_length: int) -> Encoder:
    """The encoder's architecture and tokenizer, without its weights yet.

    Raises:
        ArtifactError: it cannot be had.
        ConfigError: it cannot read windows of `max_length` tokens.
    """
    architecture = encoder.pretrained_config(model.path)
    if max_length > encoder.max_window(architecture):
        raise ConfigError(
            f"data.max_length={max_length} is more than {model.name} can read: "
            f"{encoder.max_window(architecture)} tokens."
        )
    encoder.set_dropouts(architecture, encoder.Dropouts(model.dropout, model.head_dropout))
    return Encoder(architecture, encoder.pretrained_tokenizer(model.path), model.path)


def scratch_encoder(model: schema.ScratchConfig, training_texts: Sequence[str]) -> Encoder:
    """A small encoder whose vocabulary comes from the training documents alone."""
    learnt = learn_wordpiece(training_texts, model.vocab_size)
    architecture = encoder.scratch_config(
        num_layers=model.num_layers,
        hidden_size=model.hidden_size,
        num_heads=model.num_heads,
        vocab_size=learnt.get_vocab_size(),
        max_position_embeddings=model.max_position_embeddings,
    )
    encoder.set_dropouts(architecture, encoder.Dropouts(model.dropout, model.head_dropout))
    tokenizer = encoder.scratch_tokenizer(learnt, model.max_position_embeddings)
    return Encoder(architecture, tokenizer, None)


def datamodule(config: schema.Config, documents: Corpus, source: Encoder) -> FileContentDataModule:
    """Batches for this encoder."""
    return FileContentDataModule(
        documents,
        source.backend,
        pad_id=int(source.tokenizer.pad_token_id),
        cache=Path(config.data.cache_dir),
        max_length=config.data.max_length,
        micro=config.trainer.device_batch_size(),
        accumulation=config.trainer.accumulation(),
        seed=config.seed,
        num_workers=config.data.num_workers,
    )


def module(config: schema.Config, source: Encoder, facts: Facts) -> ClassificationModule:
    """The classifier, with what should not learn frozen."""
    net = classifier(source.config, facts.labels, source.weights)
    freeze(net, config.finetune.strategy, config.finetune.layers)
    return ClassificationModule(
        net,
        class_counts=facts.class_counts,
        class_weighting=config.loss.class_weights,
        label_smoothing=config.loss.label_smoothing,
        optimisation=optimisation(config, facts.steps_per_epoch),
    )


def optimisation(config: schema.Config, steps_per_epoch: int) -> Optimisation:
    """Rates and steps; warmup is a share of all steps."""
    total = steps_per_epoch * config.trainer.max_epochs
    return Optimisation(
        lr=config.optim.lr,
        head_lr_multiplier=config.optim.head_lr_multiplier,
        weight_decay=config.optim.weight_decay,
        schedule=config.schedule.name,
        warmup_steps=round(config.schedule.warmup_ratio * total),
        total_steps=total,
    )


def resolve_precision(trainer: schema.TrainerConfig) -> tuple[str, str | None]:
    """The precision to use, and a sentence where it is not the one that was asked for."""
    on_cuda = trainer.accelerator in ("auto", "gpu") and torch.cuda.is_available()
    if trainer.precision == "auto":
        if on_cuda:
            return "16-mixed", None
        on_cpu = trainer.accelerator == "cpu" or not torch.backends.mps.is_available()
        return ("bf16-mixed" if on_cpu and has_bf16_instructions() else "32"), None
    if trainer.precision == "16-mixed" and not on_cuda:
        return "32", "trainer.precision=16-mixed needs a CUDA device, and there is none: 32 is used."
    return trainer.precision, None


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
    stopping = config.callbacks.early_stopping
    if stopping.enabled:
        callbacks.append(
            EarlyStopping(
                config.monitor.metric,
                mode=config.monitor.mode,
                patience=stopping.patience,
                min_delta=stopping.min_delta,
            )
        )
    if shows_progress(config.trainer):
        callbacks.append(RichProgressBar(leave=True))
    return [*callbacks, *brought_parts(config.trainer.extra_callbacks, Callback, "trainer.extra_callbacks")]


def shows_progress(trainer: schema.TrainerConfig) -> bool:
    """A bar is for people: log files get a line per epoch instead."""
    return trainer.progress and sys.stdout.isatty()


def loggers(config: schema.Config, run: Path) -> list[Logger]:
    """metrics.csv always; TensorBoard and the user's own where asked for."""
    found: list[Logger] = [CSVLogger(run, name="", version="", flush_logs_every_n_steps=50)]
    if config.logger.tensorboard:
        found.append(TensorBoardLogger(run, name="tensorboard", version="", default_hp_metric=False))
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


def trainer(config: schema.Config, run: Path, precision: str, callbacks: Sequence[Callback]) -> Trainer:
    """Lightning's Trainer; batches shard themselves."""
    wanted = config.trainer
    if wanted.accelerator == "gpu" and not torch.cuda.is_available():
        raise ConfigError("trainer.accelerator=gpu: there is no CUDA device here. Use trainer=auto or trainer=cpu.")
    return L.Trainer(
        default_root_dir=run,
        accelerator=wanted.accelerator,
        devices=1,
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
        logger=loggers(config, run),
        callbacks=list(callbacks),
    )
