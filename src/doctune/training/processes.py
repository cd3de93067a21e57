"""A run's training in several processes: started, watched and ended by the one that the user has started.

That one, the parent, prepares the data before and writes model and report after, alone, so that nothing there needs
to know how many trained. The processes in between are equal: they take up the prepared data from the caches, train,
and judge the best weights, each its share. Files are written by the first. If one fails, the parent ends the others,
which would wait for it; if memory runs out in one, all begin again at the last checkpoint with a smaller micro-batch.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doctune.errors import DoctuneError, TrainingError

if TYPE_CHECKING:  # what starts here imports nothing that it does not use
    from doctune.training.config import Config

log = logging.getLogger(__name__)

# How long the others may take to end by themselves when one has failed.
_GRACE_S = 10.0
# Of these the parent makes a wish of the first process, which all agree on.
SIGNALS = tuple(signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGUSR1") if name in signal.Signals.__members__)


@dataclass(frozen=True)
class Rank:
    """One of `count` processes, from 0, which meet at a port of this machine."""

    number: int
    count: int
    port: int


@dataclass(frozen=True)
class Outcome:
    """How a process has ended: "done", "out of memory", "interrupted" or "failed".

    `at` is when, on the clock that all processes share; `error` is what a user can be told as it is, `report` the
    traceback of anything else.
    """

    kind: str
    at: float
    error: DoctuneError | None = None
    report: str = ""


Work = Callable[[Rank, "Config", Path, Connection], None]


class OutOfMemory(Exception):  # noqa: N818  (the parent's signal to itself, no error of the run)
    """Memory ran out in one of the processes."""


@dataclass
class _Worker:
    rank: Rank
    process: BaseProcess
    connection: Connection
    outcome: Outcome | None = None

    def has_failed(self) -> bool:
        return self.outcome is not None and self.outcome.kind != "done"


def work_together(work: Work, config: Config, run: Path) -> None:
    """Let `config.trainer.devices` processes do the work and wait until all have ended; none is left behind.

    What they log is logged here.

    Args:
        work: sends log records and at last an `Outcome` through its connection; importable, since it is spawned.
        config: of the run.
        run: the run's folder.

    Raises:
        DoctuneError: one could not go on, and the message says why.
        OutOfMemory: in one of them memory ran out.
        KeyboardInterrupt: a signal has ended them.
    """
    with _passed_on_signals() as passed_on:
        workers = _start(work, config, run, passed_on)
        try:
            _wait(workers)
        finally:
            _end(workers)
    failed = [worker for worker in workers if worker.has_failed()]
    if failed:
        first = min(failed, key=lambda worker: worker.outcome.at)  # type: ignore[union-attr]  # it has ended
        _raise(first, is_interrupted=bool(passed_on.signals))


def _start(work: Work, config: Config, run: Path, passed_on: _PassedOn) -> list[_Worker]:
    context = multiprocessing.get_context("spawn")  # a forked process could not use a GPU
    port, count = _free_port(), config.trainer.devices
    workers = []
    for number in range(count):
        rank = Rank(number, count, port)
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(rank, config, run, theirs), name=f"rank {number}")
        process.start()
        theirs.close()  # so that ours ends when the process does
        workers.append(_Worker(rank, process, ours))
    passed_on.target = workers[0].process.pid
    return workers


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _wait(workers: Sequence[_Worker]) -> None:
    """Log what the processes say until all have ended, or one has failed and the others have had time to."""
    open_ones = {worker.connection: worker for worker in workers}
    deadline: float | None = None
    while open_ones and (deadline is None or time.monotonic() < deadline):
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        for connection in wait([*open_ones], left):
            worker = open_ones[connection]  # type: ignore[index]
            if not _listen(worker):
                del open_ones[worker.connection]
            if worker.has_failed() and deadline is None:
                deadline = time.monotonic() + _GRACE_S


def _listen(worker: _Worker) -> bool:
    """Take in one message; False when no more can come."""
    try:
        message: Any = worker.connection.recv()
    except (EOFError, OSError):
        worker.process.join(_GRACE_S)
        worker.outcome = worker.outcome or Outcome("failed", time.monotonic(), report=_death(worker.process))
        return False
    if isinstance(message, Outcome):
        worker.outcome = message
    else:
        logging.getLogger(message.name).handle(message)
    return True


def _death(process: BaseProcess) -> str:
    code = process.exitcode
    if code is not None and code < 0:
        return f"It was ended by {signal.Signals(-code).name}; the system does so when memory runs out."
    return f"It ended without a word, with exit status {code}."


def _end(workers: Sequence[_Worker]) -> None:
    for worker in workers:
        if worker.outcome is None or worker.has_failed():
            worker.process.kill()
        worker.process.join()
        worker.connection.close()


def _raise(worker: _Worker, *, is_interrupted: bool) -> None:
    outcome, rank = worker.outcome, worker.rank
    assert outcome is not None, "it has ended"
    if outcome.error is not None:
        raise outcome.error
    if outcome.kind == "interrupted" or is_interrupted:
        raise KeyboardInterrupt
    if outcome.kind == "out of memory":
        raise OutOfMemory
    reason = outcome.report.strip()
    if "\n" in reason:
        log.error("Process %d of %d failed.\n%s", rank.number + 1, rank.count, reason)
    raise TrainingError(
        f"Process {rank.number + 1} of {rank.count} failed: {reason.splitlines()[-1]} The others were ended. "
        "What was saved before is whole: go on with resume=RUN."
    )


@dataclass
class _PassedOn:
    """The signals that came, and the process that they were passed on to."""

    target: int | None
    signals: list[int]

    def take(self, number: int, _: Any) -> None:
        self.signals.append(number)
        if self.target is None:
            raise KeyboardInterrupt
        os.kill(self.target, number)


@contextmanager
def _passed_on_signals() -> Iterator[_PassedOn]:
    """While the processes work, the first of them hears the signals, and saves before all stop."""
    passed_on = _PassedOn(None, [])
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, passed_on.take) for number in SIGNALS}
    try:
        yield passed_on
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
