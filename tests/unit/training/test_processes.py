"""The parent of several processes: it learns how each ended, says so, and leaves none behind."""

import logging
import os
import pickle
import signal
import threading
import time
from types import SimpleNamespace

import pytest

from doctune.errors import DataError, TrainingError
from doctune.training import processes
from doctune.training.processes import Outcome, OutOfMemory, work_together

TWO = SimpleNamespace(trainer=SimpleNamespace(devices=2))


def end(connection, kind, error=None, report=""):
    connection.send(Outcome(kind, time.monotonic(), error, report))


def note_and_end(rank, config, run, connection):
    (run / f"rank{rank.number}").write_text(f"{rank.count} at {rank.port}, process {os.getpid()}")
    connection.send(
        logging.makeLogRecord({"name": "doctune.test", "levelno": logging.INFO, "msg": f"I am {rank.number}"})
    )
    end(connection, "done")


def refuse_in_second(rank, config, run, connection):
    if rank.number == 1:
        end(connection, "failed", DataError("There is nothing to read."))
    else:
        wait_forever(run)


def break_in_second(rank, config, run, connection):
    if rank.number == 1:
        end(connection, "failed", report="Traceback …\nValueError: no such thing")
    else:
        wait_forever(run)


def die_in_second(rank, config, run, connection):
    if rank.number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    wait_forever(run)


def leave_in_second(rank, config, run, connection):
    if rank.number == 1:
        os._exit(3)
    wait_forever(run)


def fill_memory_in_second(rank, config, run, connection):
    end(connection, "out of memory" if rank.number == 1 else "done")


def lose_the_other(rank, config, run, connection):
    """Both fail; the first one because of the second."""
    time.sleep(0.3 * (rank.number == 0))
    end(connection, "failed", report=f"RuntimeError: the reason of {rank.number}")


def wait_for_signal(rank, config, run, connection):
    def stop(number, _):
        end(connection, "interrupted")
        os._exit(1)

    signal.signal(signal.SIGTERM, stop)
    wait_forever(run)


def wait_forever(run):
    (run / f"{os.getpid()}.waits").touch()
    time.sleep(60)


@pytest.fixture(autouse=True)
def _short_grace(monkeypatch):
    monkeypatch.setattr(processes, "_GRACE_S", 0.5)


def assert_all_are_gone(folder):
    for path in folder.glob("*.waits"):
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.stem), 0)


def test_each_process_knows_who_it_is_and_its_log_is_the_parents(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        work_together(note_and_end, TWO, tmp_path)
    said = [(tmp_path / f"rank{number}").read_text().rpartition(" ") for number in (0, 1)]
    assert said[0][0] == said[1][0]
    assert {int(pid) for _, _, pid in said}.isdisjoint({os.getpid()})
    assert sorted(caplog.messages) == ["I am 0", "I am 1"]


def test_what_a_user_can_mend_is_said_as_it_is_and_the_others_are_ended(tmp_path):
    with pytest.raises(DataError, match=r"^There is nothing to read\.$"):
        work_together(refuse_in_second, TWO, tmp_path)
    assert_all_are_gone(tmp_path)


@pytest.mark.parametrize(
    ("work", "reason"),
    [
        (break_in_second, "ValueError: no such thing"),
        (die_in_second, "It was ended by SIGKILL; the system does so when memory runs out."),
        (leave_in_second, "It ended without a word, with exit status 3."),
    ],
)
def test_a_process_that_fails_ends_the_run_and_the_others(work, reason, tmp_path):
    with pytest.raises(TrainingError) as raised:
        work_together(work, TWO, tmp_path)
    assert str(raised.value) == (
        f"Process 2 of 2 failed: {reason} The others were ended. What was saved before is whole: go on with resume=RUN."
    )
    assert_all_are_gone(tmp_path)


def test_the_traceback_is_in_the_log(tmp_path, caplog):
    with pytest.raises(TrainingError):
        work_together(break_in_second, TWO, tmp_path)
    assert caplog.messages == ["Process 2 of 2 failed.\nTraceback …\nValueError: no such thing"]


def test_of_two_that_fail_the_first_one_is_the_reason(tmp_path):
    with pytest.raises(TrainingError, match="Process 2 of 2 failed: RuntimeError: the reason of 1"):
        work_together(lose_the_other, TWO, tmp_path)


def test_memory_that_runs_out_in_one_is_told_apart(tmp_path):
    with pytest.raises(OutOfMemory):
        work_together(fill_memory_in_second, TWO, tmp_path)


def test_a_signal_is_passed_on_to_the_first_process_and_ends_all(tmp_path):
    def interrupt():
        while len([*tmp_path.glob("*.waits")]) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        work_together(wait_for_signal, TWO, tmp_path)
    assert signal.getsignal(signal.SIGTERM) == before
    assert_all_are_gone(tmp_path)


def test_an_outcome_travels(tmp_path):
    outcome = Outcome("failed", 1.5, TrainingError("It diverged."))
    found = pickle.loads(pickle.dumps(outcome))
    assert (type(found.error), str(found.error), found.kind) == (TrainingError, "It diverged.", "failed")
