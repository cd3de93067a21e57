"""Say what the folds of a k-fold multirun say together: mean and spread, out-of-fold scores, suspect labels.

DIR is the folder of a multirun made with `python train.py sweep=kfold`; the results are written to DIR/kfold, whose
index.html is the report to look at. Missing, unfinished and failed folds are listed with how to make them. Exits 0 when
every fold has finished, else 1.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

EXAMPLE = "doctune folds multirun/2026-01-31/12-00-00"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `doctune folds`."""
    parser.add_argument("directory", type=Path, metavar="DIR", help="the folder of a multirun, above its fold folders")


def run(args: argparse.Namespace) -> int:
    """Read, write, print."""
    from doctune.reports.folds import RESULTS_FILE, write_folds

    summary = write_folds(args.directory)
    print(summary.read_text(encoding="utf-8"), end="")
    print(f"\nwrote {summary.parent}")
    results = json.loads((summary.parent / RESULTS_FILE).read_text(encoding="utf-8"))
    return 1 if results["missing"] else 0
