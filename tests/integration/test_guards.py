"""The guards in whole runs: what is said where, and what ends a run."""

import csv
import json
import random

import pytest

from doctune.errors import ConfigError, TrainingError
from doctune.training.run import train

WORDS = [f"word{number}" for number in range(200)]


@pytest.fixture(scope="module")
def random_labels(tmp_path_factory):
    """Texts whose labels mean nothing: they can be learnt by heart only."""
    folder = tmp_path_factory.mktemp("random")
    rng = random.Random(0)
    rows = [("path", "label")]
    for number in range(150):
        path = folder / f"{number}.txt"
        path.write_text(" ".join(rng.choices(WORDS, k=30)))
        rows.append((str(path), rng.choice(["red", "green", "blue"])))
    with (folder / "manifest.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return folder / "manifest.csv"


@pytest.fixture
def configure(compose, tiny, random_labels, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    common = (f"data.manifest={random_labels}", f"data.cache_dir={cache}", "trainer.log_every_n_steps=1")

    def make(*overrides):
        small = [each for each in tiny if not each.startswith(("model.dropout", "loss.", "data.augment"))]
        return compose(*small, *common, *overrides)

    return make


def read(run, name):
    return json.loads((run / name).read_text())


def test_the_overfitting_recipe_is_called_critical_in_the_run_where_it_happens(configure, tmp_path, caplog):
    config = configure("experiment=ifmos_overfit", "optim.lr=1e-2", "trainer.max_epochs=30", "data.max_documents=150")
    train(config, tmp_path)
    history, environment = read(tmp_path, "training_history.json"), read(tmp_path, "environment.json")
    assert environment["stopped"] == "gap"
    assert len(history) < 30
    assert [epoch["gap_status"] for epoch in history[-2:]] == ["critical", "critical"]
    alarm = next(alarm for alarm in environment["alarms"] if alarm["guard"] == "gap")
    assert alarm["message"] in environment["notes"]
    assert "It has grown in 2 checks in a row, so the run stops here." in alarm["message"]
    assert f"Overfitting: in epoch {alarm['epoch']} the validation loss is" in caplog.text
    assert alarm["message"] in read(tmp_path, "status.json")["warnings"]
    report = read(tmp_path, "report/report.json")
    assert alarm["message"] in report["notes"]
    onset = next(epoch["epoch"] for epoch in history if epoch["gap_status"] in ("moderate", "critical"))
    assert report["gap"]["onset_epoch"] == onset
    assert "Overfitting" in (tmp_path / "report/index.html").read_text()
    best = max(history, key=lambda epoch: epoch["val_f1_macro"])
    assert environment["best_epoch"] == best["epoch"]


def test_the_regularised_recipe_is_not(configure, tmp_path):
    train(configure("experiment=ifmos_regularized"), tmp_path)
    history = read(tmp_path, "training_history.json")
    assert {epoch["gap_status"] for epoch in history} <= {"excellent", "good"}
    assert read(tmp_path, "environment.json")["stopped"] == "early_stopping"


def test_a_gap_that_only_reports_does_not_stop(configure, tmp_path):
    config = configure("experiment=ifmos_overfit", "optim.lr=1e-2", "trainer.max_epochs=12", "callbacks.gap.stop=false")
    train(config, tmp_path)
    assert read(tmp_path, "environment.json")["stopped"] == "max_epochs"
    assert read(tmp_path, "training_history.json")[-1]["gap_status"] == "critical"


def test_labels_that_mean_nothing_are_no_better_than_the_majority(configure, tmp_path):
    train(configure("optim.lr=1e-6", "trainer.max_epochs=4"), tmp_path)
    guards = {alarm["guard"] for alarm in read(tmp_path, "environment.json")["alarms"]}
    assert {"no_learning", "underfitting"} <= guards


def test_a_loss_that_explodes_keeps_the_last_good_checkpoint(configure, monkeypatch, tmp_path):
    from lightning import Callback

    from doctune.training import build

    class Break(Callback):
        """Ruins the weights in the second epoch."""

        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                for parameter in pl_module.net.parameters():
                    parameter.data.mul_(float("nan"))

    stock = build.stock_callbacks
    monkeypatch.setattr(build, "stock_callbacks", lambda config: [*stock(config), Break()])
    train(configure("trainer.max_epochs=3"), tmp_path)
    environment = read(tmp_path, "environment.json")
    assert environment["stopped"] == "diverged"
    assert environment["best_epoch"] == 1
    assert any("The training loss became nan in epoch 2" in note for note in environment["notes"])
    assert len(read(tmp_path, "training_history.json")) == 1
    assert read(tmp_path, "report/report.json")["test"]["log_loss"] > 0


def test_without_a_good_checkpoint_the_run_fails(configure, tmp_path):
    with pytest.raises(TrainingError, match=r"The training loss (became|exploded)"):
        train(configure("optim.lr=1e30"), tmp_path)
    assert read(tmp_path, "status.json")["phase"] == "failed"
    assert not [*(tmp_path / "checkpoints").glob("*.ckpt")]


def test_nothing_to_learn_is_refused(configure, monkeypatch, tmp_path):
    from doctune.training import build

    monkeypatch.setattr(build, "freeze", lambda net, *_: net.requires_grad_(False))
    with pytest.raises(ConfigError, match=r"Nothing would learn: every weight is frozen"):
        train(configure(), tmp_path)
