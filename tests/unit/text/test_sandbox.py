"""One document per path, in order, whatever the files do to the processes that read them."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from doctune.errors import ConfigError
from doctune.text import sandbox
from doctune.text.extract import ExtractSettings, extract
from doctune.text.memory import resident_bytes
from doctune.text.sandbox import Limits, extract_files
from doctune.text.worker import HOOK_VARIABLE

HOOK = """
import ctypes, os, pathlib, signal, socket, sys, time

def before(path):
    name = os.path.basename(path)
    if log := os.environ.get("HOOK_LOG"):
        with open(log, "a") as file:
            file.write(f"{name} {os.getpid()}\\n")
    if "segfault" in name:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "exit" in name:
        os._exit(3)
    if "sleep" in name:
        time.sleep(1000)
    if "stuck" in name:
        ctypes.PyDLL(None).sleep(1000)  # holds the interpreter's lock, as a hung parser does
    if "greedy" in name:
        held = bytearray(64 * 2**30)
    if "growing" in name:
        held = []
        while True:
            held.append(bytearray(2**20))
    if "connect" in name:
        try:
            socket.create_connection(("127.0.0.1", 9))
        except PermissionError as error:
            pathlib.Path(path).write_text(str(error))
    if "print" in name:
        os.write(1, b"noise on stdout" * 1000)
        print("more noise")
"""


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A function: names -> files of these names in a folder whose readers misbehave as the names say."""
    (tmp_path / "misbehaviour.py").write_text(HOOK)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(HOOK_VARIABLE, "misbehaviour")

    def make(*names):
        folder = tmp_path / "files"
        folder.mkdir(exist_ok=True)
        for name in names:
            (folder / name).write_text(f"text of {name}")
        return [folder / name for name in names]

    return make


def good(number):
    return f"good{number:03}.txt"


def test_documents_equal_those_read_in_this_process_and_keep_their_order(files):
    paths = files(*(good(number) for number in reversed(range(60))))
    assert list(extract_files(paths, workers=2)) == [extract(path) for path in paths]


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("segfault", "crashed", "the reader died with SIGSEGV"),
        ("exit", "crashed", "the reader ended with exit status 3"),
        ("sleep", "timeout", "not read after 1 s"),
        ("stuck", "timeout", "not read after 1 s"),
    ],
)
def test_a_bad_file_costs_itself_and_its_neighbours_are_read_once(files, name, status, reason):
    paths = files(*(good(number) for number in range(10)), f"{name}.txt", *(good(number) for number in range(10, 20)))
    documents = list(extract_files(paths, limits=Limits(timeout_s=1), workers=2))
    assert [document.path for document in documents] == [str(path) for path in paths]
    assert (documents[10].status, documents[10].reason, documents[10].text) == (status, reason, "")
    assert {document.status for place, document in enumerate(documents) if place != 10} == {"ok"}


@pytest.mark.parametrize("name", ["greedy.txt", "growing.txt"])
def test_a_file_that_eats_memory_is_out_of_memory(files, name):
    paths = files(good(1), name, good(2))
    documents = list(extract_files(paths, limits=Limits(memory_mb=256), workers=1))
    assert [document.status for document in documents] == ["ok", "out_of_memory", "ok"]
    assert documents[1].reason == "reading it needs more than 256 MB"


def test_the_parent_kills_a_worker_that_grows_where_the_system_sets_no_limit(files, monkeypatch):
    limited = 256 * 2**20
    monkeypatch.setattr(sandbox, "resident_bytes", lambda pid: limited + 1 if (resident_bytes(pid) or 0) > 2**27 else 0)
    documents = list(extract_files(files(good(1), "growing.txt"), limits=Limits(memory_mb=256), workers=1))
    assert [document.status for document in documents] == ["ok", "out_of_memory"]


def test_every_file_of_a_batch_can_be_bad(files):
    paths = files(*(f"segfault{number}.txt" for number in range(12)))
    assert [document.status for document in extract_files(paths, workers=2)] == ["crashed"] * 12


def test_a_crash_in_a_used_worker_is_tried_once_more_in_a_fresh_one(files, tmp_path, monkeypatch):
    monkeypatch.setenv("HOOK_LOG", str(tmp_path / "log"))
    list(extract_files(files(good(1), "segfault.txt", good(2)), workers=1))
    tries = [line.split()[0] for line in (tmp_path / "log").read_text().splitlines()]
    assert sorted(tries) == [good(1), good(2), "segfault.txt", "segfault.txt"]


def test_workers_are_replaced_after_their_share_of_files(files, tmp_path, monkeypatch):
    monkeypatch.setenv("HOOK_LOG", str(tmp_path / "log"))
    list(extract_files(files(*(good(number) for number in range(40))), limits=Limits(files_per_worker=10), workers=1))
    pids = [line.split()[1] for line in (tmp_path / "log").read_text().splitlines()]
    assert len(set(pids)) >= 2
    assert max(pids.count(pid) for pid in pids) < 10 + sandbox.BATCH_FILES


