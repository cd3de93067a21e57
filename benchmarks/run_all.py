"""Run the benchmarks that need no GPU and write down what they printed: `make bench`.

    python benchmarks/run_all.py .ifmos/demo.csv --data FOLDER --only startup squad_decode

`benchmarks/RESULTS.md` gets a section for each: the command, its output, its exit status and how long it took, under a
head that names the machine. Benchmarks that are not run keep their sections. Nothing else should compute meanwhile.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

from doctune import __version__
from doctune.files import write_text

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "RESULTS.md"
# By their names in /proc/cpuinfo.
INSTRUCTIONS = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_vnni": "VNNI", "avx512_bf16": "bf16", "amx_tile": "AMX"}
# Of each script its arguments; {manifest} is that of `doctune scan`, {all} a larger one beside it if there is all.csv,
# {data} the folder of real data, {run} a run that was exported.
BENCHMARKS = {
    "startup": "",
    "training_throughput": "{manifest} --documents 160",
    "squad_decode": "--data {data}",
    "second_start": "{all}",
    "data_rates": "{all}",
    "predict_speed": "{run}",
    "extract_speed": "{data}/documents",
    "near_duplicates": "--count 10000",
    "prepare_resume": "{manifest}",
    "chunk_memory": "",
    "time_left": "{manifest}",
}


def main() -> int:
    """Run what is asked for and bring the file up to date; 1 if a benchmark says that a claim does not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("manifest", type=Path, help="of `doctune scan`, such as .ifmos/demo.csv")
    add("--data", type=Path, help="the folder of real data (default: the one that DOCTUNE_DATA names)")
    add("--only", nargs="+", choices=BENCHMARKS, default=[*BENCHMARKS], help="some of them")
    add("--run", type=Path, help="a run after doctune export RUN --int8, for predict_speed (default: left out)")
    args = parser.parse_args()
    data = args.data or os.environ.get("DOCTUNE_DATA")
    if data is None:
        sys.exit("Name the folder of real data with --data, or in DOCTUNE_DATA.")
    sections = _sections()
    failed = []
    largest = args.manifest.with_name("all.csv")
    largest = largest if largest.is_file() else args.manifest
    places = {"manifest": args.manifest, "all": largest, "data": data, "run": args.run}
    shown_as = {
        "manifest": f".ifmos/{args.manifest.name}",
        "all": f".ifmos/{largest.name}",
        "data": "DATA",
        "run": "RUN",
    }
    for name in args.only:
        if args.run is None and "{run}" in BENCHMARKS[name]:
            continue
        given, shown = (BENCHMARKS[name].format(**named) for named in (places, shown_as))
        sections[name], status = _run(name, given.split(), f"python benchmarks/{name}.py {shown}".strip())
        failed += [name] if status else []
        write_text(RESULTS, _page(sections))
        print(f"{name}: {'exit status ' + str(status) if status else 'done'}", flush=True)
    return 1 if failed else 0


def _run(name: str, arguments: list[str], shown: str) -> tuple[str, int]:
    """The section of a benchmark and its exit status."""
    started = time.monotonic()
    command = [sys.executable, str(FOLDER / f"{name}.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    minutes = (time.monotonic() - started) / 60
    said = done.stdout if done.returncode in (0, 1) else f"{done.stdout}{done.stderr[-2000:]}"
    when = f"{datetime.now():%Y-%m-%d}, {minutes:.1f} minutes, exit status {done.returncode}; {_machine()}"
    return f"`{shown}`\n\n{when}.\n\n```\n{said.rstrip()}\n```\n", done.returncode


def _sections() -> dict[str, str]:
    """The sections that the file has already."""
    if not RESULTS.is_file():
        return {}
    parts = re.split(r"^## (\w+)\n\n", RESULTS.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {name: body.rstrip("\n") + "\n" for name, body in zip(parts[::2], parts[1::2], strict=True)}


def _page(sections: dict[str, str]) -> str:
    head = (
        f"# Benchmarks\n\nWritten by `make bench` with doctune {__version__}. Each script runs ours and the peer on "
        "the same work, in turn, and says at its top what it claims. Exit status 1: that does not hold here.\n"
    )
    ordered = [name for name in BENCHMARKS if name in sections]
    return "\n".join([head, *(f"## {name}\n\n{sections[name]}" for name in ordered)])


def _machine() -> str:
    """Processor, cores, memory, and the instructions that decide how fast matrices are multiplied."""
    about = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    found = re.search(r"^model name\s*: (.+)$", about, re.MULTILINE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    instructions = [shown for flag, shown in INSTRUCTIONS.items() if re.search(rf"\b{flag}\b", about)]
    return ", ".join(
        [found[1] if found else platform.processor(), f"{os.cpu_count()} cores", f"{memory:.0f} GiB", *instructions]
    )


if __name__ == "__main__":
    sys.exit(main())
