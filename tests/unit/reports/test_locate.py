"""Which folder is the run."""

import json
import os
import re

import pytest

from doctune.errors import ArtifactError
from doctune.reports.locate import find_run


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def make(tmp_path):
    def write(name, started_at=None):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        fields = {"phase": "finished"} | ({"started_at": started_at} if started_at else {})
        (folder / "status.json").write_text(json.dumps(fields))
        return folder

    return write


def test_the_newest_is_the_one_that_started_last_wherever_it_is(make):
    make("outputs/2026-01-31/12-00-00", "2026-01-31T12:00:00.000+00:00")
    newest = make("multirun/2026-01-30/09-00-00/fold-3", "2026-01-31T12:00:01.000+00:00")
    make("outputs/named", "2026-01-29T12:00:00.000+00:00")
    assert find_run(None).resolve() == newest
    taken_up_again = make("outputs/2026-01-01/00-00-00", "2026-02-01T13:00:00.000+01:00")
    assert find_run(None).resolve() == taken_up_again
    assert str(find_run(None)) == "outputs/2026-01-01/00-00-00"


def test_times_in_other_zones_are_compared_as_moments(make):
    later = make("outputs/a/a", "2026-01-31T12:30:00+00:00")
    make("outputs/b/b", "2026-01-31T13:00:00+02:00")
    assert find_run(None).resolve() == later


def test_jobs_of_the_same_instant_are_ordered_by_name(make):
    for job in ("0", "1", "2"):
        make(f"multirun/2026-01-31/12-00-00/{job}", "2026-01-31T12:00:00+00:00")
    assert str(find_run(None)) == "multirun/2026-01-31/12-00-00/2"


def test_a_run_that_does_not_say_when_it_started_counts_from_its_file(make):
    make("outputs/a/a", "2026-01-31T12:00:00+00:00")
    damaged = make("outputs/b/b")
    (damaged / "status.json").write_text("{")
    os.utime(damaged / "status.json", (0, 0))
    assert str(find_run(None)) == "outputs/a/a"
    os.utime(damaged / "status.json", (4e9, 4e9))
    assert str(find_run(None)) == "outputs/b/b"


def test_folders_without_a_status_are_no_runs(make, tmp_path):
    run = make("outputs/2026-01-31/12-00-00", "2026-01-31T12:00:00+00:00")
    (tmp_path / "outputs/2026-02-01/12-00-00").mkdir(parents=True)
    (tmp_path / "outputs/2026-02-01/12-00-00/train.log").write_text("a mistyped key")
    assert find_run(None).resolve() == run


def test_a_run_or_its_model_folder_may_be_given(make, tmp_path, monkeypatch):
    run = make("somewhere/else")
    (run / "model").mkdir()
    assert find_run(str(run)) == run
    assert find_run(run / "model") == run
    assert str(find_run("somewhere/else/model")) == "somewhere/else"
    monkeypatch.chdir(run / "model")
    assert find_run(".").resolve() == run


def said(given):
    with pytest.raises(ArtifactError) as error:
        find_run(given)
    return str(error.value)


def test_no_run_at_all(tmp_path):
    assert said(None) == (
        f"There is no run under outputs/ or multirun/ in {tmp_path}: no folder there holds a status.json. Make one "
        "with `python train.py`, name its folder, or change to the directory where it was started."
    )


def test_a_folder_that_does_not_exist():
    assert said("nowhere") == "nowhere: there is no such run folder. Runs are under outputs/ and multirun/."


def test_a_folder_that_is_no_run(tmp_path):
    (tmp_path / "letters").mkdir()
    assert said("letters") == (
        "letters is no run: a run's folder, or the folder above its model/, holds the status.json that training "
        "writes, and here is none. Runs are under outputs/ and multirun/."
    )


def test_a_folder_of_runs_names_one_of_them(make):
    for fold in range(3):
        make(f"multirun/2026-01-31/12-00-00/fold-{fold}")
    assert said("multirun/2026-01-31/12-00-00") == (
        "multirun/2026-01-31/12-00-00 holds 3 runs: name one of them, such as multirun/2026-01-31/12-00-00/fold-0."
    )
    assert re.match("multirun/2026-01-31 holds 3 runs", said("multirun/2026-01-31"))
