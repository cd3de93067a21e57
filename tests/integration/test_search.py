"""`python train.py sweep=optuna` as a person types it: failures, a second start, refusals."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("optuna")

ROOT = Path(__file__).parents[2]
# 6 documents per step do not come in micro batches of 4: such a trial fails.
SOME_FAIL = ("trainer.micro_batch_size=4", "trainer.effective_batch_size=4,6,8")


def command(*overrides):
    return [sys.executable, str(ROOT / "train.py"), "sweep=optuna", "hydra.sweep.dir=search", *overrides]


def search(folder, *overrides):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command(*overrides), cwd=folder, capture_output=True, text=True, env=environment)


def result(folder):
    return json.loads((folder / "search/search.json").read_text())


def trials(folder):
    """Number -> trial, in the order of numbers."""
    found = {trial["trial"]: trial for trial in result(folder)["trials"]}
    return dict(sorted(found.items()))


def run_folders(folder):
    return sorted(path.name for path in (folder / "search").glob("trial-*"))


@pytest.fixture(scope="module")
def job(manifest_of_files, tiny, tmp_path_factory):
    """The overrides of a run of seconds, with texts that are read once."""
    cache = tmp_path_factory.mktemp("cache")
    return [*tiny, f"data.manifest={manifest_of_files}", f"data.cache_dir={cache}", "trainer=smoke", "logger=csv"]


@pytest.fixture(scope="module")
def two_starts(job, tmp_path_factory):
    """A search of four trials, gone on with to five: its folder, both outputs, and the trials after the first."""
    folder = tmp_path_factory.mktemp("two_starts")
    first = search(folder, *job, *SOME_FAIL, "hydra.sweeper.n_trials=4")
    before = trials(folder) if first.returncode == 0 else {}
    shown = (folder / "search/search.txt").read_text() if before else ""
    second = search(folder, *job, *SOME_FAIL, "hydra.sweeper.n_trials=5")
    return folder, first, before, shown, second


def test_failed_trials_do_not_end_the_search(two_starts):
    _, first, before, shown, _ = two_starts
    assert first.returncode == 0, first.stdout + first.stderr
    assert [*before] == [0, 1, 2, 3]
    failed = [trial for trial in before.values() if trial["status"] == "failed"]
    assert 1 <= len(failed) <= 3
    for trial in before.values():
        batch = trial["parameters"]["trainer.effective_batch_size"]
        assert (trial["status"] == "failed") == (batch == "6")
    assert {trial["error"] for trial in failed} == {
        "The configuration cannot be run: trainer.effective_batch_size=6 is not a multiple of "
        "trainer.micro_batch_size=4: choose 4 or 8."
    }
    assert shown in first.stdout
    num_finished = 4 - len(failed)
    assert f"4 of 4 trials done, {num_finished} finished, {len(failed)} failed." in shown


def test_a_second_start_goes_on_to_the_new_total(two_starts):
    folder, _, before, _, second = two_starts
    assert second.returncode == 0, second.stdout + second.stderr
    after = trials(folder)
    assert [*after] == [0, 1, 2, 3, 4]
    assert run_folders(folder) == [f"trial-{number}" for number in range(5)]
    assert len(re.findall("Launching 1 jobs", second.stdout)) == 1
    assert all({**after[number], "rank": 0} == {**before[number], "rank": 0} for number in before)
    assert len({trial["parameters"]["optim.lr"] for trial in after.values()}) == 5  # it draws on, not anew


def test_the_best_is_the_highest_score_of_its_run_folder(two_starts):
    folder, *_ = two_starts
    found = result(folder)
    finished = [trial for trial in found["trials"] if trial["status"] == "finished"]
    assert [trial["value"] for trial in finished] == sorted((trial["value"] for trial in finished), reverse=True)
    for trial in finished:
        environment = json.loads((folder / "search" / trial["folder"] / "environment.json").read_text())
        assert environment["best_score"] == trial["value"]
        assert environment["config"]["optim"]["lr"] == trial["parameters"]["optim.lr"]
    best = found["best"]
    assert best["trial"] == finished[0]["trial"]
    assert (
        f"trainer.effective_batch_size={finished[0]['parameters']['trainer.effective_batch_size']}" in best["overrides"]
    )
    assert "sweep=optuna" not in best["overrides"]


def test_another_configuration_in_the_same_folder_is_refused(two_starts, job):
    folder, *_ = two_starts
    done = search(folder, *job, *SOME_FAIL, "hydra.sweeper.n_trials=6", "seed=7")
    assert done.returncode == 2
    assert "search holds a search with other overrides: " in done.stdout
    done = search(folder, *job, SOME_FAIL[0], "trainer.effective_batch_size=4,16", "hydra.sweeper.n_trials=6")
    assert done.returncode == 2
    assert (
        "search holds a search with another space for trainer.effective_batch_size: its choices cannot change, nor can "
        "a range become choices. Give this one a hydra.sweep.dir of its own."
    ) in done.stdout
    assert len(trials(folder)) == 5


def test_a_killed_search_goes_on_with_the_trial_that_it_was_at(tmp_path, job):
    overrides = [*job, "hydra.sweeper.n_trials=1", "callbacks.early_stopping.enabled=false", "trainer.max_epochs=60"]
    process = subprocess.Popen(command(*overrides), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    last = tmp_path / "search/trial-0/checkpoints/last.ckpt"
    while not last.exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = search(tmp_path, *overrides)
    assert done.returncode == 0, done.stdout + done.stderr
    assert run_folders(tmp_path) == ["trial-0"]
    (trial,) = trials(tmp_path).values()
    assert trial["status"] == "finished"
    environment = json.loads((tmp_path / "search/trial-0/environment.json").read_text())
    assert len(environment["resumed_at"]) == 1
    assert "Importance: not available, fewer than 2 trials have finished." in done.stdout


def test_when_every_trial_fails_the_search_has_failed(tmp_path, job):
    done = search(tmp_path, *job, SOME_FAIL[0], "trainer.effective_batch_size=6,10", "hydra.sweeper.n_trials=2")
    assert done.returncode == 1
    assert "Every trial failed, the first one so: The configuration cannot be run: " in done.stdout
    assert result(tmp_path)["best"] is None
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials=0 must be at least 1."),
        (["hydra.sweeper.search_space.optim.lr.low=1"], "optim.lr: low=1 is not below high=0.001."),
        (["hydra.sweeper.search_space.optim.lr.low=0"], "optim.lr: log=true needs low above 0, and low=0."),
        (
            ["+hydra.sweeper.search_space.optim.lrr={low:1,high:2}"],
            "The configuration does not accept what is to be searched:\n"
            "  There is no key optim.lrr. Did you mean optim.lr?\n",
        ),
        (
            ["trainer.max_epochs=1,many"],
            "trainer.max_epochs must be a whole number, and 'many' was given.",
        ),
        (["model=distilbert_mini,nope"], "There is no model=nope. Choices: distilbert, "),
    ],
)
def test_a_search_that_cannot_be_is_refused_before_the_first_job(tmp_path, overrides, sentence):
    done = search(tmp_path, *overrides)
    said = done.stdout + done.stderr
    assert done.returncode == 2, said
    assert sentence in said
    assert "Traceback" not in said
    assert not (tmp_path / "search").exists()


def test_prepare_cannot_be_searched(tmp_path):
    call = [sys.executable, "-m", "doctune.cli.main", "prepare", "sweep=optuna"]
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "sweep=optuna needs a score, and `doctune prepare` gives none; search with python train.py." in done.stdout


def test_without_optuna_the_way_to_get_it_is_said(tmp_path):
    (tmp_path / "optuna.py").write_text("raise ImportError('hidden by a test')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command(), cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert "sweep=optuna needs optuna: pip install 'doctune[sweep]'" in done.stdout
