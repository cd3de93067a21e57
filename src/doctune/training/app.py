"""The Hydra entry: `python train.py …`, `doctune train …` and `doctune prepare …` end here.

Only Hydra and the schema are imported at the top, so that `--help`, `--cfg job` and a mistyped key answer without
waiting for torch.
"""

from __future__ import annotations

import gc
import logging
import os
import re
import shutil
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from doctune.errors import ConfigError, DoctuneError, TrainingError
from doctune.files import write_text
from doctune.training.config import from_hydra, register_schemas
from doctune.training.help import choices, groups, help_text
from doctune.training.override_mistakes import is_of_a_key, mistake_in, no_choice
from doctune.training.resume import SAVED_CONFIG, SAVED_SWEEP, Resumption, resumption

log = logging.getLogger("doctune")


def conf_dir() -> Path:
    """The folder of config groups: inside the installed package, or at the root of a source checkout."""
    package = Path(__file__).parents[1]
    shipped = package / "conf"
    return shipped if shipped.is_dir() else package.parents[1] / "conf"


def train_job(composed: DictConfig) -> float:
    """One Hydra job: the composed configuration becomes a run; its best monitored score is what a sweep optimises."""
    with _logged_failures():
        config = from_hydra(composed)
        with _without_collections():
            from doctune.training.run import train

        run = Path(HydraConfig.get().runtime.output_dir)
        write_text(run / SAVED_CONFIG, OmegaConf.to_yaml(composed))  # a resumed run may have another max_epochs
        try:
            return train(config, run)
        finally:
            if config.split.kind == "kfold" and (run.parent / SAVED_SWEEP).is_file():
                _bring_folds_up_to_date(run.parent)


@contextmanager
def _without_collections() -> Iterator[None]:
    """What is imported stays: looking for garbage among it, now and later, only takes time."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _bring_folds_up_to_date(multirun: Path) -> None:
    """After each fold, also one that failed: Hydra's own hook for the end of a multirun is not called then."""
    from doctune.reports.folds import write_folds

    try:
        log.info("\n%s", write_folds(multirun).read_text(encoding="utf-8"))
    except DoctuneError as error:  # the fold itself is as good as it is
        log.warning("The folds have no common result yet: %s", error)


def prepare_job(composed: DictConfig) -> None:
    """One Hydra job: extract, store and split the data of a configuration without training."""
    with _logged_failures():
        config = from_hydra(composed)
        from doctune.training.prepare import prepare

        prepare(config, Path(HydraConfig.get().runtime.output_dir))


JOBS = {"train": train_job, "prepare": prepare_job}


@contextmanager
def _logged_failures() -> Iterator[None]:
    try:
        yield
    except DoctuneError as error:
        log.error("%s", error)
        raise
    except Exception:
        # In a multirun Hydra prints this to stderr only; the job's own log must have it too.
        log.exception("The run failed.")
        raise


def main(command: str = "train", arguments: Sequence[str] | None = None) -> int:
    """Compose the configuration from overrides, do the command's job and return the exit status.

    Args:
        command: a key of `JOBS`.
        arguments: Hydra overrides; None takes those of the process.
    """
    register_schemas()
    user_wants_full_error = "HYDRA_FULL_ERROR" in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"  # hands exceptions to us instead of printing them and exiting with 1
    overrides = sys.argv[1:] if arguments is None else arguments
    shown_as = "python train.py" if arguments is None else f"doctune {command}"
    if {"--help", "-h"} & {*overrides}:
        print(help_text(command, shown_as, conf_dir()), end="")
        return 0
    os.environ["DOCTUNE_COMMAND"] = command  # conf/config.yaml names the log after it: train.log, prepare.log
    try:
        resumed = resumption(overrides) if command == "train" else None
        if isinstance(resumed, Resumption) and resumed.is_finished:
            print(f"{resumed.run} is finished; a larger trainer.max_epochs= trains on.", file=sys.stderr)
            return 0
        given = resumed.arguments() if resumed else overrides
        _require_slurm(given)
        _require_named_choices(given)
    except DoctuneError as error:
        print(f"doctune: {error}", file=sys.stderr)
        return 2
    configs = resumed.run / SAVED_CONFIG.parent if isinstance(resumed, Resumption) else conf_dir()
    sys.argv = [sys.argv[0], *given]
    app = hydra.main(version_base="1.3", config_path=str(configs), config_name="config")(JOBS[command])
    try:
        with _terminated_like_interrupted():
            app()
    except BrokenPipeError:  # `--cfg job | head` has seen enough
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  (what is left goes nowhere, at exit too)
        return 0
    except KeyboardInterrupt:
        print("doctune: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if user_wants_full_error:
            raise
        return _report(error, shown_as)
    return 0


def _require_slurm(arguments: Sequence[str]) -> None:
    """Refuse a launcher that would look for SLURM in vain."""
    if "hydra/launcher=submitit_slurm" in arguments and not (shutil.which("sbatch") and shutil.which("srun")):
        raise ConfigError(
            "hydra/launcher=submitit_slurm hands jobs to SLURM, and this machine has no sbatch and srun on its PATH. "
            "Start it on a login node of the cluster; hydra/launcher=joblib runs jobs in parallel here."
        )


def _require_named_choices(arguments: Sequence[str]) -> None:
    """Refuse a number, or null, where a group wants the name of a choice: Hydra fails without saying which group."""
    known = groups(conf_dir())
    for argument in arguments:
        group, _, choice = argument.partition("=")
        if group in known and re.fullmatch(r"[-+.\d]+(e[-+]?\d+)?|true|false|null", choice, re.IGNORECASE):
            raise ConfigError(no_choice(group, choice, choices(conf_dir(), group)))


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does, so that it is recorded as interrupted."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _report(error: Exception, shown_as: str) -> int:
    """Say what went wrong: a sentence for the caller's mistakes (2), one line for a failed run (1)."""
    if isinstance(error, DoctuneError):
        return 1 if isinstance(error, TrainingError) else 2  # train_job has said it
    if isinstance(error, HydraException | OmegaConfBaseException):
        look = f" `{shown_as} --cfg job` shows every key with its value." if is_of_a_key(error) else ""
        print(f"doctune: {mistake_in(error, groups(conf_dir()))}{look}", file=sys.stderr)
        return 2
    reason = "".join(traceback.format_exception_only(error)).strip()
    print(f"doctune: the run failed: {reason}", file=sys.stderr)  # its log has the traceback
    return 1
