"""What each of several processes does: take up what the parent has prepared, train, judge the best weights."""

from __future__ import annotations

import logging
import logging.handlers
import multiprocessing
import os
import signal
import tempfile
import threading
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import lightning as L
import torch.distributed as dist

from doctune.errors import DoctuneError
from doctune.training.callbacks.status import StatusFile
from doctune.training.config import Config
from doctune.training.fit import fit_once, judge
from doctune.training.memory import is_out_of_memory
from doctune.training.processes import SIGNALS, Outcome, Rank
from doctune.training.quiet import quieten_libraries
from doctune.training.ranks import take_share_of_cores
from doctune.training.record import RunRecord
from doctune.training.tasks.choice import prepare_task


def train_as_rank(rank: Rank, config: Config, run: Path, parent: Connection) -> None:
    """Do one process's share of a run's training; the parent learns through the connection how it ended."""
    _belong_to_parent()
    channel = _Channel(parent)
    try:
        _train(rank, config, run, channel)
        outcome = Outcome("done", time.monotonic())
    except BaseException as error:
        outcome = _outcome(error)
    channel.put_nowait(outcome)
    # Without a word to the others: one that failed must not wait in their process group's farewell.
    os._exit(0 if outcome.kind == "done" else 1)


def _train(rank: Rank, config: Config, run: Path, channel: _Channel) -> None:
    logging.getLogger().addHandler(logging.NullHandler())  # the parent has said already what preparing says
    quieten_libraries()
    take_share_of_cores(rank.count)
    L.seed_everything(config.seed, workers=True, verbose=False)
    is_main = rank.number == 0
    record = RunRecord(run / "environment.json", writes=is_main)
    status = StatusFile(run / "status.json", writes=is_main)
    status.take_up()
    with tempfile.TemporaryDirectory(prefix="doctune-") as unused:
        task = prepare_task(config, Path(unused), record)  # the run has these files
    training = fit_once(
        config, run, task, status, record, rank, when_prepared=lambda: _log_through(channel) if is_main else None
    )
    status.update(phase="testing")
    judge(training, run, record)
    dist.barrier()
    dist.destroy_process_group()


def _outcome(error: BaseException) -> Outcome:
    now = time.monotonic()
    if isinstance(error, KeyboardInterrupt):
        return Outcome("interrupted", now)
    if isinstance(error, DoctuneError):
        return Outcome("failed", now, error)
    kind = "out of memory" if is_out_of_memory(error) else "failed"
    return Outcome(kind, now, report="".join(traceback.format_exception(error)))


class _Channel:
    """The way to the parent, for several threads."""

    def __init__(self, parent: Connection) -> None:
        self._parent = parent
        self._lock = threading.Lock()

    def put_nowait(self, message: Any) -> None:
        """Send it; `QueueHandler` calls it so."""
        with self._lock:
            self._parent.send(message)


def _log_through(channel: _Channel) -> None:
    """Let the parent log what is logged here from now on."""
    root = logging.getLogger()
    root.addHandler(logging.handlers.QueueHandler(channel))  # type: ignore[arg-type]  # it has what is used of a queue
    root.setLevel(logging.INFO)


def _belong_to_parent() -> None:
    """Listen to the parent alone, and end with it.

    A terminal's Ctrl-C reaches all processes of its group at once, each at another step: only the parent may hear it.
    Windows has no such groups; there all stop at once.
    """
    if hasattr(os, "setsid"):
        os.setsid()
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
