"""The process that parses: it reads batches of jobs from stdin and answers each file on stdout.

It is started by `sandbox` as a fresh interpreter, never forked, and never imports the caller's main module. Everything
on the wire is JSON: what a hostile document might make of this process cannot run code in the parent.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import os
import queue
import signal
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from doctune.errors import ConfigError
from doctune.text.extract import ExtractSettings, extract

FRAME = struct.Struct("<I")
# Test-only: names a module with `before(path)`, called in the worker before each file.
HOOK_VARIABLE = "DOCTUNE_EXTRACT_HOOK"
# The parent kills a worker that is late; if the parent is gone too, the worker ends itself this much later.
OWN_DEADLINE_FACTOR = 2.0
_MAX_WRITTEN_BYTES = 16 * 1024 * 1024
_FORBIDDEN_EVENTS = frozenset(
    "socket.connect socket.bind socket.getaddrinfo socket.sendto subprocess.Popen os.system os.exec os.posix_spawn"  # noqa: SIM905
    " os.fork os.startfile webbrowser.open".split()
)


def write_frame(stream: IO[bytes], message: Any) -> None:
    """Write one message: its length, then its JSON."""
    payload = json.dumps(message).encode("ascii")
    stream.write(FRAME.pack(len(payload)) + payload)
    stream.flush()


def read_frame(stream: IO[bytes]) -> Any:
    """Read one message; None at the end of the stream."""
    header = stream.read(FRAME.size)
    if len(header) < FRAME.size:
        return None
    (size,) = FRAME.unpack(header)
    payload = stream.read(size)
    return json.loads(payload) if len(payload) == size else None


def main() -> None:
    """Serve until stdin ends."""
    # An interrupt from the terminal reaches the whole group; the parent decides what ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = _claim_stdout()
    start = read_frame(sys.stdin.buffer)
    if start is None:
        return
    _limit_resources(start["memory_mb"])
    settings = ExtractSettings(**start["settings"])
    before_file = _hook()
    sys.addaudithook(_refuse_side_effects)
    write_frame(answers, "ready")
    for path in _paths():
        # A C-level timer: unlike a signal handler it also ends a library that never returns to Python.
        faulthandler.dump_traceback_later(OWN_DEADLINE_FACTOR * start["timeout_s"] + 5, exit=True)
        before_file(path)
        write_frame(answers, _answer(path, settings))
        faulthandler.cancel_dump_traceback_later()


def _answer(path: str, settings: ExtractSettings) -> dict[str, Any]:
    """A document as plain data; `mistake` alone if no file of its kind can be read here."""
    try:
        return asdict(extract(Path(path), settings))
    except ConfigError as error:
        return {"mistake": str(error)}


def _claim_stdout() -> IO[bytes]:
    """Keep the answer pipe to ourselves: what libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


def _paths() -> Iterator[str]:
    """Paths as they come; a thread reads them, so that the end of the parent is noticed even while a file is read."""
    waiting: queue.SimpleQueue[list[str]] = queue.SimpleQueue()

    def receive() -> None:
        while (batch := read_frame(sys.stdin.buffer)) is not None:
            waiting.put(batch)
        # The parent has closed the pipe or died: nobody wants what is still being read.
        os._exit(0)

    threading.Thread(target=receive, daemon=True).start()
    while True:
        yield from waiting.get()


def _hook() -> Callable[[str], None]:
    module = os.environ.get(HOOK_VARIABLE)
    return importlib.import_module(module).before if module else lambda _: None


def _limit_resources(memory_mb: int) -> None:
    """Bound memory and written bytes where the operating system can (not on Windows; macOS ignores the first)."""
    try:
        import resource
    except ImportError:
        return
    for kind, limit in (
        (resource.RLIMIT_AS, memory_mb * 2**20),
        (resource.RLIMIT_FSIZE, _MAX_WRITTEN_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        allowed = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (allowed, hard))


def _refuse_side_effects(event: str, _: tuple[object, ...]) -> None:
    """Second line of defence: no library opens a connection or starts a program while it reads a document."""
    if event in _FORBIDDEN_EVENTS:
        raise PermissionError(f"documents may not cause {event}")


if __name__ == "__main__":
    main()
