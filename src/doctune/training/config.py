"""The schema of a run's configuration: what every key means, its unit, its default and what it excludes.

Hydra composes `conf/` onto these dataclasses, `from_hydra` turns the result into one checked `Config`. Nothing here
imports torch, so that `--help` and `--cfg job` answer at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast, get_args

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from doctune.corpus.duplicates import MIN_THRESHOLD
from doctune.errors import ConfigError
from doctune.text.chunks import Keep
from doctune.text.questions import WindowSettings

PRECISIONS = ("auto", "32", "16-mixed", "bf16-mixed")
ACCELERATORS = ("auto", "cpu", "gpu", "mps")
STRATEGIES = ("full", "head", "partial", "gradual")
LOSSES = ("cross_entropy", "focal")
CLASS_WEIGHTS = ("none", "balanced", "effective")
SCHEDULES = ("linear", "cosine", "one_cycle", "constant")
SAMPLINGS = ("none", "oversample", "undersample")
PDF_BACKENDS = ("pymupdf", "pypdfium2")
SMALL_CLASSES = ("fail", "drop", "merge")
KEEPS = get_args(Keep)
POOLINGS = ("attention", "mean", "max", "transformer")
CHUNK_VECTORS = ("cls", "mean")
CLASS_METRICS = ("val/f1_macro", "val/accuracy", "val/loss", "val/f1_mix")
METRICS = {
    "file_content": CLASS_METRICS,
    "chunks": CLASS_METRICS,
    "squad": ("val/f1", "val/exact_match", "val/loss"),
}
SPLITS = ("holdout", "kfold")
WANDB_MODES = ("offline", "online", "disabled")


@dataclass
class ModelConfig:
    """What every encoder has."""

    kind: str = MISSING
    """pretrained or scratch."""
    name: str = MISSING
    """How the run calls it in logs and reports."""
    dropout: float | None = None
    """Dropout probability inside the encoder (hidden states and attention); None keeps the encoder's own."""
    head_dropout: float | None = None
    """Dropout probability before the head's last layer; None keeps the encoder's own."""


@dataclass
class PretrainedConfig(ModelConfig):
    """An encoder that somebody has trained already."""

    kind: str = "pretrained"
    path: str = MISSING
    """A model's name on the hub, or a local folder with config.json, weights and tokenizer."""


@dataclass
class ScratchConfig(ModelConfig):
    """A small DistilBERT that starts from random weights, with a tokenizer learnt from the training documents."""

    kind: str = "scratch"
    num_layers: int = 2
    hidden_size: int = 128
    num_heads: int = 2
    vocab_size: int = 8000
    """The most tokens the learnt vocabulary may have; a small corpus ends with fewer."""
    max_position_embeddings: int = 512
    """The longest window, in tokens, that the encoder can read; `data.max_length` must not be larger."""


@dataclass
class ExtractConfig:
    """Limits for reading one file, kept in a worker process."""

    timeout_s: float = 30.0
    memory_mb: int = 2048
    workers: int | None = None
    """Worker processes; None: one per core. Results never depend on it."""
    pdf_backend: str = "pymupdf"
    """pymupdf (AGPL or commercial) or pypdfium2 (BSD / Apache)."""
    scrub: bool = False
    """Replace e-mail addresses, phone and card numbers, IBANs, IP addresses and keys before text is stored."""


@dataclass
class SamplingConfig:
    """How often an epoch shows the documents of each class; class weights are computed from what it shows."""

    method: str = "none"
    """none: every document once; oversample: rare classes more often; undersample: common classes less often."""
    strength: float = 1.0
    """A class of n documents is shown n^(1 - strength) × reference^strength times, the reference being the largest
    class (oversample) or the smallest (undersample): 1 makes all equal, 0.5 goes half the way."""


@dataclass
class AugmentConfig:
    """Random views of training documents; validation and test always see the head window as it is."""

    random_window: float = 0.0
    """The probability that a document shows one of its leading windows instead of the first; 0 to 1."""
    windows: int = 4
    """How many leading windows of a long document are read for it."""
    token_dropout: float = 0.0
    """The probability that a token is hidden behind the mask token; 0 to 1."""

    def windows_to_read(self) -> int:
        """Windows of each document that training may see."""
        return self.windows if self.random_window else 1


