"""Files -> documents in worker processes with a wall-clock and a memory limit per file.

The parent feeds each worker small batches and watches it. When a worker dies or is killed, the file it was reading is
the guilty one; the rest of its batch goes back to the queue and is read by the next worker. A file that seems to have
crashed a worker which had already read others is tried once more in a fresh one, so that no file pays for what an
earlier one left behind.

Workers are new interpreters (`worker.py`) that talk JSON over pipes. Nothing is forked, so the parent may hold threads
and torch, and the caller's main module is never imported again.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from doctune.documents import STATUSES, Document, Status
from doctune.errors import ConfigError
from doctune.text.memory import resident_bytes
from doctune.text.settings import ExtractSettings
from doctune.text.worker import read_frame, write_frame

BATCH_FILES = 8
# Files under way for each worker: enough to keep all busy behind one slow file, since documents are given in order.
WINDOW_PER_WORKER = 64
# Text that waits for an earlier, slower file; beyond it no new file is begun.
MAX_WAITING_CHARS = 128 * 1024 * 1024
START_TIMEOUT_S = 120.0
WATCH_PAUSE_S = 0.05
_BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from doctune.text.worker import main; main()"
_OUT_OF_MEMORY_WORDS = (b"memory allocation of", b"bad_alloc", b"MemoryError", b"out of memory", b"cannot allocate")


@dataclass(frozen=True)
class Limits:
    """What one file may cost.

    Attributes:
        timeout_s: wall-clock seconds for one file.
        memory_mb: megabytes of address space of a worker; where the system cannot limit that, of its resident memory.
        files_per_worker: a worker is replaced after so many files, and with it whatever libraries leaked.
    """

    timeout_s: float = 30.0
    memory_mb: int = 2048
    files_per_worker: int = 1000

    def __post_init__(self) -> None:
        if not 0 < self.timeout_s < float("inf"):
            raise ConfigError(f"timeout_s is {self.timeout_s}; use a number of seconds above 0.")
        if self.memory_mb < 256:
            raise ConfigError(f"memory_mb is {self.memory_mb}; the PDF library alone needs 256.")
        if self.files_per_worker < 1:
            raise ConfigError(f"files_per_worker is {self.files_per_worker}; use a number from 1.")


def extract_files(
    paths: Iterable[Path | str],
    settings: ExtractSettings | None = None,
    limits: Limits | None = None,
    workers: int | None = None,
) -> Iterator[Document]:
    """Extract many files, in the order of `paths`, exactly one document for each.

    Paths are taken and documents given as the caller asks for them; memory does not grow with their number. Closing
    the iterator, or an interrupt, ends all workers.

    Args:
        paths: files to read; what is not a readable regular file gives an `unreadable` document.
        settings: how much is read and how it is prepared.
        limits: what one file may cost.
        workers: processes at most; all cores if None. Fewer are started for few files.

    Raises:
        ConfigError: `workers` is below 1, or the library of a file's format cannot be imported.
        RuntimeError: the worker program itself does not start; the message has its last words.
    """
    num_workers = workers if workers is not None else available_cores()
    if num_workers < 1:
        raise ConfigError(f"workers is {workers}; use a number from 1, or None for all cores.")
    return _extract_in_order(iter(paths), _Pool(settings or ExtractSettings(), limits or Limits(), num_workers))


def available_cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _extract_in_order(paths: Iterator[Path | str], pool: _Pool) -> Iterator[Document]:
    try:
        while pool.feed(paths):
            yield pool.next_document()
    finally:
        pool.close()


@dataclass
class _Job:
    number: int
    path: str
    # Tried again in a worker that has read nothing else, since its first one died.
    is_second_try: bool = False


class _Pool:
    """The jobs and documents that the caller, the drivers (a thread per worker) and the watcher share."""

    def __init__(self, settings: ExtractSettings, limits: Limits, num_workers: int) -> None:
        self.settings = settings
        self.limits = limits
        self._num_workers = num_workers
        self._changed = threading.Condition()
        self._jobs: deque[_Job] = deque()
        self._documents: dict[int, Document] = {}
        self._waiting_chars = 0
        self._num_fed = 0
        self._num_given = 0
        self._workers: set[_Worker] = set()
        self._drivers: list[threading.Thread] = []
        self._failure: BaseException | None = None
        self._is_closed = False

    def feed(self, paths: Iterator[Path | str]) -> bool:
        """Begin as many files as the window allows; whether any document is still to come."""
        window = WINDOW_PER_WORKER * self._num_workers
        while self._num_fed - self._num_given < window and self._waiting_chars < MAX_WAITING_CHARS:
            path = next(paths, None)
            if path is None:
                break
            with self._changed:
                self._jobs.append(_Job(self._num_fed, str(path)))
                self._num_fed += 1
                self._changed.notify_all()
        if not self._drivers and self._num_fed:
            self._start_driver()
            threading.Thread(target=self._watch, daemon=True).start()
        return self._num_given < self._num_fed

    def _start_driver(self) -> None:
        driver = threading.Thread(target=self._drive, daemon=True)
        self._drivers.append(driver)
        driver.start()

    def next_document(self) -> Document:
        """Wait for the document that is next in order."""
        with self._changed:
            while self._num_given not in self._documents:
                if self._failure is not None:
                    raise self._failure
                self._changed.wait()
            document = self._documents.pop(self._num_given)
            self._num_given += 1
            self._waiting_chars -= len(document.text)
            return document

    def close(self) -> None:
        """End all workers and threads."""
        with self._changed:
            self._is_closed = True
            self._jobs.clear()
            workers = list(self._workers)
            self._changed.notify_all()
        for worker in workers:
            worker.kill("")
        for driver in self._drivers:
            driver.join(timeout=5)

    def _watch(self) -> None:
        """Kill workers that are late or too large, and hire more while files are waiting.

        A few small files are read by the first worker before a second one could start.
        """
        while not self._is_closed:
            time.sleep(WATCH_PAUSE_S)
            with self._changed:
                workers = list(self._workers)
                num_wanted = min(len(self._jobs), len(self._drivers), self._num_workers - len(self._drivers))
                for _ in range(0 if self._is_closed else num_wanted):
                    self._start_driver()
            for worker in workers:
                worker.check()

    def _drive(self) -> None:
        """Serve jobs with one worker after another until the pool is closed."""
        worker: _Worker | None = None
        try:
            while batch := self._take():
                if worker is not None and (worker.is_spent() or batch[0].is_second_try):
                    self._dismiss(worker)
                    worker = None
                worker = worker or self._hire()
                if not self._serve(worker, batch):
                    self._dismiss(worker)
                    worker = None
        except Exception as error:
            with self._changed:
                self._failure = self._failure or error
                self._changed.notify_all()
        finally:
            if worker is not None:
                self._dismiss(worker)

    def _take(self) -> list[_Job]:
        """The next few jobs; a job on its second try comes alone. Empty when the pool is closed."""
        with self._changed:
            while not self._jobs and not self._is_closed:
                self._changed.wait()
            if self._is_closed:
                return []
            batch = [self._jobs.popleft()]
            size = 1 if batch[0].is_second_try else min(BATCH_FILES, len(self._jobs) // len(self._drivers))
            while len(batch) < size and not self._jobs[0].is_second_try:
                batch.append(self._jobs.popleft())
            return batch

    def _hire(self) -> _Worker:
        worker = _Worker(self.settings, self.limits)
        with self._changed:
            self._workers.add(worker)
            is_late = self._is_closed
        if is_late:
            worker.kill("")
        worker.wait_until_ready()
        return worker

    def _dismiss(self, worker: _Worker) -> None:
        with self._changed:
            self._workers.discard(worker)
        worker.end()

    def _serve(self, worker: _Worker, batch: list[_Job]) -> bool:
        """Have a batch read; whether the worker can go on after it."""
        worker.send([os.path.abspath(job.path) for job in batch])
        for place, job in enumerate(batch):
            is_fresh = worker.num_served == 0
            answer = worker.receive()
            document = _document(job.path, answer) if answer else worker.verdict(job.path)
            if document.status in ("crashed", "out_of_memory") and not is_fresh:
                self._put_back([_Job(job.number, job.path, is_second_try=True), *batch[place + 1 :]])
                return False
            self._finish(job, document)
            if answer is None or document.status == "out_of_memory" or worker.was_killed:
                self._put_back(batch[place + 1 :])
                return False
        return worker.rest()

    def _put_back(self, jobs: list[_Job]) -> None:
        with self._changed:
            self._jobs.extendleft(reversed(jobs))
            self._changed.notify_all()

    def _finish(self, job: _Job, document: Document) -> None:
        with self._changed:
            self._documents[job.number] = document
            self._waiting_chars += len(document.text)
            self._changed.notify_all()


def _document(path: str, answer: dict[str, Any]) -> Document:
    """The document that a worker describes; the path is the caller's own.

    Raises:
        ConfigError: a library that reading needs cannot be imported, which no other file would mend.
    """
    if "mistake" in answer:
        raise ConfigError(answer["mistake"])
    if answer["status"] not in STATUSES:
        raise RuntimeError(f"the worker answered with the status {answer['status']!r}")
    starts = tuple(answer["page_starts"])
    return Document(path, answer["status"], answer["reason"], answer["format"], answer["text"], starts)


class _Worker:
    """One worker process, and why it was killed if it was."""

    def __init__(self, settings: ExtractSettings, limits: Limits) -> None:
        self._limits = limits
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  (closed in `end`)
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-c", _BOOT, json.dumps(_import_path())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout
        self.num_served = 0
        # Held while the clock is read or set, so that no file is blamed for the one before it.
        self._lock = threading.Lock()
        self._killed_for = ""
        self.was_killed = False
        # Starting counts too: an interpreter that hangs before it is ready must not hang the caller.
        self._deadline: float | None = time.monotonic() + START_TIMEOUT_S
        self._send({"settings": asdict(settings), "timeout_s": limits.timeout_s, "memory_mb": limits.memory_mb})

    def wait_until_ready(self) -> None:
        """Wait for the worker's first word.

        Raises:
            RuntimeError: it did not start.
        """
        is_wanted = self._killed_for or not self.was_killed
        if read_frame(self._answers) is None and is_wanted:
            code = self._process.wait()
            raise RuntimeError(f"the extraction worker did not start (exit {code}): {self._last_words().decode()}")
        self._deadline = None

    def send(self, paths: list[str]) -> None:
        """Give it a batch; the clock of the first file starts."""
        self._deadline = time.monotonic() + self._limits.timeout_s
        self._send(paths)

    def _send(self, message: Any) -> None:
        # A worker that is already dead is noticed when its answer is read.
        with contextlib.suppress(BrokenPipeError, OSError):
            write_frame(self._requests, message)

    def receive(self) -> dict[str, Any] | None:
        """The answer for the next file, None if the worker died over it; the clock of the file after it starts."""
        answer: dict[str, Any] | None = read_frame(self._answers)
        with self._lock:
            self._deadline = time.monotonic() + self._limits.timeout_s if answer else None
        self.num_served += 1
        return answer

    def rest(self) -> bool:
        """Stop the clock after a batch; whether the worker is still alive."""
        with self._lock:
            self._deadline = None
            return not self.was_killed

    def is_spent(self) -> bool:
        """Whether it should be replaced before the next batch: it has read its share, or grown to half its limit."""
        if self.num_served >= self._limits.files_per_worker:
            return True
        return (resident_bytes(self._process.pid) or 0) > self._limits.memory_mb * 2**20 // 2

    def check(self) -> None:
        """Kill it if it is late or too large."""
        with self._lock:
            if self._deadline is None:
                return
            if time.monotonic() > self._deadline:
                self.kill("timeout")
            elif (resident_bytes(self._process.pid) or 0) > self._limits.memory_mb * 2**20:
                self.kill("out_of_memory")

    def kill(self, reason: str) -> None:
        """End it at once; `reason` is "timeout", "out_of_memory" or "" (nobody wants its answer)."""
        self._killed_for = self._killed_for or reason
        self.was_killed = True
        self._deadline = None
        self._process.kill()

    def verdict(self, path: str) -> Document:
        """What is written down for the file over which it died."""
        status, reason = self._cause(self._process.wait())
        return Document(path, status, reason, "", "")

    def _cause(self, code: int) -> tuple[Status, str]:
        if self._killed_for == "timeout":
            return "timeout", f"not read after {self._limits.timeout_s:g} s"
        too_much = f"reading it needs more than {self._limits.memory_mb} MB"
        if self._killed_for == "out_of_memory" or any(word in self._last_words() for word in _OUT_OF_MEMORY_WORDS):
            return "out_of_memory", too_much
        if code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
            if name == "SIGKILL":
                return "out_of_memory", "the operating system killed the reader, most often for want of memory"
            return "crashed", f"the reader died with {name}"
        return "crashed", f"the reader ended with exit status {code}"

    def _last_words(self) -> bytes:
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - 4096))
        return self._stderr.read()

    def end(self) -> None:
        """Close its pipes, and kill it: between batches it holds nothing."""
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(OSError):
            self._requests.close()
        self._answers.close()
        self._stderr.close()


def _import_path() -> list[str]:
    """This interpreter's import path, so that a worker needs no site initialisation; doctune itself comes first."""
    import doctune

    root = Path(doctune.__file__).parents[1]
    return [str(root), *(os.path.abspath(entry) for entry in sys.path if os.path.abspath(entry) != str(root))]
