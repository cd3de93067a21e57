"""How long until the first step of a second start on a large corpus, and how much memory does the corpus take?

    python benchmarks/second_start.py MANIFEST --model FOLDER

Reach with 50,000 files: the first optimiser step within 15 s of the start of the process, with less than 1.5 GB above
what the same run holds on a hundredth of the files.

`train.py` is started until its first step and killed. The first start reads and tokenises every file, and its time is
printed for comparison; each of the `--repeats` second starts is a run of its own on the same store, and the small runs
take their turns with them. Memory is the process's own, without mapped files, from its start to its first step. Needs
Linux. Exit status 1 if a claim is not met.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

from _memory import own_mb

TRAIN = Path(__file__).parents[1] / "train.py"
SECONDS, MEGABYTES = 15.0, 1500.0
INTERVAL = 0.02


class Start(NamedTuple):
    """What was seen of a process until its first step.

    Attributes:
        seconds: from the start of the process.
        own_mb: the peak of its memory, without mapped files.
    """

    seconds: float
    own_mb: float


def main() -> int:
    """Start, start again, and compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("manifest", type=Path, help="of `doctune scan`")
    add("--model", help="an encoder's folder (default: the small one from random weights)")
    add("--cache", type=Path, help="a store that is filled or half filled already (default: an empty one)")
    add("--max-length", type=int, default=512, help="tokens of a document (default: 512)")
    add("--repeats", type=int, default=3, help="second starts (default: 3)")
    args = parser.parse_args()
    header, *rows = args.manifest.read_text(encoding="utf-8").splitlines(keepends=True)
    with tempfile.TemporaryDirectory() as scratch:
        cache = args.cache or Path(scratch) / "cache"
        hundredth = Path(scratch) / "hundredth.csv"
        hundredth.write_text("".join([header, *rows[::100]]), encoding="utf-8")
        shared = [f"data.cache_dir={cache.resolve()}", f"data.max_length={args.max_length}"]
        shared += ["model=minilm", f"model.path={args.model}"] if args.model else []
        options, small = ([*shared, f"data.manifest={path.resolve()}"] for path in (args.manifest, hundredth))
        first = _first_step([*options, f"hydra.run.dir={scratch}/first"])
        print(f"{len(rows):,} files: first start {_words(first)}", flush=True)
        _first_step([*small, f"hydra.run.dir={scratch}/small"])
        seconds, above = [], []
        for turn in range(args.repeats):
            few = _first_step([*small, f"hydra.run.dir={scratch}/small-{turn}"])
            many = _first_step([*options, f"hydra.run.dir={scratch}/many-{turn}"])
            seconds.append(many.seconds)
            above.append(many.own_mb - few.own_mb)
            print(f"second start {_words(many)}; a hundredth of the files {_words(few)}", flush=True)
    print(
        f"first step after {median(seconds):.1f} s ({min(seconds):.1f}-{max(seconds):.1f}; at most {SECONDS:g})\n"
        f"{median(above):,.0f} MB above the small run ({min(above):,.0f}-{max(above):,.0f}; at most {MEGABYTES:,.0f})"
    )
    return 0 if median(seconds) <= SECONDS and median(above) <= MEGABYTES else 1


def _words(start: Start) -> str:
    return f"{start.seconds:,.1f} s, {start.own_mb:,.0f} MB"


def _first_step(options: list[str]) -> Start:
    """Start a run, and kill it when it has made its first step."""
    command = [
        sys.executable, str(TRAIN), "data=ifmos", "trainer=cpu", "split.small_classes=merge", "data.max_unusable=0.5",
        "callbacks.checkpoint.every_minutes=null", "logger=csv", *options,
    ]  # fmt: skip
    status = Path(options[-1].partition("=")[2]) / "status.json"
    with tempfile.TemporaryFile("w+") as said:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=said, stderr=said)
        own = 0.0
        try:
            while process.poll() is None:
                own = max(own, own_mb(process.pid))
                if status.is_file() and (json.loads(status.read_text(encoding="utf-8"))["step"] or 0) >= 1:
                    return Start(time.perf_counter() - started, own)
                time.sleep(INTERVAL)
        finally:
            process.kill()
            process.wait()
        said.seek(0)
        sys.exit(f"{' '.join(command)} ended before its first step:\n{said.read()[-2000:]}")


if __name__ == "__main__":
    sys.exit(main())
