"""Say where a run stands: its phase, epoch and step, losses, rate, and how long it still takes.

RUN is a run folder or its model/ folder; without it, the newest under outputs/ and multirun/. The time left is a range
computed from measured rates. Exits 0 while the run goes on and after it has finished, 1 after it has ended otherwise.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from doctune.reports.locate import find_run
from doctune.reports.status import (
    Process,
    Status,
    duration_words,
    process_of,
    range_words,
    rate_words,
    read_raw,
    read_status,
)

EXAMPLE = "doctune status outputs/2026-01-31/12-00-00 --watch"
_SECONDS_BETWEEN_LOOKS = 2.0
_SILENT_S = 60.0
_SILENT_STEPS = 5
_LOG_TAIL_BYTES = 64_000
_MAX_REASON_LINES = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `doctune status`."""
    add = parser.add_argument
    add("run", nargs="?", metavar="RUN", help="a run folder, or its model/ folder (default: the newest run)")
    add("--watch", action="store_true", help="show it again whenever it changes, until the run ends")
    add("--json", action="store_true", help="print status.json as it is, and the folder of the run")


def run(args: argparse.Namespace) -> int:
    """Read and print, once or until the run ends."""
    folder = find_run(args.run)
    if args.watch and not args.json:
        return _watch(folder)
    status, process = _look(folder)
    if args.json:
        print(json.dumps({"run": str(folder), **read_raw(folder)}, indent=2, ensure_ascii=False))
    else:
        print(_page(folder, status, process))
    return _exit_code(status, process)


def lines(folder: Path, status: Status, process: Process, now: datetime) -> list[str]:
    """What is said of a run; nothing in it needs more than 100 columns but names and warnings."""
    is_over = status.has_ended or process == "gone"
    return [
        _headline(folder, status, process, now),
        *_progress(status, is_over),
        *([] if is_over else _time_left(status, now)),
        *(f"Warning: {warning}" for warning in status.warnings),
        *(_outcome(folder, status) if is_over else _silence(status, now)),
    ]


def _headline(folder: Path, status: Status, process: Process, now: datetime) -> str:
    if process == "gone" and not status.has_ended:
        where = "" if status.step is None else f" at epoch {status.epoch}, step {status.step:,}"
        ago = f"{duration_words(status.age_s(now))} ago" if status.updated_at else "at an unknown time"
        return f"{folder}: its process is gone; it stopped {ago} while {status.phase}{where}."
    if status.started_at is None:
        return f"{folder}: {status.phase}"
    if status.has_ended:
        took = (status.updated_at or status.started_at) - status.started_at
        ago = f", {duration_words(status.age_s(now))} ago" if status.updated_at else ""
        return f"{folder}: {status.phase} after {duration_words(took.total_seconds())}{ago}"
    since = max((now - status.started_at).total_seconds(), 0.0)
    elsewhere = f" on {status.host}" if status.host and process == "unknown" else ""
    return f"{folder}: {status.phase}{elsewhere}, started {duration_words(since)} ago"


def _progress(status: Status, is_over: bool) -> Iterator[str]:
    if status.epoch is not None and status.step is not None:
        share = f" ({100 * status.step / status.steps:.0f} %)" if status.steps else ""
        rate = f", {rate_words(status.rate)}" if status.rate is not None and not is_over else ""
        yield f"Epoch {status.epoch}{_of(status.epochs)}, step {status.step:,}{_of(status.steps)}{share}{rate}"
    measured = [
        f"Loss {status.train_loss:.4f}" if status.train_loss is not None else "",
        f"{status.monitor} {status.value:.4f}" if status.value is not None else "",
        f"gap {status.gap_status}" if status.gap_status else "",
    ]
    if any(measured):
        yield ", ".join(part for part in measured if part)


def _of(total: int | None) -> str:
    return "" if total is None else f" of {total:,}"


def _time_left(status: Status, now: datetime) -> Iterator[str]:
    left = status.left_s(now)
    sooner = ", sooner if early stopping ends it" if status.may_stop_early and status.phase == "training" else ""
    if left is not None:
        yield f"Time left: {range_words(*left)}{sooner}"
    elif status.phase == "training":
        yield "Time left: not known before the first batches have been measured"


