"""Runs in MLflow and Weights & Biases: one run there for one run folder, however often it is resumed."""

from __future__ import annotations

import json
import logging
import os
import secrets
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, MLFlowLogger, WandbLogger

from doctune.errors import TrainingError
from doctune.files import write_json
from doctune.training import config as schema
from doctune.training.callbacks.dashboard import hyperparameters


class ContinuedMLFlowLogger(MLFlowLogger):
    """Keeps the first value of a hyperparameter: MLflow refuses another, and a resumed run may have more epochs."""

    def log_hyperparams(self, params: Any) -> None:
        """Log those that the run does not have yet."""
        known = {key.partition("/")[0] for key in self.experiment.get_run(self.run_id).data.params}
        super().log_hyperparams({key: value for key, value in params.items() if key not in known})


def mlflow_logger(config: schema.Config, run: Path) -> Logger:
    """This run in MLflow; a resumed one goes on in what it began, or begins again where the store does not have it.

    Raises:
        TrainingError: the store cannot be used.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when it is imported, which connects to its makers
    from mlflow.exceptions import MlflowException

    for name, level in {"mlflow": logging.WARNING, "lightning.pytorch.loggers.mlflow": logging.ERROR}.items():
        logging.getLogger(name).setLevel(level)
    local = f"sqlite:///{Path('mlflow.db').resolve()}"
    store = config.logger.mlflow_uri or os.environ.get("MLFLOW_TRACKING_URI") or local
    try:
        begun = _begun_in_mlflow(store, _tracked_as(run).get("mlflow"))
        tracker = ContinuedMLFlowLogger("doctune", _name_of(run), store, run_id=begun)
        tracker.experiment.update_run(tracker.run_id, "RUNNING")
        tracker.log_hyperparams(hyperparameters(config))
    except (MlflowException, ImportError) as error:
        raise TrainingError(f"logger=mlflow: the store {store} cannot be used: {error}") from error
    _remember(run, "mlflow", str(tracker.run_id))
    return tracker


def _begun_in_mlflow(store: str, begun: str | None) -> str | None:
    """The id of the run that an earlier start began; None if there is none in this store."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    if begun is None:
        return None
    try:
        found = MlflowClient(store).get_run(begun)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return begun if found.info.lifecycle_stage == "active" else None


def wandb_logger(config: schema.Config, run: Path) -> Logger:
    """This run in Weights & Biases, under the same id when it is resumed.

    Raises:
        TrainingError: it cannot begin, for want of a login or a connection.
    """
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # it connects to its makers, even when it is offline
    import wandb

    tracked_as = _tracked_as(run).get("wandb") or secrets.token_hex(4)
    _remember(run, "wandb", tracked_as)
    begun = wandb.run  # of the attempt before memory ran out, or of the job before in a sweep
    if begun is None or begun.id != tracked_as:
        mode = config.logger.wandb_mode
        try:
            begun = wandb.init(
                project="doctune",
                name=_name_of(run),
                id=tracked_as,
                dir=run,
                mode=mode,  # type: ignore[arg-type]  # checked against WANDB_MODES
                resume="allow" if mode == "online" else None,
                reinit="finish_previous",
                settings=wandb.Settings(silent=True, console="off"),
            )
        except wandb.Error as error:
            raise TrainingError(f"logger=wandb: logger.wandb_mode={mode} does not work here: {error}") from error
        begun.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    tracker = WandbLogger(project="doctune", experiment=begun)
    tracker.log_hyperparams(hyperparameters(config))
    return tracker


def _name_of(run: Path) -> str:
    """As the report calls it."""
    return "/".join(run.resolve().parts[-3:])


def _tracked_as(run: Path) -> dict[str, str]:
    """The ids under which MLflow and Weights & Biases know this run."""
    path = run / "trackers.json"
    found: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def _remember(run: Path, tracker: str, tracked_as: str) -> None:
    write_json(run / "trackers.json", _tracked_as(run) | {tracker: tracked_as})
