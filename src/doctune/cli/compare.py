"""Put finished runs side by side: settings that differ, scores, gap, time and size, and which is better.

RUN is a run folder, its model/ folder, or a multirun folder, which stands for its finished runs; a k-fold multirun is
one run, judged by its out-of-fold predictions. Every run is tested against the best one on the test documents that all
have in common. --gate 'METRIC OP NUMBER' turns a release rule into an exit status: 0 if every run passes, 1 if one
fails. Metrics are the test scores (f1_macro, accuracy, log_loss … of classifiers, f1 and exact_match of readers,
f1_macro and emotion/f1_macro of runs with a target emotion among several, loss, perplexity and f1 of tuned language
models), the same with val_ before them for
validation, gap, gap_abs, seconds and parameters; OP is <, <=, > or >=.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from doctune.errors import ConfigError

EXAMPLE = (
    "doctune compare outputs/2026-01-31/12-00-00 multirun/2026-01-31/14-00-00 --gate 'gap<0.15' --html compare.html"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `doctune compare`."""
    add = parser.add_argument
    add(
        "runs", nargs="+", metavar="RUN", help="a run folder, its model/ folder, or a multirun folder; two runs or more"
    )
    add("--gate", action="append", default=[], metavar="RULE", help="such as 'gap<0.15'; may be given several times")
    add("--json", type=Path, metavar="FILE", help="write the comparison for scripts")
    add("--html", type=Path, metavar="FILE", help="write it, with the curves, as a page that needs nothing else")


def run(args: argparse.Namespace) -> int:
    """Read, compare, print, write."""
    from doctune.reports.compare import compare, find_runs, read_compared
    from doctune.reports.compare_page import page, summarize
    from doctune.reports.gates import parse_gate

    gates = [parse_gate(text) for text in args.gate]
    for option in ("json", "html"):
        path = getattr(args, option)
        if path is not None and path.is_dir():
            raise ConfigError(
                f"--{option} {path} is a folder; name a file in it, such as {path / f'compare.{option}'}."
            )
    folders, left_out = find_runs(args.runs)
    runs = read_compared(folders)
    report = compare(runs, left_out, gates)
    print(summarize(report), end="")
    if args.json:
        _write("--json", args.json, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    if args.html:
        histories = {each.name: each.records.history for each in runs}
        _write("--html", args.html, page(report, histories))
    return 0 if all(outcome["passed"] for outcome in report["gates"]) else 1


def _write(option: str, path: Path, text: str) -> None:
    from doctune.files import write_text

    try:
        write_text(path, text)
    except OSError as error:
        raise ConfigError(f"{option} {path} cannot be written: {error.strerror}.") from error
    print(f"wrote {path}")
