"""Score a run again: the exported model labels the files, and what it says is compared with what is true.

Without options the run's test documents are judged, from their files; with --manifest new labelled ones. Written are
scores with 95 % intervals, calibration, thresholds, scores by slice and the worst mistakes, as evaluation_report.json,
evaluation_summary.csv, pictures and index.html. Files that cannot be judged are counted and listed.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from doctune.cli.columns import add_column_arguments, columns_of, named_columns
from doctune.errors import ArtifactError, ConfigError

if TYPE_CHECKING:
    from doctune.inference.engine import Engine

EXAMPLE = "doctune evaluate outputs/2026-01-31/12-00-00 --manifest new_letters.csv --precision 0.95"
_PARTS = ("val", "test")
_FOLDER = "evaluation"
_TASKS = ("classification", "hierarchical_classification", "question_answering")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `doctune evaluate`."""
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="a finished run's folder, or its model/ folder")
    judged = parser.add_mutually_exclusive_group()
    judged.add_argument("--split", choices=_PARTS, default="test", help="a part of the run (default: test)")
    judged.add_argument(
        "--manifest",
        type=Path,
        metavar="FILE",
        help="new labelled data: CSV, TSV, JSON lines or Parquet with path and label, or a folder with a folder per "
        "class; for a reader a SQuAD file",
    )
    add_column_arguments(parser)
    add("--out", type=Path, metavar="DIR", help=f"where to write (default: RUN/{_FOLDER}/NAME)")
    add(
        "--precision",
        type=float,
        default=0.95,
        metavar="P",
        help="the share that must be right among what a threshold accepts, above 0 to 1 (default: 0.95)",
    )
    add("--backend", choices=("int8", "onnx", "torch"), help="what computes (default: the first that is exported)")


def run(args: argparse.Namespace) -> int:
    """Judge, write, print."""
    if not 0 < args.precision <= 1:
        raise ConfigError(f"--precision is {args.precision:g}; a share is above 0 and at most 1, such as 0.95.")
    _require_libraries()
    _require_task(args.run)
    from doctune.inference.engine import load

    engine = load(args.run, backend=args.backend)
    run = _run_of(engine.artifact.folder)
    if run is None and args.manifest is None:
        raise ConfigError(
            f"{args.run} is a model folder without its run, so it has no documents of its own. Give labelled ones with "
            "--manifest FILE."
        )
    folder = args.out or _folder(run, args)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--out {folder} is a file; name a folder to write into.")
    answers = engine.artifact.task == "question_answering"
    if (answers or args.manifest is None) and (named := named_columns(args)):
        raise ConfigError(f"{named[0]} is for a classifier's --manifest FILE: leave it out, or give such a file.")
    summary = (_answers if answers else _labels)(engine, run, args, folder)
    print(summary, end="")
    print(f"\nwrote {folder}: index.html is the report to look at")
    return 0


def _labels(engine: Engine, run: Path | None, args: argparse.Namespace, folder: Path) -> str:
    """Evaluate a classifier; the summary."""
    from doctune.reports.evaluation import choose, write_evaluation
    from doctune.reports.evaluation_source import evaluate_manifest, evaluate_part

    if args.manifest is None:
        assert run is not None, "has been checked"
        found = evaluate_part(engine, run, args.split)
    else:
        found = evaluate_manifest(engine, run, args.manifest, columns_of(args))
    name = _name(run or engine.artifact.folder)
    return write_evaluation(found, choose(engine.artifact, run), engine.artifact, name, args.precision, folder)


def _answers(engine: Engine, run: Path | None, args: argparse.Namespace, folder: Path) -> str:
    """Evaluate a reader; the summary."""
    from doctune.reports.evaluation_answers import ask_file, ask_part, stored_answers, write_evaluation
    from doctune.reports.reader_records import read_version

    if args.manifest is None:
        assert run is not None, "has been checked"
        found = ask_part(engine, run, args.split)
    else:
        found = ask_file(engine, args.manifest)
    validation = None if run is None else stored_answers(run, "val", read_version(run))
    return write_evaluation(found, validation, _name(run or engine.artifact.folder), args.precision, folder)


def _run_of(model: Path) -> Path | None:
    """The run folder around a model folder; None where the model stands alone."""
    above = model.resolve().parent
    return above if (above / "predictions").is_dir() else None


def _folder(run: Path | None, args: argparse.Namespace) -> Path:
    from doctune.reports.evaluation_source import manifest_name

    name = args.split if args.manifest is None else manifest_name(args.manifest)
    if run is None:
        raise ConfigError(f"{args.run} is a model folder without its run: say where to write with --out DIR.")
    return run / _FOLDER / name


def _name(folder: Path) -> str:
    """The last three parts of a path, as reports name runs."""
    return "/".join(folder.resolve().parts[-3:])


def _require_task(run: Path) -> None:
    from doctune.inference.artifact import load_artifact

    task = load_artifact(run).task
    if task not in _TASKS:
        raise ArtifactError(
            f"{run} was trained for {task}; `doctune evaluate` scores classifiers, of data=ifmos and data=chunks, and "
            "readers, of data=squad."
        )


def _require_libraries() -> None:
    """What the base install lacks; none of it trains."""
    import importlib.util

    missing = [
        name for name in ("matplotlib", "pyarrow", "filelock", "datasketch") if not importlib.util.find_spec(name)
    ]
    if missing:
        raise ConfigError(f"doctune evaluate needs {' and '.join(missing)}: pip install 'doctune[evaluate]'.")
