"""`sweep=optuna`: a Hydra sweeper that asks Optuna for each trial's values and tells it the score.

The sweeper of the published plugin, hydra-optuna-sweeper, is bound to optuna < 3. This one is Optuna's ask-and-tell
interface in a loop around Hydra's own launcher, one job at a time. The study is a file in the sweep's folder, so that
the same command with the same `hydra.sweep.dir` goes on with it.
"""

from __future__ import annotations

import logging
import math
import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from doctune.errors import ConfigError, DoctuneError, TrainingError
from doctune.reports.search import Search, Trial, write_search
from doctune.training.override_mistakes import mistake_in
from doctune.training.resume import SAVED_SWEEP
from doctune.training.search_space import Choices, Range, Space, override_of, parse_space, with_command_line

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

log = logging.getLogger("doctune")

STUDY_FILE = "study.db"


class OptunaSweeper(Sweeper):
    """One trial after another, until `n_trials` of the study have finished or failed."""

    def __init__(self, n_trials: int, search_space: Mapping[str, Any]) -> None:
        self.n_trials = n_trials
        self.search_space = search_space
        self.config: DictConfig
        self.hydra_context: HydraContext
        self.launcher: Launcher

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra's call before `sweep`."""
        self.config = config
        self.hydra_context = hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Search, leave `search.json` and `search.txt` in the sweep's folder, and show the latter.

        Raises:
            ConfigError: the space, the number of trials or the stored study cannot be used; no job has run.
            TrainingError: every trial failed.
        """
        try:
            self._search(arguments)
        except DoctuneError as error:
            log.error("%s", error)  # the jobs say what is wrong with them, and nobody else says this
            raise

    def _search(self, arguments: list[str]) -> None:
        _check_can_search(self.n_trials)
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        given = parse_space(_plain(self.search_space))
        space, shared = with_command_line(given, parser.parse_overrides(arguments))
        distributions = self._distributions(space, shared)
        folder = Path(self.config.hydra.sweep.dir)
        with _alone_in(folder):
            study = _open_study(folder, self.config.monitor.mode, shared, distributions)
            OmegaConf.save(self.config, folder / SAVED_SWEEP)
            while _num_done(study) < self.n_trials:
                number, values = _next_trial(study, distributions, self.config.seed)
                self._run_trial(study, number, [*shared, *(override_of(*value) for value in values.items())])
                self._write(study, shared, folder)
            log.info("\n%s", self._write(study, shared, folder).read_text(encoding="utf-8"))
            _refuse_total_failure(study)

    def _distributions(self, space: Space, shared: list[str]) -> dict[str, BaseDistribution]:
        """What Optuna draws from, every end and choice of which the configuration accepts for its key."""
        found = {}
        problems = []
        for key, dimension in space.items():
            try:
                composed = [self._compose([*shared, f"{key}={end}"]) for end in dimension.ends()]
                found[key] = _distribution(dimension, OmegaConf.select(composed[0], key))
            except (HydraException, OmegaConfBaseException) as error:
                problems.append(f"  {mistake_in(error)}")
        if problems:
            raise ConfigError("\n".join(["The configuration does not accept what is to be searched:", *problems]))
        return found

    def _compose(self, overrides: list[str]) -> DictConfig:
        return self.hydra_context.config_loader.load_sweep_config(self.config, overrides)

    def _run_trial(self, study: optuna.Study, number: int, overrides: list[str]) -> None:
        """Launch one job, whose folder is `trial-<number>`, and tell what came of it."""
        from optuna.trial import TrialState

        try:
            (job,) = self.launcher.launch([overrides], initial_job_idx=number)
            score = float(job.return_value)
            if not math.isfinite(score):
                raise TrainingError(f"The score is {score}.")
        except Exception as error:  # of whatever kind: the next trial may do better
            study.set_user_attr(f"error-{number}", _in_a_line(error))
            study.tell(number, state=TrialState.FAIL)
            log.warning("Trial %d failed: %s", number, _in_a_line(error))
        else:
            study.tell(number, score)

    def _write(self, study: optuna.Study, shared: list[str], folder: Path) -> Path:
        importance, why_not = importance_of(study)
        monitor = self.config.monitor
        fixed = tuple(each for each in shared if not each.startswith("sweep="))
        trials = tuple(_trials(study, folder))
        return write_search(
            Search(monitor.metric, monitor.mode, self.n_trials, fixed, trials, importance, why_not), folder
        )


def _check_can_search(n_trials: int) -> None:
    try:
        import optuna
    except ImportError as error:
        raise ConfigError("sweep=optuna needs optuna: pip install 'doctune[sweep]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # what it says per trial, the table says
    if n_trials < 1:
        raise ConfigError(f"hydra.sweeper.n_trials={n_trials} must be at least 1.")
    if os.environ.get("DOCTUNE_COMMAND") == "prepare":
        raise ConfigError("sweep=optuna needs a score, and `doctune prepare` gives none; search with python train.py.")


def _plain(search_space: Mapping[str, Any]) -> dict[str, Any]:
    found = OmegaConf.to_container(OmegaConf.create(dict(search_space)), resolve=True)
    assert isinstance(found, dict)
    return {str(key): entry for key, entry in found.items()}


def _distribution(dimension: Range | Choices, value: Any) -> BaseDistribution:
    """What Optuna draws from; of a key whose composed `value` is a whole number, whole numbers only."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(dimension, Choices):
        return CategoricalDistribution(dimension.values)
    if isinstance(value, int):
        return IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Two searches in one folder would take each other's trials."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".search.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(f"{folder}: a search is running in this folder already.") from None
    try:
        yield
    finally:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)


