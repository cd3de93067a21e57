"""Runs that MLflow and Weights & Biases are told of: what they then know, and what nobody else gets to know."""

import json
import logging
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import wandb
from lightning import Callback
from mlflow import MlflowClient
from wandb.proto.wandb_internal_pb2 import Record

from doctune.errors import TrainingError
from doctune.training import build
from doctune.training.run import train

ROOT = Path(__file__).parents[2]
# 48 training documents: 6 steps an epoch.
RECIPE = ("optim.lr=4e-3", "trainer.max_epochs=2", "trainer.effective_batch_size=8", "trainer.log_every_n_steps=1")


@pytest.fixture(scope="module")
def prepared(manifest_of_files, tmp_path_factory):
    return (f"data.manifest={manifest_of_files}", f"data.cache_dir={tmp_path_factory.mktemp('cache')}")


@pytest.fixture
def configure(compose, tiny, prepared):
    return lambda *overrides: compose(*tiny, *prepared, *RECIPE, *overrides)


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    """In a folder of its own, with nobody's settings; what trackers hold open is closed."""
    names = [name for name in os.environ if name.startswith(("MLFLOW_", "WANDB_"))]
    for name in (*names, "MLFLOW_TRACKING_URI"):  # which MLflow sets
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    yield
    end_wandb()


def end_wandb():
    """As when its process ends: finish() may return while the service still writes, teardown() waits for its exit."""
    wandb.finish()
    wandb.teardown()


class Stop(Callback):
    """Interrupts the run at its n-th batch, as SIGTERM does."""

    def __init__(self, count):
        self.left = count

    def on_train_batch_start(self, *_):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)


def interrupted(config, run, monkeypatch, count):
    stock = build.stock_callbacks
    with monkeypatch.context() as patched:
        patched.setattr(build, "stock_callbacks", lambda config: [*stock(config), Stop(count)])
        with pytest.raises(KeyboardInterrupt):
            train(config, run)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Lightning leaves Ctrl-C turned off


def history_of(run, metric="val_f1_macro"):
    return [epoch[metric] for epoch in json.loads((run / "training_history.json").read_text())]


def the_run(store):
    client = MlflowClient(store)
    (experiment,) = [each for each in client.search_experiments() if each.name == "doctune"]
    (found,) = client.search_runs([experiment.experiment_id])
    return client, found


def values_by_step(client, found, metric):
    return {each.step: each.value for each in client.get_metric_history(found.info.run_id, metric)}


def offline_records(run):
    """What Weights & Biases has put on the disk, one list per start: a log of LevelDB's format that holds messages."""
    return {path.parent.name: [*_records(path)] for path in sorted(run.glob("wandb/offline-run-*/run-*.wandb"))}