def _silence(status: Status, now: datetime) -> Iterator[str]:
    """Batches are announced every second; other phases say nothing while they work."""
    slow_steps = _SILENT_STEPS / status.rate if status.rate else 0.0
    if status.phase == "training" and status.age_s(now) > max(_SILENT_S, slow_steps):
        yield (
            f"No sign of life for {duration_words(status.age_s(now))}: it may hang, or its machine may be asleep or "
            "very busy."
        )


def _outcome(folder: Path, status: Status) -> Iterator[str]:
    """What came of a run that is over, and what to type next."""
    if status.phase == "finished":
        summary = folder / "report" / "summary.txt"
        if not summary.is_file():
            yield f"It wrote no report: {summary} is missing."
            return
        yield f"Verdict: {_verdict(summary)}"
        yield f"Report: {summary}"
        return
    reason = _last_error(folder / "train.log")
    if reason and status.phase in ("failed", "refused"):
        yield from reason[:_MAX_REASON_LINES]
    if (folder / "train.log").is_file():
        yield f"Log: {folder / 'train.log'}"
    if (folder / "checkpoints" / "last.ckpt").is_file():
        yield f"Go on with: python train.py resume={folder}"
    elif status.phase != "refused":
        yield "It saved no checkpoint, so there is nothing to go on from: start it again."


def _verdict(summary: Path) -> str:
    """The paragraph that begins with VERDICT, else the first line."""
    text = summary.read_text(encoding="utf-8", errors="replace")
    found = re.search(r"^VERDICT\s+(.*?)(?:\n\s*\n|\Z)", text, re.MULTILINE | re.DOTALL)
    return " ".join((found.group(1) if found else text.partition("\n")[0]).split())


def _last_error(log: Path) -> list[str]:
    """The last error of a log; of a traceback only its end, the exception itself."""
    if not log.is_file():
        return []
    with log.open("rb") as stream:
        stream.seek(max(log.stat().st_size - _LOG_TAIL_BYTES, 0))
        tail = stream.read().decode("utf-8", errors="replace")
    records = re.split(r"^(?=\[\d{4}-\d\d-\d\d )", tail, flags=re.MULTILINE)
    errors = [record.partition("][ERROR] - ")[2] for record in records if "][ERROR] - " in record.partition("\n")[0]]
    said = [line for line in errors[-1].splitlines() if line.strip()] if errors else []
    is_traceback = any(line.startswith("Traceback ") for line in said)
    return [line for line in said if not line.startswith(" ")][-1:] if is_traceback else said


def _look(folder: Path) -> tuple[Status, Process]:
    status = read_status(folder)
    process = process_of(status)
    if process == "gone" and not status.has_ended:
        status = read_status(folder)  # it may have ended well between the two looks
    return status, process


def _looks(folder: Path) -> Iterator[tuple[Status, Process]]:
    """A look every two seconds, the last one at the run's end."""
    while True:
        status, process = _look(folder)
        yield status, process
        if status.has_ended or process == "gone":
            return
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _watch(folder: Path) -> int:
    """Redraw in a terminal; elsewhere print again when more than steps, rate and time have changed."""
    show = _redraw if sys.stdout.isatty() else _print_news
    status, process = show(folder)
    return _exit_code(status, process)


def _redraw(folder: Path) -> tuple[Status, Process]:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(console=Console(highlight=False), auto_refresh=False) as live:
        for status, process in _looks(folder):
            live.update(Text(_page(folder, status, process)), refresh=True)
    return status, process


def _print_news(folder: Path) -> tuple[Status, Process]:
    told = None
    for status, process in _looks(folder):
        is_silent = any(_silence(status, datetime.now(UTC)))
        news = (status.phase, status.epoch, status.value, status.gap_status, status.warnings, process, is_silent)
        if news != told:
            print(_page(folder, status, process), flush=True)
        told = news
    return status, process


def _page(folder: Path, status: Status, process: Process) -> str:
    return "\n".join(lines(folder, status, process, datetime.now(UTC)))


def _exit_code(status: Status, process: Process) -> int:
    if status.has_ended:
        return 0 if status.phase == "finished" else 1
    return 1 if process == "gone" else 0
