"""The story of a run: from a checked configuration to a folder with everything in it."""

from __future__ import annotations

import contextlib
import logging
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import lightning as L
from filelock import FileLock, Timeout

from doctune.errors import ConfigError, DoctuneError, TrainingError
from doctune.reports.run import write_report
from doctune.training.callbacks.status import StatusFile
from doctune.training.checkpoint_io import disk_full_message, is_disk_full
from doctune.training.config import Config
from doctune.training.environment import describe_environment, promise
from doctune.training.fit import fit, fit_together, judge
from doctune.training.modules.finetuned import FineTunedModule
from doctune.training.quiet import quieten_libraries
from doctune.training.ranks import require_devices
from doctune.training.record import RunRecord, now
from doctune.training.tasks.choice import prepare_task
from doctune.training.tasks.task import Task

log = logging.getLogger(__name__)


def train(config: Config, run: Path) -> float:
    """Make a run in the folder `run`, or go on with the one that is there, and return the best monitored score.

    Raises:
        DoctuneError: the configuration, the data or the model cannot be used, or training could not go on.
    """
    with _alone_in(run):
        return _train(config, run)


def _train(config: Config, run: Path) -> float:
    quieten_libraries()
    L.seed_everything(config.seed, workers=True, verbose=False)
    record = RunRecord(run / "environment.json")
    record.check_config(asdict(config))
    if is_finished(run, config, record):
        log.info("%s is finished already; a larger trainer.max_epochs= trains on.", _shown(run))
        return float(record.facts["best_score"])
    status = StatusFile(run / "status.json")
    record.begin(describe_environment(), config.seed)
    log.info("%s", promise(config.seed, config.deterministic))
    with _phases(status, run):
        require_devices(config.trainer)
        status.update(phase="extracting")
        task = prepare_task(config, run, record)
        record.update(task=task.name)
        if not (run / "data" / "baselines.json").exists():
            task.judge_baselines(run)
        module = _trained(config, run, task, status, record)
        task.export(config, module, run / "model", record)
        status.update(phase="reporting")
        record.update(finished_at=now())
        summary = write_report(run)
    log.info("\n%s\n%s", summary.read_text(encoding="utf-8"), _next_steps(run, task.hints(_shown(run))))
    return float(record.facts["best_score"])


def _trained(config: Config, run: Path, task: Task, status: StatusFile, record: RunRecord) -> FineTunedModule:
    """The module with its best weights, which have been judged, by one process or several."""
    if config.trainer.devices > 1:
        return fit_together(config, run, task, status, record)
    training = fit(config, run, task, status, record)
    status.update(phase="testing")
    judge(training, run, record)
    return training.module


def is_finished(run: Path, config: Config, record: RunRecord) -> bool:
    """Whether there is nothing left to do: all of the run was made, for as many epochs as are asked for now."""
    if "finished_at" not in record.facts or not (run / "report" / "summary.txt").exists():
        return False
    return record.facts["stopped"] != "max_epochs" or config.trainer.max_epochs <= record.facts["max_epochs"]


def _next_steps(run: Path, hints: Mapping[str, str]) -> str:
    shown = _shown(run)
    commands = dict(hints) | {
        f"tensorboard --logdir {shown}": "look at the curves",
        f"cat {shown}/report/summary.txt": "this summary, for pasting",
    }
    return "\n".join([f"Run folder: {shown}", "Next:", *(f"  {command}   {why}" for command, why in commands.items())])


@contextmanager
def _alone_in(run: Path) -> Iterator[None]:
    """Two processes that write one run folder would ruin it; the system takes the lock back when a process dies."""
    run.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(f"{run} is still running: `doctune status {_shown(run)}` shows it.") from None
    for left_behind in run.rglob(".*.part"):  # by a process that was killed while it wrote
        left_behind.unlink()
    try:
        yield
    finally:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)


@contextmanager
def _phases(status: StatusFile, run: Path) -> Iterator[None]:
    """End the status with what came of the run, and say how to go on."""
    try:
        yield
    except OSError as error:
        _end(status, "failed")
        if not is_disk_full(error):
            raise
        raise TrainingError(disk_full_message(Path(error.filename or run / "run"))) from error
    except TrainingError:
        _end(status, "failed")
        raise
    except DoctuneError:
        _end(status, "refused")
        raise
    except KeyboardInterrupt:
        _end(status, "interrupted")
        log.warning("Interrupted. Go on with: python train.py resume=%s", shlex.quote(str(_shown(run))))
        raise
    except BaseException:
        _end(status, "failed")
        raise
    status.update(phase="finished")


def _end(status: StatusFile, phase: str) -> None:
    with contextlib.suppress(OSError):  # on a full disk the reason matters more
        status.update(phase=phase)


def _shown(run: Path) -> Path:
    return run.relative_to(Path.cwd()) if run.is_relative_to(Path.cwd()) else run
