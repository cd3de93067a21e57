"""A run is never lost: killed, interrupted, out of memory or disk, it goes on to the result it would have had."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning import Callback

from doctune.errors import ConfigError, DataError, TrainingError
from doctune.training import build
from doctune.training.run import train

ROOT = Path(__file__).parents[2]
# 48 training documents: 6 steps of two micro-batches an epoch. Dropout is on.
RECIPE = (
    "deterministic=true",
    "optim.lr=4e-3",
    "trainer.max_epochs=4",
    "trainer.effective_batch_size=8",
    "trainer.micro_batch_size=4",
    "trainer.log_every_n_steps=1",
    "callbacks.early_stopping.patience=3",
    "callbacks.checkpoint.save_top_k=2",
)
TIMES = ("seconds", "tokens_per_s")


@pytest.fixture(scope="module")
def prepared(manifest_of_files, tmp_path_factory):
    return (f"data.manifest={manifest_of_files}", f"data.cache_dir={tmp_path_factory.mktemp('cache')}")


@pytest.fixture
def configure(compose, tiny, prepared):
    return lambda *overrides: compose(*tiny, *prepared, *RECIPE, *overrides)


@pytest.fixture(scope="module")
def whole_run(compose, tiny, prepared, tmp_path_factory):
    """The run that was never killed."""
    run = tmp_path_factory.mktemp("whole")
    train(compose(*tiny, *prepared, *RECIPE), run)
    return run


def with_callback(monkeypatch, callback):
    """Bring a callback into the next run without it being part of its configuration."""
    stock = build.stock_callbacks
    monkeypatch.setattr(build, "stock_callbacks", lambda config: [*stock(config), callback])


def ends_by(number, act):
    """Do something in a forked process that a signal must end."""
    child = os.fork()
    if child == 0:
        try:
            act()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"the process ended by itself with {os.waitstatus_to_exitcode(status)}"
    assert os.WTERMSIG(status) == number


class Kill(Callback):
    """Ends the process, without a last word, at the n-th time that a hook is called."""

    def __init__(self, hook, count):
        self.left = count
        setattr(self, hook, self.strike)

    def strike(self, *_, **__):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def kill_while_writing(monkeypatch, count):
    """Die in the middle of the n-th checkpoint's bytes."""
    save, calls = torch.save, []

    def half(checkpoint, stream):
        calls.append(1)
        if len(calls) == count:
            stream.write(b"half a checkpoint")
            stream.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        save(checkpoint, stream)

    monkeypatch.setattr(torch, "save", half)


def read_checkpoint(run, name="last.ckpt"):
    return torch.load(run / "checkpoints" / name, weights_only=True)


def history_of(run):
    epochs = json.loads((run / "training_history.json").read_text())
    return [{name: value for name, value in epoch.items() if name not in TIMES} for epoch in epochs]


def callback_states(checkpoint):
    """Without times of day, which are in the names of files."""
    states = {name.split("{")[0]: state for name, state in checkpoint["callbacks"].items()}
    best = states["NamedCheckpoint"]
    scores = sorted(float(score) for score in best["best_k_models"].values())
    kept = {"best": float(best["best_model_score"]), "scores": scores}
    history = {name: value for name, value in states["History"]["totals"].items() if name != "seconds"}
    return states["EarlyStopping"], states["GapGuard"], states["LearningGuards"], states["MetricsRows"], kept, history