@dataclass
class DataConfig:
    """What every data set has."""

    kind: str = MISSING
    """Which datamodule reads it."""
    max_length: int = 512
    """Window length in tokens, special tokens included; must not exceed what the encoder can read."""
    cache_dir: str = ".doctune"
    """Where extracted texts and tokens are kept and shared between runs."""
    prune_unused_days: float | None = None
    """`doctune prepare` removes cache entries that no run has used for so many days; None keeps all."""
    num_workers: int | None = None
    """Processes that prepare batches; None: chosen from the machine. Results never depend on it."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)


@dataclass
class FileContentConfig(DataConfig):
    """Files with one label each, listed in a manifest."""

    kind: str = "file_content"
    manifest: str = MISSING
    """CSV, TSV, JSONL or Parquet with a path and a label per row; an SQLite database; or a folder per class."""
    query: str | None = None
    """The SELECT that gives path, label and (optionally) confidence; needed by, and only for, an SQLite database."""
    root: str | None = None
    """The folder that relative paths start from; None: the manifest's own folder."""
    path_column: str = "path"
    label_column: str = "label"
    confidence_column: str = "confidence"
    """Rows without this column count as confidence 1."""
    min_confidence: float = 0.0
    """Rows below it are left out and counted; 0 to 1."""
    max_documents: int | None = None
    """Use a sample of about so many rows, each class in proportion, to try something out; None: all."""
    max_unusable: float = 0.2
    """The largest share of rows that may be unusable (damaged, vanished, …) before the run refuses to start."""
    duplicate_threshold: float = 0.8
    """Texts whose word shingles are at least so similar (Jaccard) are never on two sides of a split; 1: copies only."""
    extract: ExtractConfig = field(default_factory=ExtractConfig)


@dataclass
class ChunksConfig(FileContentConfig):
    """Files that are longer than an encoder's window, with one label each: read whole, in chunks of `max_length`."""

    kind: str = "chunks"
    chunk_stride: int = 0
    """Tokens that neighbouring chunks share; at most `max_length` - 3, since a chunk has two special tokens."""
    max_chunks: int = 20
    """Chunks read of a document at most; longer ones are counted and said."""
    keep: str = "head"
    """Which chunks of a longer one: head, the first; spread, evenly over it, the first and the last among them;
    head_tail, half from its beginning and half from its end."""
    pooling: str = "attention"
    """How chunk vectors become one: attention, a weighted mean with learned weights; mean; max; transformer, attention
    after a layer in which the chunks see each other."""
    chunk_vector: str = "cls"
    """What stands for a chunk: cls, its first token's output; mean, that of all its tokens on average."""
    chunk_positions: bool = True
    """Add a learned vector to each chunk that says which one it is."""
    chunks_per_pass: int = 8
    """Chunks that the encoder reads at once. Memory while training grows with it, not with the documents' length;
    results do not depend on it."""


@dataclass
class SquadConfig(DataConfig):
    """Questions about texts, in the form of SQuAD 1.1 or 2.0."""

    kind: str = "squad"
    path: str = MISSING
    """SQuAD's JSON, a folder of Parquet files, or a data set's name on the hub, such as rajpurkar/squad."""
    test_path: str | None = None
    """The same for the questions that judge. None: the validation part of a data set that has one, else a part of
    `path`, by article."""
    doc_stride: int = 128
    """Tokens of the context that neighbouring windows share."""
    max_question_length: int = 64
    """A longer question is cut after so many tokens."""
    max_answer_length: int = 30
    """Tokens of the longest answer that is given."""
    empty_windows: float = 1.0
    """The share of training windows without the answer to their question that is shown; 0 to 1."""
    max_questions: int | None = None
    """Train on a sample of so many questions, to try something out; None: all."""
    max_judge_questions: int | None = None
    """The same for the validation part and the test part, each."""