def _open_study(
    folder: Path, mode: str, shared: list[str], distributions: Mapping[str, BaseDistribution]
) -> optuna.Study:
    """The study of the folder, new or as an earlier start left it.

    Raises:
        ConfigError: it is a study of something else, whose scores say nothing about this one.
    """
    import optuna
    from optuna.distributions import check_distribution_compatibility
    from sqlalchemy import URL

    place = URL.create("sqlite", database=str((folder / STUDY_FILE).resolve()))
    study = optuna.create_study(
        storage=place.render_as_string(),
        study_name="search",
        direction="minimize" if mode == "min" else "maximize",
        load_if_exists=True,
    )
    before = study.user_attrs.get("overrides", shared)
    if sorted(before) != sorted(shared):
        raise ConfigError(
            f"{folder} holds a search with other overrides: {' '.join(before) or 'none'} (now "
            f"{' '.join(shared) or 'none'}). Give this one a hydra.sweep.dir of its own."
        )
    for trial in study.trials:
        for key in trial.distributions.keys() & distributions.keys():
            try:
                check_distribution_compatibility(trial.distributions[key], distributions[key])
            except ValueError as error:
                raise ConfigError(
                    f"{folder} holds a search with another space for {key}: its choices cannot change, nor can a range "
                    "become choices. Give this one a hydra.sweep.dir of its own."
                ) from error
    study.set_user_attr("overrides", shared)
    return study


def _num_done(study: optuna.Study) -> int:
    return sum(trial.state.is_finished() for trial in study.trials)  # a failed one is finished to Optuna


def _next_trial(
    study: optuna.Study, distributions: dict[str, BaseDistribution], seed: int
) -> tuple[int, dict[str, float | str]]:
    """Number and values of the trial that an earlier start left unfinished, or of a new one.

    The unfinished one keeps its number, so that its run goes on in its folder where it was stopped.
    """
    from optuna.samplers import TPESampler
    from optuna.trial import TrialState

    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        if trial.params.keys() == distributions.keys():
            return trial.number, trial.params
        study.set_user_attr(f"error-{trial.number}", "It was stopped, and the space has changed since.")
        study.tell(trial.number, state=TrialState.FAIL)
    # A sampler of its own for every trial: a search in two parts draws what it had drawn in one.
    draws = random.Random(f"{seed} {len(study.trials)}").getrandbits(32)
    study.sampler = TPESampler(seed=draws)
    asked = study.ask(distributions)
    return asked.number, asked.params


def _trials(study: optuna.Study, folder: Path) -> Iterator[Trial]:
    for trial in study.trials:
        if trial.state.is_finished():
            run = folder / f"trial-{trial.number}"
            error = study.user_attrs.get(f"error-{trial.number}")
            yield Trial(trial.number, trial.value, trial.params, run.name if run.is_dir() else None, error)


def importance_of(study: optuna.Study) -> tuple[dict[str, float], str]:
    """Each parameter's share of what the score varied by (fANOVA, Hutter et al. 2014), or why it is not known."""
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances
    from optuna.trial import TrialState

    finished = study.get_trials(states=(TrialState.COMPLETE,))
    if len(finished) < 2:
        return {}, "fewer than 2 trials have finished"
    if len({trial.value for trial in finished}) == 1:
        return {}, "all trials scored alike"
    try:
        return get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0)), ""
    except (RuntimeError, ValueError) as error:
        return {}, _in_a_line(error).rstrip(".")


def _refuse_total_failure(study: optuna.Study) -> None:
    errors = [study.user_attrs.get(f"error-{trial.number}") for trial in study.trials if trial.value is None]
    if len(errors) == len(study.trials):
        raise TrainingError(f"Every trial failed, the first one so: {errors[0]}")


def _in_a_line(error: Exception) -> str:
    """The error's first line, and the second where the first only announces it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = " ".join(lines[:2]) if lines and lines[0].endswith(":") else "".join(lines[:1])
    return said if isinstance(error, DoctuneError) else f"{type(error).__name__}: {said}"