def assert_same_run(run, whole):
    ours, theirs = read_checkpoint(run), read_checkpoint(whole)
    assert ours["global_step"] == theirs["global_step"]
    for name, weight in theirs["state_dict"].items():
        assert torch.equal(ours["state_dict"][name], weight), name
    moments, expected = (each["optimizer_states"][0]["state"] for each in (ours, theirs))
    assert all(torch.equal(moments[i][name], value) for i, state in expected.items() for name, value in state.items())
    assert ours["lr_schedulers"] == theirs["lr_schedulers"]
    assert callback_states(ours) == callback_states(theirs)
    assert history_of(run) == history_of(whole)
    assert (run / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()
    reports = [json.loads((folder / "report/report.json").read_text()) for folder in (run, whole)]
    assert reports[0]["test"] == reports[1]["test"]
    assert not [*run.rglob("*.part")]
    assert json.loads((run / "status.json").read_text())["phase"] == "finished"


EVERY_STEP = "callbacks.checkpoint.every_minutes=1e-9"
AT_EPOCHS = "callbacks.checkpoint.every_minutes=null"
WORKERS = "data.num_workers=2"


@pytest.mark.parametrize(
    ("hook", "count", "overrides"),
    [
        pytest.param("on_train_batch_end", 3, [EVERY_STEP], id="inside an accumulation window"),
        pytest.param("on_train_batch_end", 17, [EVERY_STEP, WORKERS], id="inside a window, with workers"),
        pytest.param("on_train_batch_start", 22, [EVERY_STEP], id="between two steps"),
        pytest.param("on_train_batch_end", 31, [AT_EPOCHS], id="long after the last checkpoint"),
        pytest.param("on_train_batch_end", 30, [AT_EPOCHS, WORKERS], id="long after it, with workers"),
        pytest.param("on_validation_batch_end", 5, [EVERY_STEP], id="during validation"),
        pytest.param("on_train_epoch_start", 3, [EVERY_STEP], id="between two epochs"),
        pytest.param("on_train_batch_end", 2, [AT_EPOCHS], id="before there is a checkpoint"),
        pytest.param("on_test_batch_end", 1, [AT_EPOCHS], id="during the final test"),
    ],
)
def test_a_killed_run_ends_as_if_it_had_never_been_killed(
    hook, count, overrides, configure, whole_run, monkeypatch, tmp_path
):
    config = configure(*overrides)
    with monkeypatch.context() as patched:
        with_callback(patched, Kill(hook, count))
        ends_by(signal.SIGKILL, lambda: train(config, tmp_path))
    train(config, tmp_path)
    assert_same_run(tmp_path, whole_run)


def test_a_run_that_had_stopped_early_stays_stopped(configure, monkeypatch, tmp_path):
    # The rate is too low to learn anything, so that the second epoch is no better than the first.
    config = configure("optim.lr=1e-9", "callbacks.early_stopping.patience=1")
    train(config, tmp_path / "whole")
    with monkeypatch.context() as patched:
        with_callback(patched, Kill("on_test_batch_end", 1))
        ends_by(signal.SIGKILL, lambda: train(config, tmp_path / "run"))
    train(config, tmp_path / "run")
    assert json.loads((tmp_path / "run/environment.json").read_text())["stopped"] == "early_stopping"
    assert [epoch["epoch"] for epoch in history_of(tmp_path / "run")] == [1, 2]
    assert_same_run(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("count", [1, 8, 9])
def test_a_run_killed_while_it_writes_a_checkpoint_goes_on_from_the_one_before(
    count, configure, whole_run, monkeypatch, tmp_path
):
    config = configure(EVERY_STEP)
    with monkeypatch.context() as patched:
        kill_while_writing(patched, count)
        ends_by(signal.SIGKILL, lambda: train(config, tmp_path))
    assert [*tmp_path.rglob(".*.part")]
    train(config, tmp_path)
    assert_same_run(tmp_path, whole_run)


def test_a_run_that_is_killed_again_and_again_gets_there(configure, whole_run, monkeypatch, tmp_path):
    config = configure(EVERY_STEP)
    for _ in range(4):
        with monkeypatch.context() as patched:
            with_callback(patched, Kill("on_train_batch_end", 9))
            ends_by(signal.SIGKILL, lambda: train(config, tmp_path))
    train(config, tmp_path)
    assert_same_run(tmp_path, whole_run)


class Signal(Callback):
    """Sends this process a signal at the n-th time that a hook is called."""

    def __init__(self, hook, count, number):
        self.left, self.number = count, number
        setattr(self, hook, self.send)

    def send(self, *_, **__):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize(
    ("number", "hook", "count", "step"),
    [
        (signal.SIGINT, "on_train_batch_start", 16, 8),
        (signal.SIGTERM, "on_train_batch_start", 3, 2),
        (signal.SIGUSR1, "on_train_batch_start", 12, 6),
        (signal.SIGTERM, "on_validation_batch_start", 3, 6),
    ],
)
def test_a_signal_saves_first(number, hook, count, step, configure, whole_run, monkeypatch, tmp_path, caplog):
    config = configure(AT_EPOCHS)
    handlers = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    with monkeypatch.context() as patched:
        with_callback(patched, Signal(hook, count, number))
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path)
    signal.signal(signal.SIGINT, handlers[signal.SIGINT])  # Lightning leaves Ctrl-C turned off
    assert {each: signal.getsignal(each) for each in handlers} == handlers
    assert [path.name[-16:] for path in tmp_path.glob("checkpoints/step_*")] == [f"step{step:07d}.ckpt"]
    assert f"{signal.Signals(number).name}: the run stops after step {step}, which is saved." in caplog.text
    assert f"Interrupted. Go on with: python train.py resume={tmp_path}" in caplog.text
    assert json.loads((tmp_path / "status.json").read_text())["phase"] == "interrupted"
    train(config, tmp_path)
    assert_same_run(tmp_path, whole_run)


class Exhaust(Callback):
    """From the n-th forward pass on, more than so many documents at once do not fit into memory."""

    def __init__(self, after, limit):
        self.after, self.limit = after, limit

    def on_fit_start(self, trainer, pl_module):
        forward = type(pl_module.net).forward.__get__(pl_module.net)

        def limited(input_ids, **inputs):
            self.after -= 1
            if self.after < 0 and len(input_ids) > self.limit:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate more than there is.")
            return forward(input_ids=input_ids, **inputs)

        pl_module.net.forward = limited


# Dropout would draw other numbers for other micro-batches.
NO_DROPOUT = ("model.dropout=0", "model.head_dropout=0")


@pytest.fixture(scope="module")
def run_without_dropout(compose, tiny, prepared, tmp_path_factory):
    run = tmp_path_factory.mktemp("run_without_dropout")
    train(compose(*tiny, *prepared, *RECIPE, *NO_DROPOUT), run)
    return run


@pytest.mark.parametrize(
    ("after", "limit"),
    [
        pytest.param(0, 2, id="at once"),
        pytest.param(5, 1, id="inside an accumulation window, twice"),
        pytest.param(13, 2, id="during validation"),
        pytest.param(17, 2, id="at the first step of the second epoch"),
        pytest.param(21, 2, id="within the second epoch"),
    ],
)
def test_when_memory_runs_out_the_run_goes_on_in_smaller_pieces(
    after, limit, configure, run_without_dropout, monkeypatch, tmp_path, caplog
):
    with_callback(monkeypatch, Exhaust(after, limit))
    train(configure(AT_EPOCHS, *NO_DROPOUT), tmp_path / "run")
    ours, theirs = (read_checkpoint(run) for run in (tmp_path / "run", run_without_dropout))
    assert ours["global_step"] == theirs["global_step"] == 24
    for name, weight in theirs["state_dict"].items():
        assert torch.allclose(ours["state_dict"][name], weight, atol=1e-5), name
    losses = [[epoch["val_loss"] for epoch in history_of(run)] for run in (tmp_path / "run", run_without_dropout)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert (
        "Memory ran out with 4 documents per forward pass: going on with 2, from the last finished step." in caplog.text
    )
    environment = json.loads((tmp_path / "run/environment.json").read_text())
    assert environment["micro_batch_size"] == limit
    assert any("The effective batch stays 8." in note for note in environment["notes"])


def test_not_even_one_document_fits(configure, monkeypatch, tmp_path):
    with_callback(monkeypatch, Exhaust(0, 0))
    with pytest.raises(TrainingError, match=r"with a single document per forward pass\. To try: a smaller data\.max_"):
        train(configure(), tmp_path)
    assert json.loads((tmp_path / "status.json").read_text())["phase"] == "failed"


def test_a_full_disk_stops_the_run_and_leaves_the_last_good_checkpoint(configure, whole_run, monkeypatch, tmp_path):
    config, save, calls = configure(EVERY_STEP), torch.save, []

    def until_full(checkpoint, stream):
        calls.append(1)
        if len(calls) > 4:
            stream.write(b"as much as there was room for")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(checkpoint, stream)

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", until_full)
        with pytest.raises(TrainingError, match=r"The disk is full: step_\d{8}_\d{6}_step0000005\.ckpt could not be"):
            train(config, tmp_path)
    assert [path.name[-16:] for path in (tmp_path / "checkpoints").iterdir()] == ["step0000004.ckpt"]
    assert read_checkpoint(tmp_path, next((tmp_path / "checkpoints").iterdir()).name)["global_step"] == 4
    assert json.loads((tmp_path / "status.json").read_text())["phase"] == "failed"
    train(config, tmp_path)
    assert_same_run(tmp_path, whole_run)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB; mounting one needs rights that not everybody has."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no rights to mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_really_fills_up(configure, small_disk):
    config = configure(EVERY_STEP, "logger=csv", "callbacks.checkpoint.save_top_k=4")
    with pytest.raises(TrainingError, match=r"The disk is full: .* MB free\)\. What was saved before is whole"):
        train(config, small_disk / "run")
    notes = json.loads((small_disk / "run/environment.json").read_text())["notes"]
    assert any(note.startswith("The disk may be too small: 7 checkpoints and the model take about") for note in notes)
    checkpoints = [*(small_disk / "run/checkpoints").glob("*.ckpt")]
    assert checkpoints
    for path in checkpoints:
        torch.load(path, weights_only=True)


def test_one_seed_gives_one_metrics_file(configure, whole_run, tmp_path):
    train(configure(), tmp_path / "again")
    train(configure("seed=43"), tmp_path / "other")
    assert (tmp_path / "again/metrics.csv").read_text() == (whole_run / "metrics.csv").read_text()
    assert (tmp_path / "other/metrics.csv").read_text() != (whole_run / "metrics.csv").read_text()


def test_a_run_is_not_resumed_with_other_data(configure, make_files, compose, tiny, monkeypatch, tmp_path):
    manifest = make_files(tmp_path / "files", per_class=10)
    config = compose(*tiny, *RECIPE, f"data.manifest={manifest}", f"data.cache_dir={tmp_path / 'cache'}")
    with monkeypatch.context() as patched:
        with_callback(patched, Signal("on_train_batch_start", 4, signal.SIGTERM))
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "run")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    (tmp_path / "files/000_r.txt").write_text("Something else entirely.")
    with pytest.raises(DataError, match=r"cannot be resumed: the documents, their labels or their parts are no longer"):
        train(config, tmp_path / "run")


def test_two_processes_do_not_write_one_folder(configure, tmp_path):
    from filelock import FileLock

    with FileLock(tmp_path / ".lock"), pytest.raises(ConfigError, match=r"is still running: `doctune status"):
        train(configure(), tmp_path)


def test_more_epochs_may_be_asked_for(configure, tmp_path):
    train(configure("trainer.max_epochs=1"), tmp_path)
    train(configure("trainer.max_epochs=2"), tmp_path)
    assert [epoch["epoch"] for epoch in history_of(tmp_path)] == [1, 2]
    assert read_checkpoint(tmp_path)["global_step"] == 12


def test_resume_on_the_command_line(tmp_path, tiny, prepared):
    def train_py(*overrides):
        return subprocess.Popen(
            [sys.executable, str(ROOT / "train.py"), *overrides], cwd=tmp_path, stdout=subprocess.PIPE, text=True
        )

    overrides = [*tiny, *prepared, *RECIPE, "trainer.max_epochs=200", "callbacks.early_stopping.enabled=false"]
    process = train_py(*overrides, "callbacks.gap.stop=false", "hydra.run.dir='outputs/a run, 1=1'")
    while "Epoch 1/" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "SIGTERM: the run stops after step" in said
    assert "Go on with: python train.py resume='outputs/a run, 1=1'" in said
    status = json.loads((tmp_path / "outputs/a run, 1=1/status.json").read_text())
    assert status["phase"] == "interrupted"

    resumed = train_py("resume=auto", f"trainer.max_epochs={status['epoch'] + 1}")
    said, _ = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, said
    run = tmp_path / "outputs/a run, 1=1"
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == [run.name]
    assert json.loads((run / "status.json").read_text())["phase"] == "finished"
    assert len(history_of(run)) == status["epoch"] + 1
    assert f"max_epochs: {status['epoch'] + 1}" in (run / ".hydra/config.yaml").read_text()
    assert "SIGTERM: the run stops after" in (run / "train.log").read_text()
    assert "VERDICT" in (run / "train.log").read_text()