@dataclass
class FinetuneConfig:
    """Which weights learn."""

    strategy: str = "full"
    """full: all; head: the encoder is frozen; partial: the embeddings and the first `layers` layers are frozen;
    gradual: the head alone in the first epoch, then one more encoder layer each epoch, from the top."""
    layers: int | None = None
    """For partial only: how many encoder layers, from the bottom, stay as they are."""
    cache_encoder: bool = True
    """For head only: the frozen encoder reads each document once, and its outputs are kept with the other caches."""


@dataclass
class LossConfig:
    """What is minimised: a loss summed with its weights over the effective batch, divided by its documents."""

    name: str = "cross_entropy"
    """cross_entropy; focal: documents that the model is sure of count less (Lin et al. 2017)."""
    gamma: float | None = None
    """For focal only: how much less; 0 is cross entropy."""
    label_smoothing: float = 0.0
    class_weights: str = "balanced"
    """balanced: total / (classes × count), so that rare classes count as much as common ones; effective: by the
    effective number of documents, (1 - beta) / (1 - beta^count), which is gentler; none: all 1."""
    beta: float = 0.999
    """Of effective weights: 0 is no weighting, towards 1 it comes close to balanced."""


@dataclass
class OptimConfig:
    """AdamW."""

    lr: float = 2e-5
    """Learning rate of the encoder at the top of the schedule."""
    head_lr_multiplier: float = 2.0
    """The head learns at this multiple of `lr`."""
    pooling_lr_multiplier: float = 1.0
    """For data=chunks only: what pools the chunks learns at this multiple of `lr`."""
    weight_decay: float = 0.01
    """Not applied to biases and normalisation weights."""
    layer_decay: float | None = None
    """Each encoder layer learns at this multiple of the rate of the layer above it; None: all at `lr`."""


@dataclass
class ScheduleConfig:
    """How the learning rate moves, per optimiser step."""

    name: str = "linear"
    """linear, cosine and one_cycle fall to (nearly) zero at the last step; constant stays after the warmup."""
    warmup_ratio: float = 0.1
    """The share of all optimiser steps in which the rate rises."""
    warmup_steps: int | None = None
    """The same as a number of steps; where given, `warmup_ratio` is not used."""


@dataclass
class SplitConfig:
    """Which documents train, which choose (validation), which judge (test)."""

    kind: str = "holdout"
    """holdout: one split; kfold: the test part is fold `fold` of `folds`."""
    val: float = 0.1
    """Share of the documents that choose checkpoints and thresholds; with kfold, of those outside the fold."""
    test: float = 0.1
    """Share of the documents that judge; with kfold the fold is the test part, and this is not used."""
    folds: int = 5
    fold: int | None = None
    """From 0; all of them: python train.py -m split=kfold split.fold=0,1,2,3,4"""
    file: str | None = None
    """A splits.parquet of another run, whose parts are used as they are; a run with leaks does not start."""
    seed: int = 42
    """Of the split alone: another training `seed` keeps the same parts."""
    small_classes: str = "fail"
    """A class with fewer documents (copies count once) than parts or folds. fail: stop; drop; merge: into "other"."""


@dataclass
class TrainerConfig:
    """How the steps are computed; Lightning's Trainer arguments under their usual names."""

    max_epochs: int = 3
    accelerator: str = "auto"
    precision: str = "auto"
    """auto: 16-mixed on CUDA, bf16-mixed on a CPU with bf16 instructions, else 32."""
    effective_batch_size: int = 16
    """Documents per optimiser step."""
    micro_batch_size: int | None = None
    """Documents per forward pass; gradients accumulate up to the effective batch. None: the whole effective batch."""
    gradient_clip_val: float = 1.0
    """Largest gradient norm; 0 turns clipping off."""
    gradient_checkpointing: bool = False
    """Compute the encoder's activations again in the backward pass instead of keeping them: less memory, slower."""
    log_every_n_steps: int = 10
    progress: bool = True
    """A progress bar, shown on a terminal only."""
    extra_callbacks: list[dict[str, Any]] = field(default_factory=list)
    """Lightning callbacks of your own, each with a `_target_`."""

    def device_batch_size(self) -> int:
        """Documents per forward pass."""
        return self.micro_batch_size or self.effective_batch_size

    def accumulation(self) -> int:
        """Forward passes per optimiser step."""
        return self.effective_batch_size // self.device_batch_size()


