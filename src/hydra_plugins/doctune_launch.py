"""`hydra/launcher=ray`: the jobs of a multirun as tasks of Ray, on this machine or on a cluster that is up.

hydra-ray-launcher 1.2.2 takes the same keys and would do, but asks for cloudpickle<3, and joblib asks for 3 or newer.
Ray is optional, `pip install 'doctune[scale]'`.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, configure_log, filter_overrides, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from doctune.errors import ConfigError

log = logging.getLogger("doctune")

ON_EVERY_MACHINE = "DOCTUNE_COMMAND"  # conf/config.yaml reads it


# init: arguments of ray.init; remote: those of ray.remote, what a job takes, such as num_cpus. Without "local" Ray
# joins the cluster that was last up on this machine, and waits for minutes for one that has died.
ConfigStore.instance().store(
    group="hydra/launcher",
    name="ray",
    node={"_target_": "hydra_plugins.doctune_launch.RayLauncher", "ray": {"init": {"address": "local"}, "remote": {}}},
    provider="doctune",
)


class RayLauncher(Launcher):
    """As many jobs at once as the cores and GPUs allow that Ray has; a job takes one of each where nothing is said."""

    def __init__(self, ray: DictConfig) -> None:
        self.init: Any = OmegaConf.to_container(ray.init, resolve=True)
        self.remote: Any = OmegaConf.to_container(ray.remote, resolve=True)
        self.config: DictConfig
        self.hydra_context: HydraContext
        self.task_function: TaskFunction

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra's call before `launch`.

        Raises:
            ConfigError: Ray is missing.
        """
        if importlib.util.find_spec("ray") is None:
            missing = ConfigError("hydra/launcher=ray needs Ray: pip install 'doctune[scale]'")
            log.error("%s", missing)  # no job says this
            raise missing
        self.config, self.hydra_context, self.task_function = config, hydra_context, task_function

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs and wait for all of them, those beside a failed one too; returns are in the jobs' order."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports to its makers otherwise
        import ray

        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        Path(str(self.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        if not ray.is_initialized():
            ray.init(**self.init)
        # Ray hides all GPUs from a task that asks for none, and the job would train on the CPU.
        takes = {"num_gpus": 1 if ray.cluster_resources().get("GPU") else 0} | self.remote
        task = ray.remote(**takes)(_run_in_worker)
        jobs = [
            task.remote(
                self.hydra_context,
                self._job_config(overrides, number),
                self.task_function,
                Singleton.get_state(),
                str(Path.cwd()),
                {ON_EVERY_MACHINE: os.environ[ON_EVERY_MACHINE]},
            )
            for number, overrides in enumerate(job_overrides, start=initial_job_idx)
        ]
        ray.wait(jobs, num_returns=len(jobs))
        returned: list[JobReturn] = ray.get(jobs)
        return returned

    def _job_config(self, overrides: Sequence[str], number: int) -> DictConfig:
        log.info("\t#%d : %s", number, " ".join(filter_overrides(overrides)))
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = str(number)
            config.hydra.job.num = number
        return config


def _run_in_worker(
    hydra_context: HydraContext,
    config: DictConfig,
    task_function: TaskFunction,
    singletons: dict[Any, Any],
    folder: str,
    environment: Mapping[str, str],
) -> JobReturn:
    """One job in a process of Ray, on a machine that has the same files under the same paths."""
    os.chdir(folder)
    os.environ.update(environment)
    setup_globals()
    Singleton.set_state(singletons)
    HydraConfig.instance().set_config(config)
    return run_job(
        hydra_context=hydra_context,
        task_function=task_function,
        config=config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
