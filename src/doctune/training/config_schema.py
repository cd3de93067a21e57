"""A run's configuration, except its data: what every key means, its unit, its default and what it excludes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from doctune.training.config_data import DataConfig


@dataclass
class ModelConfig:
    """What every encoder has."""

    kind: str = MISSING
    """pretrained, scratch or causal."""
    name: str = MISSING
    """How the run calls it in logs and reports."""
    dropout: float | None = None
    """Dropout probability inside the encoder (hidden states and attention); None keeps the encoder's own."""
    attention_dropout: float | None = None
    """Dropout probability of attention alone, where it should not be `dropout`. 0 changes the recipe and is faster for
    long windows on a CPU, see benchmarks/training_throughput.py; None keeps the encoder's own, or `dropout`."""
    head_dropout: float | None = None
    """Dropout probability before the head's last layer; None keeps the encoder's own."""


@dataclass
class PretrainedConfig(ModelConfig):
    """An encoder that somebody has trained already."""

    kind: str = "pretrained"
    path: str = MISSING
    """A model's name on the hub, or a local folder with config.json, weights and tokenizer."""


@dataclass
class CausalConfig(PretrainedConfig):
    """A decoder, which writes text: a causal language model that somebody has trained already."""

    kind: str = "causal"


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
class FinetuneConfig:
    """Which weights learn."""

    strategy: str = "full"
    """full: all; head: the encoder is frozen; partial: the embeddings and the first `layers` layers are frozen;
    gradual: the head alone in the first epoch, then one more encoder layer each epoch, from the top; lora: the encoder
    is frozen, and small matrices beside its linear layers learn with the head (Hu et al. 2022); qlora: the same, with
    the encoder in four bits (Dettmers et al. 2023)."""
    layers: int | None = None
    """For partial only: how many encoder layers, from the bottom, stay as they are."""
    cache_encoder: bool = True
    """For head only: the frozen encoder reads each document once, and its outputs are kept with the other caches."""
    rank: int | None = None
    """For lora and qlora only: the inner size of the matrices; what learns grows with it."""
    alpha: float | None = None
    """For lora and qlora only: what the matrices give is multiplied by alpha / rank."""
    dropout: float | None = None
    """For lora and qlora only: dropout probability of what the matrices read."""
    # A union with a list is no type that OmegaConf knows, so it is checked by itself.
    target_modules: Any = None
    """For lora and qlora only: a list of names, or last parts of names, of the linear layers that get matrices, such as
    [query,value]; all-linear: all of them. None: what is usual for the architecture, by peft's table, or all."""


@dataclass
class LossConfig:
    """What is minimised: a loss summed with its weights over the effective batch, divided by its documents."""

    name: str = "cross_entropy"
    """cross_entropy; focal: documents that the model is sure of count less (Lin et al. 2017)."""
    gamma: float | None = None
    """For focal only: how much less; 0 is cross entropy."""
    label_smoothing: float = 0.0
    """Of targets with one label per text; those with several have none."""
    class_weights: str = "balanced"
    """balanced: total / (classes × count), so that rare classes count as much as common ones; effective: by the
    effective number of documents, (1 - beta) / (1 - beta^count), which is gentler; none: all 1. A target with several
    labels per text weighs each label where it applies: by negatives / positives, or their effective numbers."""
    beta: float = 0.999
    """Of effective weights: 0 is no weighting, towards 1 it comes close to balanced."""
    balance: str = "fixed"
    """Of several targets. fixed: the sum of their mean losses, each times its `data.targets.NAME.weight`; uncertainty:
    the weights are learnt as 1 / variance (Kendall et al. 2018)."""
    balance_lr: float = 0.01
    """For uncertainty only: the rate at which log variances learn; at an encoder's rate they would not move."""


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
    strategy: str = "auto"
    """auto: one process; ddp: each process has the whole model; fsdp: the processes share weights, gradients and
    optimiser state (FSDP2)."""
    devices: int = 1
    """GPUs, or processes on a CPU, that work together on each effective batch; more than one with ddp or fsdp only."""
    precision: str = "auto"
    """auto: 16-mixed on CUDA, bf16-mixed on a CPU with bf16 instructions, else 32."""
    effective_batch_size: int = 16
    """Documents per optimiser step, all devices together."""
    micro_batch_size: int | None = None
    """Documents per forward pass of a device; gradients accumulate up to the effective batch. None: the device's whole
    share of the effective batch."""
    gradient_clip_val: float = 1.0
    """Largest gradient norm; 0 turns clipping off."""
    gradient_checkpointing: bool = False
    """Compute the encoder's activations again in the backward pass instead of keeping them: less memory, slower."""
    compile: bool = False
    """Compile the encoder's layers with torch.compile. It is a lever for GPUs: two CPU cores gained nothing by it."""
    log_every_n_steps: int = 10
    check_every_n_steps: int | None = None
    """Also validate after every so many optimiser steps, not only after each epoch: gap, early stopping and best
    checkpoint then go by these checks, too."""
    progress: bool = True
    """A progress bar, shown on a terminal only."""
    extra_callbacks: list[dict[str, Any]] = field(default_factory=list)
    """Lightning callbacks of your own, each with a `_target_`."""

    def device_batch_size(self) -> int:
        """Documents per forward pass."""
        return self.micro_batch_size or self.device_share()

    def device_share(self) -> int:
        """Documents per optimiser step of each device."""
        return self.effective_batch_size // self.devices

    def accumulation(self) -> int:
        """Forward passes per optimiser step of each device."""
        return self.device_share() // self.device_batch_size()


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
    every_n_steps: int | None = None
    """The same after every so many optimiser steps, beside `every_minutes`."""
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
class PrepareConfig:
    """Who turns files into text, in `doctune prepare` and wherever a run finds files that nobody has read yet."""

    engine: str = "local"
    """local: worker processes of this machine; ray: Ray Data, on a cluster whose machines see the same files."""
    ray_address: str | None = None
    """For ray: of a running cluster, such as auto or ray://host:10001; None: Ray on the cores of this machine."""


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
    prepare: PrepareConfig = field(default_factory=PrepareConfig)
    resume: str | None = None
    """A run folder to go on in, with its own configuration (only trainer.max_epochs, trainer.devices and
    trainer.strategy may differ); auto: the newest unfinished one."""
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