@dataclass
class EarlyStoppingConfig:
    """Stop when the monitored metric no longer improves."""

    enabled: bool = True
    patience: int = 3
    """Validations without an improvement of at least `min_delta`."""
    min_delta: float = 0.0


@dataclass
class CheckpointConfig:
    """What is kept."""

    prefix: str = "checkpoint"
    """First part of the file names."""
    save_top_k: int = 1
    """The best so many by the monitored metric are kept; last.ckpt always is."""
    every_minutes: float | None = 15.0
    """Within an epoch, a checkpoint to resume from is saved so often; None: at the ends of epochs only."""
    keep_interval: int = 1
    """How many of these are kept."""


@dataclass
class GapConfig:
    """The gap: validation loss minus the loss on a training sample of the same size, both plain and without dropout.

    Below `good` it is excellent, below `moderate` good, below `critical` moderate, else critical.
    """

    good: float = 0.05
    moderate: float = 0.15
    critical: float = 0.45
    checks: int = 2
    """A critical gap that has grown in so many checks in a row stops the run."""
    stop: bool = True
    """False only reports."""


@dataclass
class LearningConfig:
    """When training is said to go wrong."""

    explosion: float = 3.0
    """The run stops when the smoothed training loss is so many times its lowest value, and above chance."""
    weight_ratio: float = 100.0
    """Largest class weight over smallest from which on they are called extreme."""


