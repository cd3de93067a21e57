"""Training itself: attempts are made until memory suffices, and the best checkpoint is chosen."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from doctune.errors import ConfigError, DataError, TrainingError
from doctune.nets.adapters import adapter_of
from doctune.nets.encoder import describe
from doctune.nets.parameters import parameter_counts
from doctune.training import build
from doctune.training.attempt import Attempts, Training, disk_space
from doctune.training.callbacks.check_log import write_summary
from doctune.training.callbacks.checkpoint import provenance
from doctune.training.callbacks.learning import DivergedError
from doctune.training.callbacks.resume_points import newest
from doctune.training.callbacks.status import StatusFile
from doctune.training.config import Config
from doctune.training.data.batched import BatchedDataModule
from doctune.training.memory import fitting_micro_batch, is_out_of_memory, release_memory, smaller_micro_batch
from doctune.training.modules.finetuned import FineTunedModule
from doctune.training.processes import OutOfMemory, Rank, work_together
from doctune.training.ranks import load_weights
from doctune.training.record import RunRecord
from doctune.training.tasks.task import Task

log = logging.getLogger(__name__)


_ENDS = {
    "max_epochs": "all epochs that were asked for.",
    "early_stopping": "early stopping, the monitored metric no longer improves.",
    "gap": "the gap guard, the model learns its training documents by heart.",
    "diverged": "the loss diverged.",
}


def fit(config: Config, run: Path, task: Task, status: StatusFile, record: RunRecord) -> Training:
    """Train, or go on from the newest checkpoint of the run; one that was trained to its end ends at once.

    Raises:
        TrainingError: the loss diverged before there was a checkpoint; not even one document at a time fits in memory.
    """
    precision = _precision(config, record)
    config = _with_remembered_micro_batch(config, record)
    module = task.module(config, task.datamodule(config), precision)
    _describe(config, run, task, module, precision, record)
    attempts = Attempts(config, run, task, module, precision, status, record)
    with _timed(record):
        while True:
            reached = newest(run / "checkpoints")
            training = attempts.attempt(config, reached)
            if _fit_in_memory(training, reached, record):
                break
            config = _with_smaller_micro_batch(config, record, "the last finished step")
            release_memory()
    write_summary(run, record.facts["stopped"], record.facts["training_seconds"])
    return training


def fit_together(config: Config, run: Path, task: Task, status: StatusFile, record: RunRecord) -> FineTunedModule:
    """Train in `trainer.devices` processes; the module with its best weights, which have been judged.

    Raises:
        TrainingError: as `fit` does; one of the processes failed.
        KeyboardInterrupt: they were interrupted.
    """
    precision = _precision(config, record)
    alone = build.alone(config)
    datamodule = task.datamodule(alone)
    module = task.module(alone, datamodule, precision)
    _describe(config, run, task, module, precision, record)
    task.before_training(alone, run, precision, module, datamodule, record)
    _require_an_example_each(datamodule, config.trainer.devices)
    _refuse_other_moments(config, run)
    with _timed(record):
        _train_together(config, run, status, record)
    write_summary(run, record.facts["stopped"], record.facts["training_seconds"])
    module.load_state_dict(best_checkpoint(run, record)["state_dict"])
    return module


def _precision(config: Config, record: RunRecord) -> str:
    """What the run computes in; what it cannot have is said."""
    precision, fallback = build.resolve_precision(config.trainer)
    if fallback:
        record.note(fallback)
    if optimiser := build.optimiser_fallback(config):
        log.info("%s", optimiser)
    return precision


def _train_together(config: Config, run: Path, status: StatusFile, record: RunRecord) -> None:
    from doctune.training.rank_work import train_as_rank  # it imports this module

    config = _with_remembered_micro_batch(config, record)
    kind = "fsdp shares the model among" if config.trainer.strategy == "fsdp" else "ddp shares batches among"
    log.info("trainer=%s %d processes.", kind, config.trainer.devices)
    record.update()  # what was noted only: the first process goes on with this file
    while True:
        release_memory()
        try:
            return work_together(train_as_rank, config, run)
        except OutOfMemory:
            pass  # what the processes had is gone with them
        finally:
            status.take_up()
            record.take_up()
        config = _with_smaller_micro_batch(config, record, "the last checkpoint")


def fit_once(
    config: Config,
    run: Path,
    task: Task,
    status: StatusFile,
    record: RunRecord,
    rank: Rank,
    when_prepared: Callable[[], None],
) -> Training:
    """Train as one of several processes, or go on from the newest checkpoint of the run.

    Args:
        rank: which process this is.
        when_prepared: called when everything that the parent has done already is done again.

    Raises:
        TrainingError: as `fit` does.
        Exception: memory ran out; the other processes do not know.
    """
    precision, _ = build.resolve_precision(config.trainer)
    module = task.module(config, task.datamodule(config), precision)
    reached = newest(run / "checkpoints")
    training = Attempts(config, run, task, module, precision, status, record).attempt(config, reached, rank)
    when_prepared()
    _train(training, reached, record)
    return training


def _require_an_example_each(datamodule: BatchedDataModule, devices: int) -> None:
    """Each process judges its share of the validation and the test part, and none may be empty."""
    datamodule.setup("fit")
    for part, words in {"train": "training", "val": "validation", "test": "test"}.items():
        count = len(datamodule.lengths(part))
        if count < devices:
            raise DataError(
                f"The {words} part has {count} of what the model reads at a time, and trainer.devices={devices} "
                "processes need one each: ask for fewer of them, or for a larger part (split.val, split.test)."
            )


def _refuse_other_moments(config: Config, run: Path) -> None:
    """AdamW's moments are kept by the order of the weights, which FSDP has another of than one process."""
    reached = newest(run / "checkpoints")
    if config.trainer.strategy != "fsdp" or reached is None:
        return
    before = provenance(reached[0])["config"]["trainer"]
    if before["strategy"] != "fsdp" or before["devices"] < 2:
        raise ConfigError(
            "trainer.strategy=fsdp cannot go on from a checkpoint that whole models have made: resume with "
            "trainer.strategy=ddp or with trainer.devices=1."
        )


