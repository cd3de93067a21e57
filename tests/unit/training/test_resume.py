"""`resume=`: which run goes on, with what, and every sentence that says why not."""

import json
import os
import platform
import subprocess
import sys

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser

from doctune.errors import ConfigError
from doctune.training.resume import Resumption, resumption


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def ended_process():
    """The number of a process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture
def make_run(tmp_path, ended_process):
    """name -> a run folder; it started at that minute of an hour, and its process is gone unless said otherwise."""

    def make(name, phase="interrupted", minute=0, config=True, **fields):
        run = tmp_path / name
        (run / ".hydra").mkdir(parents=True)
        started = f"2026-03-01T10:{minute:02d}:00+00:00"
        status = {"phase": phase, "started_at": started, "updated_at": started, "pid": ended_process}
        (run / "status.json").write_text(json.dumps(status | {"host": platform.node()} | fields))
        if config:
            (run / ".hydra" / "config.yaml").write_text("seed: 42\n")
        return run

    return make


def refusal(*overrides):
    with pytest.raises(ConfigError) as refused:
        resumption(overrides)
    return str(refused.value)


@pytest.mark.parametrize("overrides", [[], ["seed=1"], ["resume="], ["resume=null"], ["resume=null", "seed=1"]])
def test_without_it_nothing_is_resumed(overrides):
    assert resumption(overrides) is None


def test_a_named_run_goes_on(make_run):
    run = make_run("outputs/day/time")
    assert resumption(["resume=outputs/day/time"]) == Resumption(run, ())


def test_the_last_one_counts(make_run):
    make_run("outputs/a")
    assert resumption(["resume=outputs/a", "resume=outputs/b", "resume=outputs/a"]).run.name == "a"
    assert resumption(["resume=outputs/a", "resume=null"]) is None


def test_its_model_folder_names_it_too(make_run):
    run = make_run("outputs/a")
    (run / "model").mkdir()
    assert resumption(["resume=outputs/a/model"]).run == run


def test_the_number_of_epochs_may_differ(make_run):
    make_run("outputs/a")
    found = resumption(["trainer.max_epochs=9", "resume=outputs/a"])
    assert found.overrides == ("trainer.max_epochs=9",)


def test_the_number_of_processes_may_differ(make_run):
    make_run("outputs/a")
    found = resumption(["resume=outputs/a", "trainer.devices=2", "trainer.strategy=ddp"])
    assert found.overrides == ("trainer.devices=2", "trainer.strategy=ddp")


def test_nothing_else_may_differ(make_run):
    make_run("outputs/a")
    assert refusal("resume=outputs/a", "seed=1", "trainer.max_epochs=9", "optim.lr=1") == (
        "resume= goes on with the saved configuration, so seed=1 optim.lr=1 cannot be changed; only "
        "trainer.max_epochs, trainer.devices and trainer.strategy may differ. Start a new run for another "
        "configuration."
    )


def test_a_folder_that_is_not_there_is_named():
    assert refusal("resume=outputs/a") == (
        "resume=outputs/a: outputs/a: there is no such run folder. Runs are under outputs/ and multirun/."
    )


def test_a_folder_that_is_no_run_is_named(tmp_path):
    (tmp_path / "papers").mkdir()
    assert refusal("resume=papers") == (
        "resume=papers: papers is no run: a run's folder, or the folder above its model/, holds the status.json that "
        "training writes, and here is none. Runs are under outputs/ and multirun/."
    )


def test_of_a_folder_of_runs_one_must_be_named(make_run):
    make_run("multirun/day/time/0")
    make_run("multirun/day/time/1")
    assert refusal("resume=multirun/day/time") == (
        "resume=multirun/day/time: multirun/day/time holds 2 runs: name one of them, such as multirun/day/time/0."
    )


def test_a_run_without_its_configuration_cannot_go_on(make_run):
    make_run("outputs/a", config=False)
    assert refusal("resume=outputs/a") == (
        "resume=outputs/a: outputs/a has no .hydra/config.yaml, so its configuration is not known."
    )


def test_auto_without_an_unfinished_run_says_so(make_run):
    make_run("outputs/a", "finished")
    assert refusal("resume=auto") == "resume=auto: no run under outputs/ or multirun/ is unfinished."


@pytest.mark.parametrize("phase", ["interrupted", "failed", "training", "extracting", "testing", "reporting"])
def test_auto_takes_the_newest_that_was_stopped_failed_or_died(make_run, phase):
    make_run("outputs/old", minute=1)
    expected = make_run("multirun/day/time/3", phase, minute=2)
    make_run("outputs/done", "finished", minute=3)
    assert resumption(["resume=auto", "trainer.max_epochs=9"]) == Resumption(expected, ("trainer.max_epochs=9",))


def test_auto_leaves_alone_what_cannot_or_must_not_go_on(make_run, tmp_path):
    expected = make_run("outputs/stopped", minute=0)
    make_run("outputs/refused", "refused", minute=1)
    make_run("outputs/running", "training", minute=2, pid=1)  # process 1 is always there
    make_run("outputs/without_configuration", minute=3, config=False)
    (make_run("outputs/damaged", minute=4) / "status.json").write_text("{")
    assert resumption(["resume=auto"]).run == expected


def test_a_run_whose_process_number_is_ours_by_now_is_not_running(make_run):
    expected = make_run("outputs/a", "training", pid=os.getpid())
    assert resumption(["resume=auto"]).run == expected


def test_a_run_that_has_ended_well_is_finished_unless_more_is_asked_for(make_run):
    make_run("outputs/a", "finished")
    make_run("outputs/b", "interrupted")
    assert resumption(["resume=outputs/a"]).is_finished
    assert not resumption(["resume=outputs/a", "trainer.max_epochs=9"]).is_finished
    assert not resumption(["resume=outputs/b"]).is_finished


ODD = [
    "with space",
    "it's",
    'a "name"',
    "a=b",
    "a,b",
    "a{b}",
    "(a)",
    "[a]",
    "a:b",
    "~a",
    "50%",
    "ä",
    "a\\b",
    "a\\'b",
    "#a",
    "$a",
    "a$",
]


@pytest.mark.parametrize("name", [*ODD, "a\\"])
def test_hydra_reads_the_path_of_an_oddly_named_run_as_it_is(make_run, name):
    run = make_run(f"outputs/{name}")
    arguments = resumption([f"resume={run}"]).arguments()
    parsed = {o.key_or_group: o.value() for o in OverridesParser.create().parse_overrides(arguments)}
    assert parsed["hydra.run.dir"] == str(run)
    assert (parsed["hydra.output_subdir"], parsed["hydra.job.name"]) == (None, "train")


@pytest.mark.parametrize("name", [*ODD, "a\\"])
def test_the_configuration_has_the_path_of_an_oddly_named_run_as_it_is(make_run, tmp_path, name):
    run = make_run(f"outputs/{name}")
    (tmp_path / "config.yaml").write_text("seed: 42\n")
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        composed = compose("config", resumption([f"resume={run}"]).arguments(), return_hydra_config=True)
    assert composed.hydra.run.dir == str(run)


@pytest.mark.parametrize("quote", ["'", '"'])
def test_a_path_may_be_quoted_as_hydra_wants_it(make_run, quote):
    run = make_run("outputs/a b")
    assert resumption([f"resume={quote}outputs/a b{quote}"]).run == run


def test_overrides_follow_the_folder(make_run):
    run = make_run("outputs/a")
    assert resumption(["resume=outputs/a", "trainer.max_epochs=9"]).arguments() == [
        f"hydra.run.dir='{run}'",
        "hydra.output_subdir=null",
        "hydra.job.name=train",
        "trainer.max_epochs=9",
    ]


def test_a_path_that_hydra_would_read_as_a_reference_is_refused(make_run):
    run = make_run("outputs/a${b}")
    with pytest.raises(ConfigError, match=r"Hydra takes \$\{ in its path for a reference\. Rename it"):
        resumption([f"resume={run}"])