@dataclass
class CallbacksConfig:
    """Lightning callbacks of doctune."""

    early_stopping: EarlyStoppingConfig = field(default_factory=EarlyStoppingConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    gap: GapConfig = field(default_factory=GapConfig)
    learning: LearningConfig = field(default_factory=LearningConfig)


@dataclass
class LoggerConfig:
    """Where curves go. metrics.csv is always written."""

    tensorboard: bool = True
    mlflow: bool = False
    mlflow_uri: str | None = None
    """Where MLflow keeps runs, such as http://host:5000 or sqlite:///runs.db; None: what MLFLOW_TRACKING_URI says, else
    mlflow.db in the current directory, which needs no server."""
    wandb: bool = False
    wandb_mode: str = "offline"
    """offline: into the run folder, for `wandb sync` to send whenever you like; online: sent at once, which needs
    `wandb login`; disabled: nothing."""
    extra: list[dict[str, Any]] = field(default_factory=list)
    """Lightning loggers of your own, each with a `_target_`."""


@dataclass
class MonitorConfig:
    """The one metric that checkpoints, early stopping and sweeps read."""

    metric: str = "val/f1_macro"
    mode: str = "max"
    """max or min: which direction is better."""


@dataclass
class MetricConfig:
    """What is measured beside the usual metrics."""

    # Hydra can give a typed dictionary no new keys from the command line, so its type is checked here.
    class_weights: Any = None
    """Label -> weight, for all labels: `val/f1_mix` and `test/f1_mix` are the F1 of each label, mixed in these shares,
    such as {General: 0.3, Teen: 0.3, Mature: 0.4}. None: they are not measured. (The training loss has weights of its
    own: `loss.class_weights`.)"""

    def weights(self) -> dict[str, float]:
        """Label -> weight; empty where none are given."""
        return {str(label): float(weight) for label, weight in (self.class_weights or {}).items()}


@dataclass
class CascadeConfig:
    """What trains beside the model, for `doctune cascade-tune` to put before or behind it."""

    forest: bool = False
    """Grow a random forest on TF-IDF features of the training texts; it is judged among the baselines."""
    trees: int = 200
    """Of the forest; its file, memory and time grow with them."""
    max_features: int = 10000
    """Tokens and pairs of tokens that the forest reads: those in the most training texts."""


@dataclass
class Config:
    """A whole run."""

    model: ModelConfig = MISSING
    data: DataConfig = MISSING
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    callbacks: CallbacksConfig = field(default_factory=CallbacksConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    monitor: MonitorConfig = field(default_factory=MonitorConfig)
    metric: MetricConfig = field(default_factory=MetricConfig)
    cascade: CascadeConfig = field(default_factory=CascadeConfig)
    resume: str | None = None
    """A run folder to go on in, with its own configuration (only trainer.max_epochs may differ); auto: the newest
    unfinished one."""
    seed: int = 42
    """Of weights, dropout and the order of the documents; 0 is a seed like any other."""
    deterministic: bool = False
    """Refuse operations that have no deterministic form; slower on a GPU."""


@dataclass
class SearchConfig:
    """`hydra.sweeper` of sweep=optuna."""

    _target_: str = "hydra_plugins.doctune_search.OptunaSweeper"
    n_trials: int = MISSING
    """Trials of the whole search, failed ones and those of earlier starts included."""
    search_space: dict[str, Any] = field(default_factory=dict)
    """Keys as in the configuration, each {low: …, high: …}, with log: true where wanted, or {choices: […]}."""


MODEL_KINDS: dict[str, type] = {"pretrained": PretrainedConfig, "scratch": ScratchConfig}
DATA_KINDS: dict[str, type] = {"file_content": FileContentConfig, "chunks": ChunksConfig, "squad": SquadConfig}


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
        raise ConfigError(
            f"There is no key {', '.join(added)}. `--cfg job` lists all keys; `+key=` cannot add new ones."
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
    problems = [*_problems(config)]
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise ConfigError(f"The configuration cannot be run:\n{lines}")


def _problems(config: Config) -> Iterator[str]:
    yield from _choice_problems(config)
    yield from _range_problems(config)
    yield from _batch_problems(config.trainer)
    yield from _split_problems(config.split)
    yield from _metric_problems(config)
    yield from _combination_problems(config)
    yield from _logger_problems(config.logger)
    yield from _cascade_problems(config)


def _choice_problems(config: Config) -> Iterator[str]:
    choices = [
        ("trainer.precision", config.trainer.precision, PRECISIONS),
        ("trainer.accelerator", config.trainer.accelerator, ACCELERATORS),
        ("finetune.strategy", config.finetune.strategy, STRATEGIES),
        ("loss.name", config.loss.name, LOSSES),
        ("loss.class_weights", config.loss.class_weights, CLASS_WEIGHTS),
        ("data.sampling.method", config.data.sampling.method, SAMPLINGS),
        ("schedule.name", config.schedule.name, SCHEDULES),
        ("split.kind", config.split.kind, SPLITS),
        ("split.small_classes", config.split.small_classes, SMALL_CLASSES),
        ("monitor.metric", config.monitor.metric, METRICS[config.data.kind]),
        ("monitor.mode", config.monitor.mode, ("min", "max")),
        ("logger.wandb_mode", config.logger.wandb_mode, WANDB_MODES),
    ]
    if isinstance(config.data, FileContentConfig):
        choices.append(("data.extract.pdf_backend", config.data.extract.pdf_backend, PDF_BACKENDS))
    if isinstance(config.data, ChunksConfig):
        choices.append(("data.keep", config.data.keep, KEEPS))
        choices.append(("data.pooling", config.data.pooling, POOLINGS))
        choices.append(("data.chunk_vector", config.data.chunk_vector, CHUNK_VECTORS))
    for key, value, allowed in choices:
        if value not in allowed:
            yield f"{key}={value} is not a choice: {', '.join(allowed)}."


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
    micro, effective = trainer.micro_batch_size, trainer.effective_batch_size
    if micro is None:
        return
    if micro < 1:
        yield f"trainer.micro_batch_size={micro} must be at least 1."
    elif effective % micro:
        yield (
            f"trainer.effective_batch_size={effective} is not a multiple of trainer.micro_batch_size={micro}: "
            f"choose {effective // micro * micro or micro} or {(effective // micro + 1) * micro}."
        )


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
    if config.finetune.strategy == "head" and config.finetune.cache_encoder and _augments(config.data.augment):
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
