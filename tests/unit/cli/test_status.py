"""What `doctune status` says of runs in every condition."""

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from doctune.cli import status as command
from doctune.cli.main import main
from doctune.reports.status import duration_words, range_words, rate_words

TRAINING = {
    "phase": "training",
    "epoch": 2,
    "epochs": 8,
    "step": 310,
    "steps": 1592,
    "train_loss": 0.5312,
    "monitor": "val/f1_macro",
    "value": 0.4321,
    "gap_status": "good",
    "rate": 14.2,
    "eta_low_s": 72.0,
    "eta_high_s": 89.0,
    "may_stop_early": False,
}
GONE = {"pid": 2**22 + 1}  # above the largest number that Linux gives a process


def ago(seconds):
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


@pytest.fixture
def make(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(started_s_ago=192, updated_s_ago=0, **fields):
        run = tmp_path / "outputs/2026-01-31/12-00-00"
        run.mkdir(parents=True, exist_ok=True)
        here = {"pid": os.getpid(), "host": platform.node()}
        times = {"started_at": ago(started_s_ago), "updated_at": ago(updated_s_ago)}
        (run / "status.json").write_text(json.dumps(TRAINING | here | times | fields))
        return run

    return write


@pytest.fixture
def said(capsys):
    def call(*arguments):
        code = main(["status", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out or captured.err

    return call


RUN = "outputs/2026-01-31/12-00-00"


def test_a_run_that_trains(make, said):
    make()
    assert said() == (
        0,
        f"{RUN}: training, started 3 min 10 s ago\n"
        "Epoch 2 of 8, step 310 of 1,592 (19 %), 14 steps/s\n"
        "Loss 0.5312, val/f1_macro 0.4321, gap good\n"
        "Time left: 1 min 10 s to 1 min 30 s\n",
    )


def test_early_stopping_and_warnings_are_said(make, said):
    make(may_stop_early=True, warnings=["The gap is critical.", "16-mixed needs a CUDA device: 32 is used."])
    _, out = said()
    assert out.splitlines()[3:] == [
        "Time left: 1 min 10 s to 1 min 30 s, sooner if early stopping ends it",
        "Warning: The gap is critical.",
        "Warning: 16-mixed needs a CUDA device: 32 is used.",
    ]


def test_the_time_since_the_last_heartbeat_is_taken_off(make, said):
    make(updated_s_ago=30, eta_low_s=90.0, eta_high_s=149.0)
    assert said()[1].splitlines()[3] == "Time left: 50 s to 2 min"


def test_a_run_that_has_just_begun(make, said):
    unknown = dict.fromkeys(("epoch", "epochs", "step", "steps", "train_loss", "monitor", "value", "gap_status"))
    unknown |= dict.fromkeys(("rate", "eta_low_s", "eta_high_s"))
    make(**unknown, phase="extracting", started_s_ago=4)
    assert said() == (0, f"{RUN}: extracting, started 4 s ago\n")
    make(**unknown, started_s_ago=9)
    assert said() == (
        0,
        f"{RUN}: training, started 9 s ago\nTime left: not known before the first batches have been measured\n",
    )


def finish(run, summary="doctune report: x\n\nVERDICT    Better than\n           the baseline.\n\nSCORES\n"):
    (run / "report").mkdir()
    (run / "report/summary.txt").write_text(summary)


def test_a_finished_run_points_at_its_report(make, said):
    finish(make(phase="finished", started_s_ago=252, updated_s_ago=60, eta_low_s=None, eta_high_s=None))
    assert said(RUN) == (
        0,
        f"{RUN}: finished after 3 min 10 s, 1 min ago\n"
        "Epoch 2 of 8, step 310 of 1,592 (19 %)\n"
        "Loss 0.5312, val/f1_macro 0.4321, gap good\n"
        "Verdict: Better than the baseline.\n"
        f"Report: {RUN}/report/summary.txt\n",
    )


def test_the_model_folder_of_a_run_serves_too(make, said):
    run = make(phase="finished")
    finish(run, "one line only\n")
    (run / "model").mkdir()
    code, out = said(run / "model")
    assert code == 0
    assert "Verdict: one line only" in out


def test_a_finished_run_without_a_report(make, said):
    make(phase="finished")
    assert said()[1].splitlines()[-1] == f"It wrote no report: {RUN}/report/summary.txt is missing."


def test_a_run_whose_process_is_gone(make, said):
    run = make(updated_s_ago=420, **GONE)
    code, out = said()
    assert code == 1
    assert out.splitlines() == [
        f"{RUN}: its process is gone; it stopped 7 min ago while training at epoch 2, step 310.",
        "Epoch 2 of 8, step 310 of 1,592 (19 %)",
        "Loss 0.5312, val/f1_macro 0.4321, gap good",
        "It saved no checkpoint, so there is nothing to go on from: start it again.",
    ]
    (run / "checkpoints").mkdir()
    (run / "checkpoints/last.ckpt").touch()
    assert said()[1].splitlines()[-1] == f"Go on with: python train.py resume={RUN}"


def test_a_process_on_another_machine_is_not_called_gone(make, said):
    make(host="node-7", **GONE)
    code, out = said()
    assert code == 0
    assert out.startswith(f"{RUN}: training on node-7, started 3 min 10 s ago\nEpoch 2 of 8")


def test_silence_is_said(make, said):
    make(updated_s_ago=420)
    silent = "No sign of life for 7 min: it may hang, or its machine may be asleep or very busy."
    assert said()[1].splitlines()[-1] == silent
    make(updated_s_ago=420, phase="extracting")
    assert silent not in said()[1]


def test_a_step_that_takes_minutes_is_no_silence(make, said):
    make(updated_s_ago=420, rate=1 / 120)
    out = said()[1]
    assert "No sign of life" not in out
    assert "(19 %), 2 min per step" in out


TRACEBACK = (
    "[2026-01-31 12:00:00,000][doctune][INFO] - Epoch 1.\n"
    "[2026-01-31 12:00:01,000][doctune][ERROR] - The run failed.\n"
    'Traceback (most recent call last):\n  File "x.py", line 1, in f\n    boom()\n'
    "RuntimeError: out of memory\n"
)


def test_a_failed_run_shows_the_exception_and_how_to_go_on(make, said):
    run = make(phase="failed")
    (run / "train.log").write_text(TRACEBACK)
    (run / "checkpoints").mkdir()
    (run / "checkpoints/last.ckpt").touch()
    code, out = said()
    assert code == 1
    assert out.splitlines()[0] == f"{RUN}: failed after 3 min 10 s, 0 s ago"
    assert out.splitlines()[3:] == [
        "RuntimeError: out of memory",
        f"Log: {RUN}/train.log",
        f"Go on with: python train.py resume={RUN}",
    ]


def test_a_refused_run_shows_the_sentence(make, said):
    run = make(phase="refused", epoch=None, step=None, train_loss=None, value=None, gap_status=None)
    sentence = "[2026-01-31 12:00:01,000][doctune][ERROR] - x.csv: there is no such manifest.\n  Make one with: scan\n"
    (run / "train.log").write_text(TRACEBACK + sentence)
    assert said() == (
        1,
        f"{RUN}: refused after 3 min 10 s, 0 s ago\n"
        "x.csv: there is no such manifest.\n"
        "  Make one with: scan\n"
        f"Log: {RUN}/train.log\n",
    )


def test_an_interrupted_run(make, said):
    run = make(phase="interrupted")
    (run / "train.log").write_text(TRACEBACK)
    code, out = said()
    assert code == 1
    assert out.splitlines()[3:] == [
        f"Log: {RUN}/train.log",
        "It saved no checkpoint, so there is nothing to go on from: start it again.",
    ]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{"phase": "trai', "cannot be read: Unterminated string starting at: line 1 column 11 (char 10)."),
        ("[]", "is damaged: it must be a JSON object with a phase."),
        ('{"epoch": 1}', "is damaged: it must be a JSON object with a phase."),
        (
            '{"phase": "training", "step": "x"}',
            "is damaged: step: invalid literal for int() with base 10: 'x'.",
        ),
        ('{"phase": "training", "updated_at": "now"}', "is damaged: updated_at: Invalid isoformat string: 'now'."),
    ],
)
def test_a_damaged_status(make, said, content, sentence):
    run = make()
    (run / "status.json").write_text(content)
    (run / "train.log").touch()
    assert said() == (2, f"doctune: {RUN}/status.json {sentence} What the run did is in {RUN}/train.log.\n")


def test_no_run_and_no_such_run_are_mistakes_of_the_caller(tmp_path, monkeypatch, said):
    monkeypatch.chdir(tmp_path)
    code, err = said()
    assert code == 2
    assert err.startswith(f"doctune: There is no run under outputs/ or multirun/ in {tmp_path}: ")
    assert said("nowhere") == (
        2,
        "doctune: nowhere: there is no such run folder. Runs are under outputs/ and multirun/.\n",
    )


def test_json_is_the_file_and_the_folder(make, said):
    run = make(phase="finished", of_a_later_version=[1])
    code, out = said("--json")
    assert code == 0
    assert json.loads(out) == {"run": RUN, **json.loads((run / "status.json").read_text())}
    assert json.loads(out)["of_a_later_version"] == [1]


def test_watch_in_a_pipe_prints_only_news_and_ends_with_the_run(make, said, monkeypatch):
    moments = iter(
        [
            {"step": 320},  # steps alone are no news
            {"step": 330, "value": 0.5},
            {"step": 340, "value": 0.5},
            {"phase": "failed"},
        ]
    )
    make()
    monkeypatch.setattr(command.time, "sleep", lambda _: make(**next(moments)))
    code, out = said("--watch")
    assert code == 1
    heads = [line for line in out.splitlines() if line.startswith(RUN)]
    assert [head.split()[1].rstrip(",") for head in heads] == ["training", "training", "failed"]
    assert "step 320" not in out
    assert "\r" not in out
    assert "\x1b" not in out


def test_watch_in_a_terminal_redraws_in_place(make, said, monkeypatch, capsys):
    moments = iter([{"step": 320}, {"phase": "failed", "step": 330}])
    make()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(command.time, "sleep", lambda _: make(**next(moments)))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    code, out = said("--watch")
    assert code == 1
    assert all(f"step {step}" in out for step in (310, 320, 330))
    assert "\x1b[1A" in out


def test_ctrl_c_ends_a_watch_with_130(make, said, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    make()
    monkeypatch.setattr(command.time, "sleep", interrupted)
    assert said("--watch")[0] == 130


def test_it_starts_without_torch_and_training(make):
    make()
    program = (
        "from doctune.cli.main import main\nimport sys\nmain(['status'])\n"
        "print([name for name in ('torch', 'lightning', 'hydra', 'numpy', 'pyarrow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (3.2, 7.1, "3 s to 8 s"),
        (0, 4.2, "less than 5 s"),
        (0, 0, "less than 1 s"),
        (44, 59.5, "44 s to 1 min"),
        (44, 61, "40 s to 1 min 10 s"),
        (70, 90, "1 min 10 s to 1 min 30 s"),
        (590, 610, "9 min to 11 min"),
        (4801, 5690, "1 h 20 min to 1 h 35 min"),
        (100_000, 190_000, "1 d 3 h to 2 d 5 h"),
        (60, 60, "1 min"),
    ],
)
def test_ranges_are_rounded_outwards(low, high, words):
    assert range_words(low, high) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "0 s"), (59.4, "59 s"), (59.8, "1 min"), (192, "3 min 10 s"), (3599, "1 h"), (7300, "2 h")],
)
def test_durations_in_words(seconds, words):
    assert duration_words(seconds) == words


@pytest.mark.parametrize(
    ("rate", "words"),
    [
        (1234.5, "1,234 steps/s"),
        (14.2, "14 steps/s"),
        (2.54, "2.5 steps/s"),
        (0.04, "25 s per step"),
        (0, "no step yet"),
    ],
)
def test_rates_in_words(rate, words):
    assert rate_words(rate) == words
