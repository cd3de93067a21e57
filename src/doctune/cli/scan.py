"""Walk folders and write a training manifest: path, label and confidence of every file that has a label.

Labels come from a table of names and suffixes (`--label-by rules`), from the first folder below ROOT (`folder`), or
from the suffix (`suffix`). Links are not followed; devices, pipes, sockets and what cannot be read are counted and
passed over.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doctune.errors import ConfigError

if TYPE_CHECKING:
    from doctune.corpus.labelling import RuleTable
    from doctune.corpus.scan import ScanResult, Tick

EXAMPLE = "doctune scan ~/documents --max-per-class 500 --out .ifmos/training_data.csv"
DEFAULT_OUT = Path(".ifmos/training_data.csv")
# Small text files of types that are common on the machine and that their content shows.
MACHINE_OPTIONS: dict[str, Any] = {
    "text_only": True,
    "max_per_class": 150,
    "min_per_class": 20,
    "min_bytes": 200,
    "max_bytes": 200_000,
    "min_confidence": 0.85,
    "leave_out": ("plain_text",),  # anything may stand in a .txt, so that its content does not show the type
    # Packages have roots of their own, which leaves out those of the Python that a virtual environment stands on: they
    # are mostly copies. The rest is binary, and there is so much of it that looking at each file takes long.
    "exclude": ("site-packages", "dist-packages", "__pycache__", "*.pyc", "*.pyo", "*.gz", "*.png", "*.mo"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `doctune scan`."""
    add = parser.add_argument
    add("roots", nargs="*", type=Path, metavar="ROOT", help="a folder to walk")
    add("--out", type=Path, default=DEFAULT_OUT, metavar="CSV", help=f"the manifest (default {DEFAULT_OUT.as_posix()})")
    add("--label-by", choices=("rules", "folder", "suffix"), default="rules", help="default: rules")
    add("--rules", type=Path, metavar="FILE", help="an edited table of rules")
    add("--print-rules", action="store_true", help="print the shipped table of rules and stop")
    add("--preset", choices=("machine",), help="machine: small text files of Python and the system")
    add("--max-per-class", type=int, metavar="N", help="keep at most N files of a class, chosen by the seed")
    add("--min-per-class", type=int, metavar="N", help="leave out classes with fewer files (default 1)")
    add("--min-bytes", type=int, metavar="N", help="pass over smaller files (default 1)")
    add("--max-bytes", type=int, metavar="N", help="pass over larger files (default: no limit)")
    add("--min-confidence", type=float, metavar="X", help="pass over labels that are less sure, 0 to 1 (default 0)")
    add(
        "--exclude",
        action="append",
        default=[],
        metavar="GLOB",
        help="name or path below ROOT to leave out; repeatable",
    )
    add("--leave-out", action="append", default=[], metavar="LABEL", help="a label to leave out; repeatable")
    add("--text-only", action=argparse.BooleanOptionalAction, help="pass over files with NUL bytes at the start")
    add("--seed", type=int, default=0, metavar="N", help="chooses the files where a class has too many (default 0)")


def run(args: argparse.Namespace) -> int:
    """Scan, write the manifest and its statistics, and say what to type next."""
    from doctune.corpus import scan as scanning
    from doctune.corpus.labelling import load_rules, shipped_rules_text

    if args.print_rules:
        print(shipped_rules_text(), end="")
        return 0
    _require_consistent(args)
    roots = [*(scanning.machine_roots() if args.preset == "machine" else []), *args.roots]
    options = scanning.ScanOptions(**_chosen(args))
    rules: RuleTable | None = load_rules(args.rules) if args.rules else None
    outputs = [args.out, scanning.stats_path(args.out)]
    with _progress() as tick:
        result = scanning.scan(roots, options, rules=rules, outputs=outputs, tick=tick)
    try:
        stats = scanning.write_manifest(result, args.out)
    except OSError as error:
        raise ConfigError(f"--out {args.out} cannot be written: {error.strerror}.") from error
    print(_summary(result, args.out, stats))
    return 0


def _require_consistent(args: argparse.Namespace) -> None:
    if args.rules and args.label_by != "rules":
        raise ConfigError(f"--rules goes with --label-by rules, not with --label-by {args.label_by}.")
    if args.out.suffix.lower() != ".csv":
        raise ConfigError(f"--out is {args.out}; the manifest is a CSV file, so its name must end in .csv.")
    if args.out.is_dir():
        raise ConfigError(f"--out is {args.out}, which is a folder; name a file in it.")


def _chosen(args: argparse.Namespace) -> dict[str, Any]:
    """The options that differ from their defaults: what was typed, over what the preset says."""
    preset = MACHINE_OPTIONS if args.preset == "machine" else {}
    names = ("max_per_class", "min_per_class", "min_bytes", "max_bytes", "min_confidence", "text_only")
    typed = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    added = {name: (*preset.get(name, ()), *getattr(args, name)) for name in ("exclude", "leave_out")}
    return {**preset, **typed, **added, "label_by": args.label_by, "seed": args.seed}


@contextlib.contextmanager
def _progress() -> Iterator[Tick]:
    """A counter on a terminal's stderr; elsewhere nothing."""
    if not sys.stderr.isatty():
        yield lambda stage: None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description} {task.completed:,.0f} files"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        tasks = {stage: progress.add_task(stage, total=None) for stage in ("found", "read")}
        yield lambda stage: progress.advance(tasks[stage])


def _summary(result: ScanResult, out: Path, stats: Path) -> str:
    counts = result.label_counts
    lines = [f"{len(result.files):,} files in {len(counts)} classes", ""]
    lines += _table(counts)
    if result.dropped_classes:
        lines += ["", f"classes with fewer than {result.options.min_per_class} files, left out:"]
        lines += _table(result.dropped_classes)
    if result.passed_over:
        lines += ["", "passed over:", *_table({_words(why): count for why, count in result.passed_over.items()})]
    lines += ["", f"manifest:   {out}", f"statistics: {stats}", ""]
    if len(counts) == 1:
        lines.append("A classifier needs two classes or more; this manifest has one.")
    lines.append(f"next: python train.py data=ifmos {_override('data.manifest', str(out))}")
    return "\n".join(lines)


def _override(key: str, value: str) -> str:
    """A Hydra override as a shell takes it; Hydra wants quotes of its own around anything but plain letters."""
    is_plain = re.fullmatch(r"[A-Za-z0-9_ ./:+%@-]+", value)
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return shlex.quote(f"{key}={value}" if is_plain else f"{key}='{escaped}'")


def _table(counts: dict[str, int]) -> list[str]:
    """Aligned lines, the largest count first."""
    shown = [(name if name.isprintable() else ascii(name), count) for name, count in counts.items()]
    width = max(len(name) for name, _ in shown)
    return [f"  {name:<{width}}  {count:>9,}" for name, count in sorted(shown, key=lambda one: (-one[1], one[0]))]


def _words(reason: str) -> str:
    return reason.replace("_", " ")