def test_noise_on_stdout_does_not_disturb_the_answers(files):
    assert [document.text for document in extract_files(files("print.txt", good(1)), workers=1)] == [
        "text of print.txt",
        f"text of {good(1)}",
    ]


def test_a_reader_may_not_open_connections(files):
    (document,) = extract_files(files("connect.txt"), workers=1)
    assert document.text == "documents may not cause socket.getaddrinfo"


def test_unreadable_paths_are_documents_too(tmp_path):
    documents = list(extract_files([tmp_path / "missing", tmp_path], workers=1))
    assert [document.status for document in documents] == ["unreadable", "unreadable"]


def test_no_paths_start_no_worker(monkeypatch):
    monkeypatch.setattr(sandbox, "_Worker", None)
    assert list(extract_files([])) == []


def test_paths_are_taken_only_as_far_as_needed(files):
    (path,) = files(good(1))
    taken = []

    def endless():
        while True:
            taken.append(path)
            yield path

    documents = extract_files(endless(), workers=1)
    for _ in range(100):
        next(documents)
    documents.close()
    assert len(taken) <= 100 + sandbox.WINDOW_PER_WORKER


def test_closing_the_iterator_ends_the_workers(files, tmp_path, monkeypatch):
    monkeypatch.setenv("HOOK_LOG", str(tmp_path / "log"))
    documents = extract_files(files(good(1), "sleep.txt"), workers=1)
    next(documents)
    wait_until(lambda: "sleep" in (tmp_path / "log").read_text())
    documents.close()
    assert not any(is_alive(pid) for pid in logged_pids(tmp_path / "log"))


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_its_parent(files, tmp_path, monkeypatch, ending):
    log = tmp_path / "log"
    monkeypatch.setenv("HOOK_LOG", str(log))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            """
            import sys
            from doctune.text.sandbox import extract_files
            # No main guard: a worker that imported this file again would start workers of its own.
            print([document.status for document in extract_files(sys.argv[1:], workers=1)])
            """
        )
    )
    paths = [str(path) for path in files(good(1), "sleep.txt")]
    parent = subprocess.Popen([sys.executable, str(program), *paths], stderr=subprocess.DEVNULL, start_new_session=True)
    wait_until(lambda: log.exists() and "sleep" in log.read_text())
    parent.send_signal(ending)
    parent.wait(timeout=20)
    wait_until(lambda: not any(is_alive(pid) for pid in logged_pids(log)))
    assert len(set(logged_pids(log))) == 1


def test_a_worker_that_cannot_start_is_an_error_with_its_last_words(monkeypatch, tmp_path):
    monkeypatch.setenv(HOOK_VARIABLE, "there_is_no_such_module")
    with pytest.raises(RuntimeError, match="the extraction worker did not start"):
        list(extract_files([tmp_path / "x"], workers=1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Limits(timeout_s=0), "timeout_s is 0; use a number of seconds above 0."),
        (lambda: Limits(memory_mb=10), "memory_mb is 10; the PDF library alone needs 256."),
        (lambda: Limits(files_per_worker=0), "files_per_worker is 0; use a number from 1."),
        (lambda: extract_files([], workers=0), "workers is 0; use a number from 1, or None for all cores."),
    ],
)
def test_limits_that_make_no_sense_are_refused(call, message):
    with pytest.raises(ConfigError) as caught:
        call()
    assert str(caught.value) == message


def test_settings_reach_the_worker(files):
    (document,) = extract_files(files("mail.txt"), ExtractSettings(max_chars=4), workers=1)
    assert document.text == "text"


def logged_pids(log: Path):
    return [int(line.split()[1]) for line in log.read_text().splitlines()]


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(is_true, timeout_s=20):
    end = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def test_the_parent_of_these_tests_is_linux():
    assert resident_bytes(os.getpid()) > 2**20


def test_a_missing_library_ends_the_run_and_is_no_fault_of_the_files(tmp_path, monkeypatch):
    (tmp_path / "striprtf.py").write_text("raise ModuleNotFoundError(\"No module named 'striprtf'\", name='striprtf')")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "hook_of_import_order.py").write_text(
        f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\ndef before(path): pass"
    )
    monkeypatch.setenv(HOOK_VARIABLE, "hook_of_import_order")
    for number in range(3):
        (tmp_path / f"{number}.rtf").write_bytes(rb"{\rtf1 words}")
    with pytest.raises(ConfigError) as caught:
        list(extract_files(sorted(tmp_path.glob("*.rtf")), workers=1))
    assert str(caught.value) == (
        "The package striprtf, which reads this file format, cannot be imported (No module named 'striprtf'): "
        "pip install striprtf."
    )
