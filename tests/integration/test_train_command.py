"""`python train.py` as a person types it, mistakes included."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[2]


def train_py(folder: Path, *overrides: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *overrides],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )


def test_a_run_from_the_command_line(tmp_path, tiny, manifest_of_files):
    done = train_py(tmp_path, *tiny, f"data.manifest={manifest_of_files}", "trainer=smoke", "seed=0")
    assert done.returncode == 0, done.stderr
    (run,) = tmp_path.glob("outputs/*/*")
    assert re.fullmatch(r"outputs/\d{4}-\d\d-\d\d/\d\d-\d\d-\d\d", str(run.relative_to(tmp_path)))
    assert (run / ".hydra/overrides.yaml").read_text().splitlines()[-1] == "- seed=0"
    log = (run / "train.log").read_text()
    for line in (
        "Documents: 48 train, 6 val, 6 test; left out: none.",
        "VERDICT",
        f"Run folder: {run.relative_to(tmp_path)}",
    ):
        assert line in log
    assert f"doctune predict {run.relative_to(tmp_path)} " in done.stdout
    assert "\r" not in log
    assert json.loads((run / "environment.json").read_text())["seed"] == 0


def test_a_missing_manifest_shows_the_scan_that_makes_one(tmp_path):
    done = train_py(tmp_path)
    assert done.returncode == 2
    said = done.stdout + done.stderr
    assert "doctune scan" in said
    assert ".ifmos/training_data.csv" in said
    assert "Traceback" not in said
    (status,) = tmp_path.glob("outputs/*/*/status.json")
    assert json.loads(status.read_text())["phase"] == "refused"


def test_an_unreachable_hub_is_said_before_any_file_is_read(tmp_path, manifest_of_files):
    done = train_py(tmp_path, "model=distilbert", f"data.manifest={manifest_of_files}")
    assert done.returncode == 2
    assert "'distilbert/distilbert-base-uncased' is not on this machine" in done.stdout
    assert not (tmp_path / ".doctune/texts").exists()


@pytest.mark.parametrize(
    ("override", "sentences"),
    [
        (
            "model=bert",
            [
                "doctune: There is no model=bert. Did you mean model=roberta? Choices: distilbert, distilbert_mini, "
                "minilm, mistral, roberta.\n"
            ],
        ),
        ("optim=3", ["doctune: There is no optim=3. Choices: adamw.\n"]),
        ("sweep=null", ["doctune: There is no sweep=null. Choices: "]),
        (
            "optim.lrr=1",
            [
                "doctune: There is no key optim.lrr. Did you mean optim.lr? `python train.py --cfg job` shows every "
                "key with its value.\n"
            ],
        ),
        (
            "optim.lr=fast",
            [
                "doctune: optim.lr must be a number, and 'fast' was given. `python train.py --cfg job` shows every key "
                "with its value.\n"
            ],
        ),
        ("data.manifest=é.csv", ["Put such a value in quotes, inside those of the shell: \"key='value'\"."]),
        ("+optim.lrr=1", ["There is no key optim.lrr. Did you mean optim.lr? `--cfg job` lists all keys"]),
        ("-m optim.lrr=1,2", ["doctune: There is no key optim.lrr. Did you mean optim.lr?"]),
        ("trainer.effective_batch_size=10 trainer.micro_batch_size=4", ["is not a multiple of"]),
    ],
)
def test_a_mistyped_override_is_answered_without_a_traceback(tmp_path, override, sentences):
    done = train_py(tmp_path, *override.split())
    said = done.stdout + done.stderr
    assert done.returncode == 2
    assert all(sentence in said for sentence in sentences), said
    assert "Traceback" not in said


def test_a_run_that_breaks_ends_with_1_and_its_traceback_is_in_the_log(tmp_path, tiny, manifest_of_files):
    extra = "trainer.extra_callbacks=[{_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: no/such}]"
    done = train_py(tmp_path, *tiny, f"data.manifest={manifest_of_files}", extra)
    assert done.returncode == 1
    assert "doctune: the run failed: RuntimeError: Early stopping conditioned on metric `no/such`" in done.stderr
    (run,) = tmp_path.glob("outputs/*/*")
    assert "Traceback" in (run / "train.log").read_text()
    assert json.loads((run / "status.json").read_text())["phase"] == "failed"


def test_prepare_fills_the_store_and_its_split_can_be_used_again(tmp_path, tiny, manifest_of_files):
    command = [sys.executable, "-m", "doctune.cli.main", "prepare", f"data.manifest={manifest_of_files}"]
    done = subprocess.run([*command, "data.max_length=32"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Reading 60 new files." in done.stdout
    (prepared,) = tmp_path.glob("outputs/*/*")
    assert "Documents: 48 train, 6 val, 6 test; left out: none." in (prepared / "prepare.log").read_text()
    assert {path.name for path in (prepared / "data").iterdir()} == {
        "labels.json", "splits.parquet", "account.csv", "audit.json",
    }  # fmt: skip
    split = f"split.file={prepared / 'data/splits.parquet'}"
    done = train_py(tmp_path, *tiny, f"data.manifest={manifest_of_files}", "trainer=smoke", "split.seed=7", split)
    assert done.returncode == 0, done.stderr
    assert "Reading" not in done.stdout
    run = max(tmp_path.glob("outputs/*/*"))
    first, second = (pq.read_table(folder / "data/splits.parquet").to_pylist() for folder in (prepared, run))
    assert first == second


def test_help_lists_every_choice_with_its_sentence(tmp_path):
    done = train_py(tmp_path, "--help")
    assert done.returncode == 0
    assert "   * distilbert_mini  A small DistilBERT from random weights, no download" in done.stdout
    listed = set(re.findall(r"^   [* ] (\w+) ", done.stdout, re.MULTILINE))
    assert listed == {path.stem for path in (ROOT / "conf").glob("*/*.yaml")}
    assert "schema/" not in done.stdout


def test_a_loss_that_is_no_number_ends_the_run_with_a_sentence(tmp_path, tiny, manifest_of_files):
    done = train_py(tmp_path, *tiny, f"data.manifest={manifest_of_files}", "trainer=smoke", "optim.lr=1e30")
    assert done.returncode == 1
    assert "The training loss became" in done.stdout
    assert "To try: a lower optim.lr" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_an_interrupted_run_ends_with_130(tmp_path, tiny, manifest_of_files):
    command = [sys.executable, str(ROOT / "train.py"), *tiny, f"data.manifest={manifest_of_files}"]
    endless = ["trainer.max_epochs=100000", "callbacks.early_stopping.enabled=false", "logger=csv"]
    process = subprocess.Popen(
        [*command, *endless],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A job in the background of a script ignores SIGINT, and so would everything that it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while b"Epoch 1/" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"doctune: interrupted" in said
    (status,) = tmp_path.glob("outputs/*/*/status.json")
    assert json.loads(status.read_text())["phase"] == "interrupted"


@pytest.mark.parametrize("is_first", [True, False])
def test_a_sweep_makes_a_run_per_value(tmp_path, tiny, manifest_of_files, is_first):
    overrides = ["seed=1,2", *tiny, f"data.manifest={manifest_of_files}", "trainer=smoke", "logger=csv"]
    done = train_py(tmp_path, *(["-m", *overrides] if is_first else [*overrides, "-m"]))
    assert done.returncode == 0, done.stderr
    runs = sorted(tmp_path.glob("multirun/*/*/*/report/summary.txt"))
    assert [run.parts[-3] for run in runs] == ["0", "1"]


def test_show_the_configuration(tmp_path):
    done = train_py(tmp_path, "--cfg", "job")
    assert done.returncode == 0
    assert "max_length: 512" in done.stdout


def test_doctune_train_is_the_same(tmp_path):
    command = [sys.executable, "-m", "doctune.cli.main", "train", "--cfg", "job"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == train_py(tmp_path, "--cfg", "job").stdout
