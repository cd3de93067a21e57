"""Training itself: callbacks and Trainer are put together, memory that runs out is survived, the best is chosen."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger

from doctune.errors import TrainingError
from doctune.nets.adapters import adapter_of
from doctune.nets.encoder import describe
from doctune.nets.parameters import parameter_counts
from doctune.training import build
from doctune.training.alarms import Alarms
from doctune.training.callbacks.check_log import CheckLog
from doctune.training.callbacks.checkpoint import NamedCheckpoint, Provenance
from doctune.training.callbacks.dashboard import EpochCurves, FinalScores, GradientNorm, hyperparameters
from doctune.training.callbacks.disk_space import DiskSpace
from doctune.training.callbacks.gradual import GradualUnfreezing
from doctune.training.callbacks.history import History
from doctune.training.callbacks.learning import DivergedError
from doctune.training.callbacks.resume_points import newest
from doctune.training.callbacks.seeding import StepSeeds
from doctune.training.callbacks.status import StatusFile, StatusHeartbeat
from doctune.training.callbacks.step_checks import StepChecks
from doctune.training.checkpoint_io import checkpoint_bytes
from doctune.training.config import Config
from doctune.training.data.batched import BatchedDataModule
from doctune.training.memory import is_out_of_memory, release_memory, smaller_micro_batch
from doctune.training.metrics_file import MetricsFile, MetricsRows
from doctune.training.modules.finetuned import FineTunedModule
from doctune.training.record import RunRecord
from doctune.training.tasks.task import Task

log = logging.getLogger(__name__)


_ENDS = {
    "max_epochs": "all epochs that were asked for.",
    "early_stopping": "early stopping, the monitored metric no longer improves.",
    "gap": "the gap guard, the model learns its training documents by heart.",
    "diverged": "the loss diverged.",
}


@dataclass
class Training:
    """One attempt to train: everything that Lightning needs, and what is asked of it afterwards."""

    module: FineTunedModule
    datamodule: BatchedDataModule
    trainer: Trainer
    best: NamedCheckpoint
    stoppers: dict[str, Any]

    def stopped(self) -> str:
        """What ended it: max_epochs, or the callback that wanted it to end."""
        return next((name for name, callback in self.stoppers.items() if callback.wants_stop), "max_epochs")


def fit(config: Config, run: Path, task: Task, status: StatusFile, record: RunRecord) -> Training:
    """Train, or go on from the newest checkpoint of the run; one that was trained to its end ends at once.

    Raises:
        TrainingError: the loss diverged before there was a checkpoint; not even one document at a time fits in memory.
    """
    precision, fallback = build.resolve_precision(config.trainer)
    if fallback:
        record.note(fallback)
    if optimiser := build.optimiser_fallback(config):
        log.info("%s", optimiser)
    config = _with_remembered_micro_batch(config, record)
    module = task.module(config, task.datamodule(config), precision)
    if adapter := adapter_of(module.net):
        record.check_base(asdict(adapter.base))
    record.update(precision=precision, model=describe_model(config, task, module), monitor=vars(config.monitor))
    disk = _disk_space(config, run, module, record)
    disk.check()
    checks = CheckLog(run, build.gap_thresholds(config.callbacks.gap).status)
    started, before = time.monotonic(), record.facts.get("baseline_seconds", 0)
    while True:
        reached = newest(run / "checkpoints")
        training = _prepare(config, run, task, module, precision, status, record, reached, [checks, disk])
        if _fit_in_memory(training, reached, record):
            break
        config = _with_smaller_micro_batch(config, record)
        release_memory()
    # What a baseline took to learn is not the run's own.
    seconds = time.monotonic() - started - (record.facts.get("baseline_seconds", 0) - before)
    record.update(training_seconds=round(record.facts.get("training_seconds", 0) + seconds, 1))
    checks.write_summary(record.facts["stopped"], record.facts["training_seconds"])
    return training


def _prepare(
    config: Config,
    run: Path,
    task: Task,
    module: FineTunedModule,
    precision: str,
    status: StatusFile,
    record: RunRecord,
    reached: tuple[Path, int] | None,
    keepers: Sequence[Callback],
) -> Training:
    """Datamodule, callbacks and Trainer for one attempt; a further attempt has a smaller micro-batch, and the same
    `keepers` of what belongs to the whole run."""
    datamodule = task.datamodule(config)
    task.before_training(config, run, precision, module, datamodule, record)
    examples = task.facts(datamodule).examples_per_epoch
    alarms = Alarms(lambda alarms, active: _publish(alarms, active, status, record))
    alarms.restore(record.facts.get("alarms", []))
    metrics = MetricsFile(run / "metrics.csv")
    early, gap = build.early_stopping(config), build.gap_guard(config, alarms, status)
    best = build.checkpoint_callback(config, run)
    loggers = build.loggers(config, run, metrics, first_step=0 if reached is None else reached[1])
    history = History(run / "training_history.json", build.gap_thresholds(config.callbacks.gap).status)
    may_stop_early = early is not None or config.callbacks.gap.stop
    heartbeat = StatusHeartbeat(
        status,
        config.monitor.metric,
        module.optimisation.total_steps,
        may_stop_early=may_stop_early,
        validations=_checks_per_epoch(config, module),
    )
    every = config.trainer.check_every_n_steps
    callbacks: Sequence[Callback] = [
        # First, so that what it saves is the state between two steps, before anything looks at the next batch.
        build.resume_points(config, run, build.batch_plan(config.trainer).num_micro_batches(examples)),
        StepSeeds(config.seed),
        build.learning_guards(config, task.chance(datamodule), task.class_weights(module), alarms),
        gap,
        GradientNorm(),
        history,
        *keepers,
        *([StepChecks(every)] if every is not None else []),
        heartbeat,
        *task.callbacks(run, record),
        MetricsRows(metrics),
        *_dashboard(config, task, loggers, history, best),
        Provenance(asdict(config), record.facts),
        *([GradualUnfreezing(module.net)] if config.finetune.strategy == "gradual" else []),
        *([early] if early else []),
        *build.stock_callbacks(config),
        best,
    ]
    trainer = build.trainer(config, run, precision, callbacks, loggers)
    stoppers = {"gap": gap} | ({"early_stopping": early} if early else {})
    return Training(module, datamodule, trainer, best, stoppers)


def _dashboard(
    config: Config, task: Task, loggers: Sequence[Logger], history: History, best: NamedCheckpoint
) -> list[Callback]:
    """What TensorBoard shows beside curves; nothing where it is off."""
    logger = next((each for each in loggers if isinstance(each, TensorBoardLogger)), None)
    if logger is None:
        return []
    final = FinalScores(logger, hyperparameters(config), best, [*task.scores, "loss"])
    return [EpochCurves(logger, history, task.scores), *task.dashboard(logger), final]


def _fit_in_memory(training: Training, reached: tuple[Path, int] | None, record: RunRecord) -> bool:
    """Train to the end; False if memory ran out, and what was reached is in the newest checkpoint."""
    try:
        checkpoint = None if reached is None else reached[0]
        training.trainer.fit(training.module, training.datamodule, ckpt_path=checkpoint, weights_only=True)
    except DivergedError as error:
        if not training.best.best_model_path:
            raise
        record.note(f"{error} What follows is about the best checkpoint before that.")
        _note_end(training, "diverged", record)
        return True
    except SystemExit:
        if not training.trainer.interrupted:
            raise
        # Lightning turns Ctrl-C into exit(1); to a shell and a sweep an interrupted run is an interrupted run.
        raise KeyboardInterrupt from None
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return False
    _note_end(training, training.stopped(), record)
    return True


def _note_end(training: Training, stopped: str, record: RunRecord) -> None:
    best = training.best
    assert best.best_model_score is not None, "an epoch that ended has been validated"
    log.info("Training is over: %s", _ENDS[stopped])
    record.update(
        stopped=stopped,
        max_epochs=training.trainer.max_epochs,
        best_checkpoint=f"checkpoints/{Path(best.best_model_path).name}",
        best_score=float(best.best_model_score),
    )


def _with_remembered_micro_batch(config: Config, record: RunRecord) -> Config:
    """A run that once ran out of memory does not try the same size again."""
    micro = record.facts.get("micro_batch_size")
    return config if micro is None else replace(config, trainer=replace(config.trainer, micro_batch_size=micro))


def _with_smaller_micro_batch(config: Config, record: RunRecord) -> Config:
    micro, effective = config.trainer.device_batch_size(), config.trainer.effective_batch_size
    smaller = smaller_micro_batch(micro, effective)
    if smaller is None:
        raise TrainingError(
            "Memory ran out with a single document per forward pass. To try: a smaller data.max_length, "
            "trainer.gradient_checkpointing=true, a smaller model=, or finetune=partial."
        )
    record.note(
        f"Memory ran out with {micro} documents per forward pass: going on with {smaller}, from the last finished "
        f"step. The effective batch stays {effective}."
    )
    record.update(micro_batch_size=smaller)
    return replace(config, trainer=replace(config.trainer, micro_batch_size=smaller))


def _disk_space(config: Config, run: Path, module: FineTunedModule, record: RunRecord) -> DiskSpace:
    counts = parameter_counts(module.net)
    saved = counts["total"] if adapter_of(module.net) is None else counts["trainable"]
    kept = config.callbacks.checkpoint
    has_interval = kept.every_minutes is not None or kept.every_n_steps is not None
    return DiskSpace(
        run / "checkpoints",
        checkpoint_bytes=checkpoint_bytes(saved, counts["trainable"]),
        # The best, the last, those within epochs, and the one that is being written.
        kept=kept.save_top_k + 1 + (kept.keep_interval if has_interval else 0) + 1,
        model_bytes=4 * saved,
        say=record.note,
    )


def _checks_per_epoch(config: Config, module: FineTunedModule) -> int:
    """How often an epoch is validated, its end included."""
    every = config.trainer.check_every_n_steps
    steps = module.optimisation.total_steps // config.trainer.max_epochs
    return 1 if every is None else max(-(-steps // every), 1)


def _publish(alarms: list[dict[str, Any]], active: list[str], status: StatusFile, record: RunRecord) -> None:
    status.update(warnings=active)
    record.update(alarms=alarms)


def describe_model(config: Config, task: Task, module: FineTunedModule) -> dict[str, Any]:
    """What reports say of the model."""
    return {"name": config.model.name, **describe(task.source.config), **parameter_counts(module.net)}


def load_best(training: Training, run: Path, record: RunRecord) -> None:
    """Give the module the weights of the best checkpoint."""
    checkpoint = torch.load(run / record.facts["best_checkpoint"], map_location="cpu", weights_only=True)
    training.module.load_state_dict(checkpoint["state_dict"])
    record.update(best_epoch=int(checkpoint["epoch"]) + 1, best_step=int(checkpoint["global_step"]))
