"""A k-fold run as a person types it: the same folds everywhere, resumable, and what they say together."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from doctune.cli.main import main

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def recipe(tiny, manifest_of_files, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return (
        "sweep=kfold",
        "split.folds=3",
        *tiny,
        f"data.manifest={manifest_of_files}",
        f"data.cache_dir={cache}",
        "deterministic=true",
        "trainer.max_epochs=3",
        "trainer.effective_batch_size=8",
        "trainer.log_every_n_steps=1",
        "optim.lr=4e-3",
        "logger=csv",
    )


def start(folder, *overrides):
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *overrides],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        start_new_session=True,
    )


def finish(process):
    said, _ = process.communicate(timeout=300)
    return process.returncode, said


@pytest.fixture(scope="module")
def whole(recipe, tmp_path_factory):
    """The folds that nobody interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    status, said = finish(start(folder, *recipe, "hydra.sweep.dir=multirun/whole"))
    assert status == 0, said
    return folder / "multirun/whole"


def results(folder):
    return json.loads((folder / "kfold/kfold_results.json").read_text())


def without_paths(found):
    for fold in found["folds"]:
        fold.pop("path", None)
    return found


def test_one_folder_per_fold_and_their_aggregate(whole):
    assert sorted(path.name for path in whole.iterdir() if path.is_dir()) == ["fold-0", "fold-1", "fold-2", "kfold"]
    found = results(whole)
    assert [fold["fold"] for fold in found["folds"]] == [0, 1, 2]
    assert {fold["status"] for fold in found["folds"]} == {"finished"}
    assert found["missing"] == []
    values = [fold["monitor"] for fold in found["folds"]]
    assert found["mean"] == pytest.approx(sum(values) / 3)
    assert (found["min"], found["max"]) == (min(values), max(values))
    assert found["oof"]["documents"] == 60


def test_every_document_is_predicted_once_by_a_model_that_had_not_seen_it(whole):
    rows = pq.read_table(whole / "kfold/oof.parquet").to_pylist()
    assert len({row["id"] for row in rows}) == len(rows) == 60
    for fold in range(3):
        parts = pq.read_table(whole / f"fold-{fold}/data/splits.parquet").to_pylist()
        judged = {row["id"] for row in parts if row["part"] == "test"}
        assert judged == {row["id"] for row in rows if row["fold"] == fold}
        assert not judged & {row["id"] for row in parts if row["part"] in ("train", "val")}


def test_a_kill_in_the_middle_of_a_fold_and_a_second_start_give_the_same_summary(recipe, whole, tmp_path):
    process = start(tmp_path, *recipe, "hydra.sweep.dir=multirun/killed", "callbacks.checkpoint.every_minutes=1e-6")
    folder = tmp_path / "multirun/killed"
    while not [*folder.glob("fold-1/checkpoints/step_*")]:
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.02)  # leave the processor to the run
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    first = (folder / "fold-0/metrics.csv").stat().st_mtime_ns
    assert results(folder)["missing"] == [1, 2]
    status, said = finish(start(tmp_path, "resume=multirun/killed"))
    assert status == 0, said
    assert "fold-0 is finished already" in said
    assert (folder / "fold-0/metrics.csv").stat().st_mtime_ns == first
    assert without_paths(results(folder)) == without_paths(results(whole))


def test_a_fold_that_fails_does_not_end_the_others(recipe, tmp_path):
    folder = tmp_path / "multirun/broken"
    (folder / "fold-1").mkdir(parents=True)
    (folder / "fold-1/checkpoints").write_text("a file where the checkpoints' folder belongs")
    status, _ = finish(start(tmp_path, *recipe, "hydra.sweep.dir=multirun/broken"))
    assert status == 1
    assert "Traceback" in (folder / "fold-1/train.log").read_text()
    found = results(folder)
    assert [fold["status"] for fold in found["folds"]] == ["finished", "failed", "finished"]
    assert found["missing"] == [1]
    assert main(["folds", str(folder)]) == 1


def test_another_configuration_is_not_mixed_into_the_same_folder(recipe, whole):
    status, said = finish(start(whole.parents[1], *recipe, "hydra.sweep.dir=multirun/whole", "optim.lr=1e-5"))
    assert status == 2
    assert "holds a run with another configuration: optim.lr=1e-05 (was 0.004)" in said
    assert results(whole)["missing"] == []


NO_RAY = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="ray is not installed: pip install 'doctune[scale]'"
)


@pytest.mark.parametrize(
    "launcher",
    [
        "joblib",
        pytest.param("submitit_local", marks=pytest.mark.slow),
        pytest.param("ray", marks=[pytest.mark.slow, NO_RAY]),
    ],
)
def test_other_launchers_make_the_same_folds(recipe, whole, tmp_path, launcher):
    overrides = [*recipe, f"hydra/launcher={launcher}", "hydra.sweep.dir=multirun/launched"]
    status, said = finish(start(tmp_path, *overrides, *(["hydra.launcher.n_jobs=2"] if launcher == "joblib" else [])))
    assert status == 0, said
    folder = tmp_path / "multirun/launched"
    for fold in range(3):
        ours, theirs = (
            pq.read_table(each / f"fold-{fold}/data/splits.parquet").to_pylist() for each in (folder, whole)
        )
        assert ours == theirs
    assert without_paths(results(folder)) == without_paths(results(whole))
