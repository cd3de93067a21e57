"""One attempt to train: datamodule, callbacks and Trainer are put together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lightning import Callback, Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger

from doctune.nets.adapters import adapter_of
from doctune.nets.parameters import parameter_counts
from doctune.training import build
from doctune.training.alarms import Alarms
from doctune.training.callbacks.check_log import CheckLog
from doctune.training.callbacks.checkpoint import NamedCheckpoint, Provenance
from doctune.training.callbacks.dashboard import EpochCurves, FinalScores, GradientNorm, hyperparameters
from doctune.training.callbacks.disk_space import DiskSpace
from doctune.training.callbacks.gradual import GradualUnfreezing
from doctune.training.callbacks.history import History
from doctune.training.callbacks.seeding import StepSeeds
from doctune.training.callbacks.status import StatusFile, StatusHeartbeat
from doctune.training.callbacks.step_checks import StepChecks
from doctune.training.callbacks.step_loss import StepLoss
from doctune.training.checkpoint_io import checkpoint_bytes
from doctune.training.config import Config
from doctune.training.data.batched import BatchedDataModule
from doctune.training.metrics_file import MetricsFile, MetricsRows
from doctune.training.modules.finetuned import FineTunedModule
from doctune.training.processes import Rank
from doctune.training.record import RunRecord
from doctune.training.tasks.task import Task


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


class Attempts:
    """Puts attempts to train together, each with a smaller micro-batch than the one before.

    Args:
        config: of the first attempt.
        run: the run's folder.
        task: what is learnt.
        module: what learns, in all attempts.
        precision: what it computes in.
        status: the run's status file.
        record: what is known of the run.
    """

    def __init__(
        self,
        config: Config,
        run: Path,
        task: Task,
        module: FineTunedModule,
        precision: str,
        status: StatusFile,
        record: RunRecord,
    ) -> None:
        self._run, self._task, self._module, self._precision = run, task, module, precision
        self._status, self._record = status, record
        # These belong to the whole run, however many attempts it takes.
        thresholds = build.gap_thresholds(config.callbacks.gap)
        self._keepers = [CheckLog(run, thresholds.status), disk_space(config, run, module, record)]

    def attempt(self, config: Config, reached: tuple[Path, int] | None, rank: Rank | None = None) -> Training:
        """One attempt.

        All processes have the same callbacks, since some of them decide together; only the first has loggers of others.

        Args:
            config: with the micro-batch of this attempt.
            reached: the newest checkpoint and its step; None where there is none.
            rank: which of several processes this is.
        """
        datamodule = self._task.datamodule(config)
        self._task.before_training(config, self._run, self._precision, self._module, datamodule, self._record)
        metrics = MetricsFile(self._run / "metrics.csv")
        first_step = 0 if reached is None else reached[1]
        loggers = build.loggers(config, self._run, metrics, first_step, is_main=rank is None or rank.number == 0)
        alarms = Alarms(self._publish)
        alarms.restore(self._record.facts.get("alarms", []))
        early, gap = build.early_stopping(config), build.gap_guard(config, alarms, self._status)
        best = build.checkpoint_callback(config, self._run)
        callbacks: Sequence[Callback] = [
            *self._first(config, datamodule, alarms),
            gap,
            GradientNorm(),
            *self._reporting(config, metrics, loggers, best, may_stop_early=bool(early) or config.callbacks.gap.stop),
            Provenance(asdict(config), self._record.facts),
            *([GradualUnfreezing(self._module.net)] if config.finetune.strategy == "gradual" else []),
            *([early] if early else []),
            *build.stock_callbacks(config),
            best,
        ]
        trainer = build.trainer(config, self._run, self._precision, callbacks, loggers, rank)
        stoppers = {"gap": gap} | ({"early_stopping": early} if early else {})
        return Training(self._module, datamodule, trainer, best, stoppers)

    def _first(self, config: Config, datamodule: BatchedDataModule, alarms: Alarms) -> Iterator[Callback]:
        """What acts on a step before anything looks at it."""
        examples = self._task.facts(datamodule).examples_per_epoch
        # First, so that what it saves is the state between two steps, before anything looks at the next batch.
        yield build.resume_points(config, self._run, build.batch_plan(config.trainer).num_micro_batches(examples))
        yield StepSeeds(config.seed)
        yield StepLoss()
        weights = self._task.class_weights(self._module)
        yield build.learning_guards(config, self._task.chance(datamodule), weights, alarms)

    def _reporting(
        self,
        config: Config,
        metrics: MetricsFile,
        loggers: Sequence[Logger],
        best: NamedCheckpoint,
        *,
        may_stop_early: bool,
    ) -> Iterator[Callback]:
        """What writes down how it goes, in files and in TensorBoard."""
        history = History(self._run / "training_history.json", build.gap_thresholds(config.callbacks.gap).status)
        yield history
        yield from self._keepers
        every = config.trainer.check_every_n_steps
        if every is not None:
            yield StepChecks(every)
        yield StatusHeartbeat(
            self._status,
            config.monitor.metric,
            self._module.optimisation.total_steps,
            may_stop_early=may_stop_early,
            validations=_checks_per_epoch(config, self._module),
        )
        yield from self._task.callbacks(self._run, self._record)
        yield MetricsRows(metrics)
        for logger in loggers:
            if isinstance(logger, TensorBoardLogger):
                yield EpochCurves(logger, history, self._task.scores)
                yield from self._task.dashboard(logger)
                yield FinalScores(logger, hyperparameters(config), best, [*self._task.scores, "loss"])

    def _publish(self, alarms: list[dict[str, Any]], active: list[str]) -> None:
        self._status.update(warnings=active)
        self._record.update(alarms=alarms)


def disk_space(config: Config, run: Path, module: FineTunedModule, record: RunRecord) -> DiskSpace:
    """The guard of the disk that checkpoints are written to."""
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
