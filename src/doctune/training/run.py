"""The story of a run: from a checked configuration to a folder with everything in it."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning import Trainer
from transformers.utils import logging as transformers_logging

from doctune.corpus.baselines import judge_baselines
from doctune.corpus.prepare import Corpus, describe_account
from doctune.errors import DoctuneError
from doctune.files import write_json
from doctune.inference.artifact import Artifact
from doctune.nets.encoder import describe
from doctune.nets.parameters import parameter_counts
from doctune.reports.run import write_report
from doctune.training import build, sources
from doctune.training.build import Encoder
from doctune.training.callbacks.checkpoint import NamedCheckpoint
from doctune.training.callbacks.finite import FiniteLoss
from doctune.training.callbacks.history import History
from doctune.training.callbacks.predictions import PredictionWriter
from doctune.training.callbacks.status import StatusFile, StatusHeartbeat
from doctune.training.config import Config, PretrainedConfig, ScratchConfig
from doctune.training.data.file_content import FileContentDataModule
from doctune.training.environment import describe_environment
from doctune.training.modules.classification import ClassificationModule

log = logging.getLogger(__name__)


@dataclass
class RunRecord:
    """What `environment.json` says; grows while the run goes on."""

    path: Path
    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def note(self, sentence: str) -> None:
        """Say something that a reader of the report must know."""
        log.warning("%s", sentence)
        self.notes.append(sentence)

    def update(self, **facts: Any) -> None:
        """Add facts and write the file."""
        self.facts |= facts
        write_json(self.path, self.facts | {"notes": self.notes})


def train(config: Config, run: Path) -> float:
    """Make a run in the folder `run` and return the best monitored score.

    Raises:
        DoctuneError: the configuration, the data or the model cannot be used; nothing was trained.
    """
    _quieten_libraries()
    L.seed_everything(config.seed, workers=True, verbose=False)
    status = StatusFile(run / "status.json")
    record = RunRecord(run / "environment.json")
    record.update(**describe_environment(), seed=config.seed, started_at=_now())
    with _phases(status):
        corpus, source = _documents_and_encoder(config, run, status, record)
        datamodule = build.datamodule(config, corpus, source)
        module = build.module(config, source, datamodule.facts())
        record.update(model=_describe_model(config, source, module), monitor=vars(config.monitor))
        trainer, best = _fit(config, run, status, record, corpus, module, datamodule)
        status.update(phase="testing")
        _judge(trainer, module, datamodule, best, record)
        _export(run, config, corpus, source, module)
        status.update(phase="reporting")
        judge_baselines(corpus, run)
        record.update(finished_at=_now())
        summary = write_report(run)
    log.info("\n%s\n%s", summary.read_text(encoding="utf-8"), _next_steps(run))
    assert best.best_model_score is not None, "training validates at least once"
    return float(best.best_model_score)


def _documents_and_encoder(config: Config, run: Path, status: StatusFile, record: RunRecord) -> tuple[Corpus, Encoder]:
    """What cannot work fails here, in the order of how quickly it can be found out."""
    status.update(phase="extracting")
    data = sources.file_content(config.data)
    rows = sources.manifest(data)
    source = None
    if isinstance(config.model, PretrainedConfig):
        source = build.pretrained_encoder(config.model, data.max_length)
    log.info("%s: %d rows, %d of them rejected.", rows.source, len(rows.rows) + len(rows.rejected), len(rows.rejected))
    corpus = sources.corpus(data, config.split, rows)
    report = sources.audit(data, corpus)
    corpus.write(run / "data", report)
    record.notes += sources.say_findings(report)
    log.info("Documents: %s.", describe_account(corpus))
    if source is None and isinstance(config.model, ScratchConfig):
        source = build.scratch_encoder(config.model, corpus.texts(corpus.part("train")))
    assert source is not None, "a model is either pretrained or from scratch"
    return corpus, source


def _fit(
    config: Config,
    run: Path,
    status: StatusFile,
    record: RunRecord,
    corpus: Corpus,
    module: ClassificationModule,
    datamodule: FileContentDataModule,
) -> tuple[Trainer, NamedCheckpoint]:
    precision, fallback = build.resolve_precision(config.trainer)
    if fallback:
        record.note(fallback)
    best = build.checkpoint_callback(config, run)
    judged = {part: corpus.part(part) for part in ("val", "test")}
    callbacks = [
        FiniteLoss(),
        History(run / "training_history.json"),
        StatusHeartbeat(status, config.monitor.metric, module.optimisation.total_steps),
        PredictionWriter(run / "predictions", corpus.labels, judged),
        *build.stock_callbacks(config),
        best,
    ]
    trainer = build.trainer(config, run, precision, callbacks)
    started = time.monotonic()
    _fit_or_interrupt(trainer, module, datamodule)
    record.update(
        precision=precision,
        training_seconds=round(time.monotonic() - started, 1),
        best_checkpoint=str(Path(best.best_model_path).relative_to(run)),
        stopped="max_epochs" if trainer.current_epoch >= config.trainer.max_epochs else "early_stopping",
    )
    return trainer, best


def _fit_or_interrupt(trainer: Trainer, module: ClassificationModule, datamodule: FileContentDataModule) -> None:
    try:
        trainer.fit(module, datamodule)
    except SystemExit:
        if not trainer.interrupted:
            raise
        # Lightning turns Ctrl-C into exit(1); to a shell and a sweep an interrupted run is an interrupted run.
        raise KeyboardInterrupt from None


def _judge(
    trainer: Trainer,
    module: ClassificationModule,
    datamodule: FileContentDataModule,
    best: NamedCheckpoint,
    record: RunRecord,
) -> None:
    """Give the module its best weights, predict validation and test documents."""
    checkpoint = torch.load(best.best_model_path, map_location="cpu", weights_only=True)
    module.load_state_dict(checkpoint["state_dict"])
    trainer.validate(module, datamodule, verbose=False)
    trainer.test(module, datamodule, verbose=False)
    record.update(best_epoch=int(checkpoint["epoch"]) + 1)


def _export(run: Path, config: Config, corpus: Corpus, source: Encoder, module: ClassificationModule) -> None:
    folder = run / "model"
    module.net.save_pretrained(folder)
    source.tokenizer.model_max_length = config.data.max_length
    source.backend.no_truncation()  # the last window's limits must not be saved as the tokenizer's own
    source.tokenizer.save_pretrained(folder)
    settings = sources.extract_settings(sources.file_content(config.data))
    Artifact(folder, "classification", corpus.labels, config.data.max_length, settings).save()


def _describe_model(config: Config, source: Encoder, module: ClassificationModule) -> dict[str, Any]:
    return {"name": config.model.name, **describe(source.config), **parameter_counts(module.net)}


def _next_steps(run: Path) -> str:
    shown = run.relative_to(Path.cwd()) if run.is_relative_to(Path.cwd()) else run
    return (
        f"Run folder: {shown}\n"
        "Next:\n"
        f"  doctune predict {shown} FILE_OR_FOLDER   label new files\n"
        f"  tensorboard --logdir {shown}   look at the curves\n"
        f"  cat {shown}/report/summary.txt   this summary, for pasting"
    )


@contextmanager
def _phases(status: StatusFile) -> Iterator[None]:
    """End the status with what came of the run."""
    try:
        yield
    except DoctuneError:
        status.update(phase="refused")
        raise
    except KeyboardInterrupt:
        status.update(phase="interrupted")
        raise
    except BaseException:
        status.update(phase="failed")
        raise
    status.update(phase="finished")


def _quieten_libraries() -> None:
    """Keep what Lightning says to developers out of users' logs."""
    transformers_logging.disable_progress_bar()
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda", "matplotlib"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # The run folder has Hydra's files in it already, and metrics.csv goes beside them.
    warnings.filterwarnings("ignore", ".*exists and is not empty. Previous log files.*")
    warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*Trying to infer the `batch_size`.*")
    warnings.filterwarnings("ignore", ".*lr_scheduler.step.*before.*optimizer.step.*")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