def _records(path):
    stream, block, whole = path.read_bytes(), 32768, b""
    place = 7
    while place + 7 <= len(stream):
        if block - place % block < 7:
            place += block - place % block
            continue
        _, length, kind = struct.unpack("<IHB", stream[place : place + 7])
        whole += stream[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield Record.FromString(whole)
            whole = b""


def logged(records, metric):
    """The values of a metric by the step of the Trainer."""
    rows = [{item.key or item.nested_key[0]: item.value_json for item in each.history.item} for each in records]
    return {int(row["trainer/global_step"]): float(row[metric]) for row in rows if metric in row}


def test_mlflow_knows_the_run_without_a_server(configure, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        train(configure("logger=mlflow"), tmp_path / "outputs/day/time")
    client, found = the_run(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert found.info.run_name == "outputs/day/time"
    assert found.info.status == "FINISHED"
    values = values_by_step(client, found, "val/f1_macro")
    assert [values[step] for step in (5, 11)] == history_of(tmp_path / "outputs/day/time")
    report = json.loads((tmp_path / "outputs/day/time/report/report.json").read_text())
    assert found.data.metrics["test/f1_macro"] == pytest.approx(report["test"]["f1_macro"], abs=1e-6)
    assert found.data.params["optim.lr"] == "0.004"
    assert found.data.params["trainer.effective_batch_size"] == "8"
    assert found.data.params["optimisation/total_steps"] == "12"
    assert json.loads((tmp_path / "outputs/day/time/trackers.json").read_text()) == {"mlflow": found.info.run_id}
    assert not [record for record in caplog.records if record.name.startswith(("mlflow", "alembic"))]
    assert "Creating it" not in caplog.text


def test_a_resumed_run_goes_on_in_its_run_of_mlflow(configure, monkeypatch, tmp_path):
    config = configure("logger=mlflow", "logger.mlflow_uri=sqlite:///mine.db")
    interrupted(config, tmp_path / "run", monkeypatch, count=9)
    client, found = the_run("sqlite:///mine.db")
    assert [*values_by_step(client, found, "val/f1_macro")] == [5]
    train(configure("logger=mlflow", "logger.mlflow_uri=sqlite:///mine.db", "trainer.max_epochs=3"), tmp_path / "run")
    client, resumed = the_run("sqlite:///mine.db")
    assert resumed.info.run_id == found.info.run_id
    assert resumed.info.status == "FINISHED"
    values = values_by_step(client, found, "val/f1_macro")
    assert [values[step] for step in (5, 11, 17)] == history_of(tmp_path / "run")
    assert resumed.data.params["trainer.max_epochs"] == "2"


def test_where_mlflow_no_longer_has_the_run_another_begins(configure, monkeypatch, tmp_path):
    interrupted(configure("logger=mlflow"), tmp_path / "run", monkeypatch, count=3)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")  # as in another process
    train(configure("logger=mlflow"), tmp_path / "run")
    _, found = the_run(f"sqlite:///{tmp_path / 'elsewhere/mlflow.db'}")
    assert json.loads((tmp_path / "run/trackers.json").read_text()) == {"mlflow": found.info.run_id}


def test_a_store_that_mlflow_cannot_use_is_named(configure, tmp_path):
    with pytest.raises(TrainingError, match=r"^logger=mlflow: the store nothing://here cannot be used: "):
        train(configure("logger=mlflow", "logger.mlflow_uri=nothing://here"), tmp_path / "run")


def test_wandb_is_told_offline_in_the_run_folder(configure, tmp_path):
    train(configure("logger=wandb"), tmp_path / "run")
    end_wandb()
    (records,) = offline_records(tmp_path / "run").values()
    values = logged(records, "val/f1_macro")
    assert [values[step] for step in (5, 11)] == history_of(tmp_path / "run")
    settings = {item.key: item.value_json for each in records for item in each.config.update}
    settings |= {item.key: item.value_json for each in records for item in each.run.config.update}
    assert settings["optim.lr"] == "0.004"
    assert json.loads(settings["optimisation"])["total_steps"] == 12
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


def test_a_resumed_run_keeps_its_id_in_wandb(configure, monkeypatch, tmp_path):
    config = configure("logger=wandb")
    interrupted(config, tmp_path / "run", monkeypatch, count=9)
    end_wandb()
    train(config, tmp_path / "run")
    end_wandb()
    tracked_as = json.loads((tmp_path / "run/trackers.json").read_text())["wandb"]
    begun, resumed = offline_records(tmp_path / "run").values()
    assert {each.run.run_id for each in (*begun, *resumed) if each.run.run_id} == {tracked_as}
    values = logged(begun, "val/f1_macro") | logged(resumed, "val/f1_macro")
    assert [values[step] for step in (5, 11)] == history_of(tmp_path / "run")


def test_each_job_of_a_sweep_is_a_run_of_its_own_in_wandb(configure, tmp_path):
    train(configure("logger=wandb", "trainer.max_epochs=1"), tmp_path / "0")
    train(configure("logger=wandb", "trainer.max_epochs=1", "seed=1"), tmp_path / "1")
    end_wandb()
    for job in ("0", "1"):
        (records,) = offline_records(tmp_path / job).values()
        assert [*logged(records, "val/f1_macro").values()][:1] == history_of(tmp_path / job)


def test_wandb_online_without_a_login_does_not_ask_for_one(configure, monkeypatch, tmp_path):
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    with pytest.raises(TrainingError, match=r"^logger=wandb: logger\.wandb_mode=online does not work here: No API key"):
        train(configure("logger=wandb", "logger.wandb_mode=online"), tmp_path / "run")


def test_wandb_can_be_told_nothing(configure, tmp_path):
    train(configure("logger=wandb", "logger.wandb_mode=disabled"), tmp_path / "run")
    assert not (tmp_path / "run/wandb").exists()


@pytest.fixture
def proxy(monkeypatch):
    """Stands between this machine and all others, and notes who would have been called."""
    called = []

    def listen(listening):
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                called.append(connection.recv(200).split(b"\r\n")[0])

    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, address)
            monkeypatch.setenv(name.lower(), address)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        threading.Thread(target=listen, args=(listening,), daemon=True).start()
        yield called


def test_nobody_is_called_and_nothing_is_asked(proxy, tiny, prepared, tmp_path):
    overrides = [*tiny, *prepared, *RECIPE, "logger=mlflow", "logger.wandb=true", "hydra.run.dir=run"]
    made = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *overrides],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    assert proxy == []
    assert "wandb" not in made.stderr + made.stdout.replace("logger.wandb", "")
    assert "mlflow" not in made.stderr
    assert len(offline_records(tmp_path / "run")) == 1
    _, found = the_run(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert found.info.status == "FINISHED"