def _describe(
    config: Config, run: Path, task: Task, module: FineTunedModule, precision: str, record: RunRecord
) -> None:
    if adapter := adapter_of(module.net):
        record.check_base(asdict(adapter.base))
    record.update(precision=precision, model=describe_model(config, task, module), monitor=vars(config.monitor))
    disk_space(config, run, module, record).check()


@contextmanager
def _timed(record: RunRecord) -> Iterator[None]:
    started, before = time.monotonic(), record.facts.get("baseline_seconds", 0)
    yield
    # What a baseline took to learn is not the run's own.
    seconds = time.monotonic() - started - (record.facts.get("baseline_seconds", 0) - before)
    record.update(training_seconds=round(record.facts.get("training_seconds", 0) + seconds, 1))


def _fit_in_memory(training: Training, reached: tuple[Path, int] | None, record: RunRecord) -> bool:
    """Train to the end; False if memory ran out, and what was reached is in the newest checkpoint."""
    try:
        _train(training, reached, record)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True


def _train(training: Training, reached: tuple[Path, int] | None, record: RunRecord) -> None:
    """Train to the end, or to where the loss diverged if there is a checkpoint from before."""
    try:
        checkpoint = None if reached is None else reached[0]
        training.trainer.fit(training.module, training.datamodule, ckpt_path=checkpoint, weights_only=True)
    except DivergedError as error:
        if not training.best.best_model_path:
            raise
        record.note(f"{error} What follows is about the best checkpoint before that.")
        _note_end(training, "diverged", record)
        return
    except SystemExit:
        if not training.trainer.interrupted:
            raise
        # Lightning turns Ctrl-C into exit(1); to a shell and a sweep an interrupted run is an interrupted run.
        raise KeyboardInterrupt from None
    _note_end(training, training.stopped(), record)


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
    largest = record.facts.get("micro_batch_size")
    if largest is None:
        return config
    micro = fitting_micro_batch(largest, config.trainer.device_share())
    return replace(config, trainer=replace(config.trainer, micro_batch_size=micro))


def _with_smaller_micro_batch(config: Config, record: RunRecord, since: str) -> Config:
    micro, effective = config.trainer.device_batch_size(), config.trainer.effective_batch_size
    smaller = smaller_micro_batch(micro, config.trainer.device_share())
    if smaller is None:
        raise TrainingError(
            "Memory ran out with a single document per forward pass. To try: a smaller data.max_length, "
            "trainer.gradient_checkpointing=true, a smaller model=, or finetune=partial."
        )
    record.note(
        f"Memory ran out with {micro} documents per forward pass: going on with {smaller}, from {since}. "
        f"The effective batch stays {effective}."
    )
    record.update(micro_batch_size=smaller)
    return replace(config, trainer=replace(config.trainer, micro_batch_size=smaller))


def describe_model(config: Config, task: Task, module: FineTunedModule) -> dict[str, Any]:
    """What reports say of the model."""
    return {"name": config.model.name, **describe(task.source.config), **parameter_counts(module.net)}


def load_best(training: Training, run: Path, record: RunRecord) -> None:
    """Give the module the weights of the best checkpoint."""
    checkpoint = best_checkpoint(run, record)
    load_weights(training.module, checkpoint["state_dict"])
    record.update(best_epoch=int(checkpoint["epoch"]) + 1, best_step=int(checkpoint["global_step"]))


def best_checkpoint(run: Path, record: RunRecord) -> dict[str, Any]:
    """The checkpoint that was chosen by the monitored metric; what is not read of it takes no memory."""
    file = run / record.facts["best_checkpoint"]
    found: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    return found


def judge(training: Training, run: Path, record: RunRecord) -> None:
    """Give the module its best weights, predict validation and test documents."""
    load_best(training, run, record)
    for alarm in record.facts.get("alarms", []):
        if alarm["cleared"] is None:
            record.keep(alarm["message"])
    # The curves have this validation already, at its epoch; a second point at their end would look like a jump.
    loggers, training.trainer.loggers = training.trainer.loggers, []
    training.trainer.validate(training.module, training.datamodule, verbose=False)
    training.trainer.loggers = loggers
    training.trainer.test(training.module, training.datamodule, verbose=False)
