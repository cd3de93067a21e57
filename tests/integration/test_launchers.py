"""Where the jobs of a multirun run: Ray on this machine, and launchers that lack what they need."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

ROOT = Path(__file__).parents[2]
needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="ray is not installed: pip install 'doctune[scale]'"
)


@pytest.fixture
def multirun(tiny, manifest_of_files, tmp_path):
    """Start jobs that train for one epoch, by a launcher."""

    def start(*overrides, program=str(ROOT / "train.py"), **environment):
        recipe = [*tiny, f"data.manifest={manifest_of_files}", "trainer.max_epochs=1", "logger=csv"]
        return subprocess.run(
            [sys.executable, *program.split(), *recipe, "hydra.mode=MULTIRUN", "hydra.sweep.dir=swept", *overrides],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "HF_HUB_OFFLINE": "1", **environment},
        )

    return start


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


@needs_ray
def test_ray_runs_two_jobs_and_each_has_its_settings_and_its_log(multirun, tmp_path):
    done = multirun("optim.lr=1e-3,2e-3", "hydra/launcher=ray", "hydra.sweep.subdir=job-${hydra.job.num}")
    assert done.returncode == 0, done.stderr
    runs = sorted(path for path in (tmp_path / "swept").iterdir() if path.is_dir())
    assert [run.name for run in runs] == ["job-0", "job-1"]
    assert [read(run / "status.json")["phase"] for run in runs] == ["finished"] * 2
    assert [read(run / "environment.json")["config"]["optim"]["lr"] for run in runs] == [0.001, 0.002]
    assert all("Epoch 1/1" in (run / "train.log").read_text() for run in runs)
    assert len({read(run / "status.json")["pid"] for run in runs}) == 2


@needs_ray
@pytest.mark.slow
def test_a_job_that_is_refused_does_not_end_those_beside_it(multirun, tmp_path):
    done = multirun("split.test=0.99,0.2", "hydra/launcher=ray")
    assert done.returncode == 2
    assert "split.val=0.1 and split.test=0.99 leave nothing to train on." in done.stdout + done.stderr
    assert read(tmp_path / "swept/1/status.json")["phase"] == "finished"


def test_ray_that_is_missing_is_a_sentence_and_exit_2(multirun, tmp_path):
    program = tmp_path / "without_ray.py"
    program.write_text(
        "import importlib.util as util, sys\n"
        "find = util.find_spec\n"
        "util.find_spec = lambda name, *more: None if name == 'ray' else find(name, *more)\n"
        "from doctune.training.app import main\n"
        "sys.exit(main())\n"
    )
    done = multirun("optim.lr=1e-3,2e-3", "hydra/launcher=ray", program=str(program))
    assert done.returncode == 2
    assert done.stdout.endswith("hydra/launcher=ray needs Ray: pip install 'doctune[scale]'\n")
    assert "Traceback" not in done.stdout + done.stderr
    assert not list(tmp_path.glob("swept/*/status.json"))


def test_slurm_that_is_missing_is_a_sentence_and_exit_2(multirun, tmp_path):
    done = multirun("optim.lr=1e-3,2e-3", "hydra/launcher=submitit_slurm", PATH="")
    assert done.returncode == 2
    assert done.stderr == (
        "doctune: hydra/launcher=submitit_slurm hands jobs to SLURM, and this machine has no sbatch and srun on its "
        "PATH. Start it on a login node of the cluster; hydra/launcher=joblib runs jobs in parallel here.\n"
    )
    assert not (tmp_path / "swept").exists()


def test_a_resumed_multirun_is_refused_without_slurm_too(multirun, tmp_path):
    saved = {"hydra": ["hydra/launcher=submitit_slurm"], "task": ["optim.lr=1e-3,2e-3"]}
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun/multirun.yaml").write_text(json.dumps({"hydra": {"overrides": saved}}))
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "resume=begun"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": ""},
    )
    assert done.returncode == 2
    assert done.stderr.startswith("doctune: hydra/launcher=submitit_slurm hands jobs to SLURM, and this machine")


@needs_ray
def test_prepare_on_ray_fills_the_store_as_this_machine_does(tiny, manifest_of_files, tmp_path):
    def prepared(engine):
        recipe = [*tiny, f"data.manifest={manifest_of_files}", f"data.cache_dir={tmp_path / engine / 'cache'}"]
        command = [sys.executable, "-m", "doctune.cli.main", "prepare", *recipe, f"prepare.engine={engine}"]
        done = subprocess.run(
            [*command, f"hydra.run.dir={tmp_path / engine}"], cwd=tmp_path, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Reading 60 new files." in done.stdout
        account = (tmp_path / engine / "data/account.csv").read_text()
        (texts,) = (tmp_path / engine / "cache").glob("texts/*")
        rows = [row for path in sorted(texts.glob("*.arrow")) for row in read_arrow(path)]
        return account, sorted(rows, key=str)

    assert prepared("ray") == prepared("local")


def read_arrow(path):
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all().to_pylist()
