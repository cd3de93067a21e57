"""Label files, the files of folders, or a text on standard input, with the model of a finished run.

One row per file in the order given; folders are walked in name order, links in them are not followed. A file that
cannot be read is a row with a reason. Columns: path, status, label, score (the label's probability), reason; with --top
also label_2, score_2 and so on, with --probabilities one column p_LABEL for each label. Below --threshold no label is
given, and the reason says which one it would have been. A model with several targets has a column for each, with the
labels that apply and "; " between them. With --cascade, which `doctune cascade-tune` makes, a further
column says which stage answered, and the reason why the earlier ones did not. A run over many files into --out that was
interrupted goes on with --resume.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from doctune.cli.rows import FORMATS, Journal, format_of, journal_path, require_parquet, write_all
from doctune.errors import ConfigError, DataError

if TYPE_CHECKING:
    from doctune.cli.labelled import Labeller
    from doctune.documents import Document

EXAMPLE = "doctune predict outputs/2026-01-31/12-00-00 letters/ report.pdf --out labels.csv"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `doctune predict`."""
    parser.add_argument("run", type=Path, metavar="RUN", help="a finished run's folder, or its model/ folder")
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="files and folders; none: text on stdin")
    parser.add_argument("--format", choices=FORMATS, help="default: what the suffix of --out says, else csv")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write; without it, standard output")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run that had the same --out")
    parser.add_argument("--top", type=int, default=1, metavar="N", help="the N most probable labels (default: 1)")
    parser.add_argument("--probabilities", action="store_true", help="the probability of every label")
    parser.add_argument(
        "--threshold", type=float, default=0.0, metavar="P", help="give no label whose probability is below this"
    )
    parser.add_argument(
        "--cascade",
        nargs="?",
        const=True,
        type=Path,
        metavar="FILE.json",
        help="ask the stages of cascade.json in the model folder, or of another file, one after the other",
    )
    parser.add_argument("--backend", choices=("int8", "onnx", "torch"), help="default: the fastest that is exported")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="texts at once, at most (default: 16)")


def run(args: argparse.Namespace) -> int:
    """Predict and write."""
    file_format = _checked_format(args)
    from doctune.text.walk import walk_files

    labeller = _labeller(args)
    if args.out is None or not args.paths:
        found = _from_files(labeller, walk_files(args.paths)) if args.paths else _from_stdin(labeller)
        count = write_all(labeller.rows(found), args.out, file_format, labeller.columns)
    else:
        # An earlier run's journal may lie in a folder that is predicted.
        own = journal_path(Path(os.path.abspath(args.out)))
        files = [file for file in walk_files(args.paths) if file != own]
        with Journal(args.out, labeller.description, resume=args.resume) as journal:
            _keep_rows(labeller, files, journal)
            count = write_all(journal.rows(files), args.out, file_format, labeller.columns)
    if args.out is not None:
        print(f"doctune: {count} rows written to {args.out}", file=sys.stderr)
    if not count:
        print(f"doctune: there is no file in {', '.join(map(str, args.paths))}.", file=sys.stderr)
    return 0


def _labeller(args: argparse.Namespace) -> Labeller:
    """What gives the labels: the model, or its cascade."""
    from doctune.cli.labelled import CascadeLabeller, ModelLabeller, TargetLabeller, Wanted

    if args.cascade is None:
        from doctune.inference.engine import load

        engine = load(args.run, backend=args.backend, batch_size=args.batch_size)
        if engine.artifact.targets:
            _refuse_ranks(args)
            return TargetLabeller(engine, args.probabilities)
        return ModelLabeller(engine, Wanted(args.top, args.probabilities, args.threshold))
    from doctune.inference.cascade import CASCADE_FILE, classifier_artifact, load_cascade

    artifact = classifier_artifact(args.run)
    file = artifact.folder / CASCADE_FILE if args.cascade is True else args.cascade
    cascade = load_cascade(args.run, file=file, backend=args.backend, batch_size=args.batch_size)
    return CascadeLabeller(cascade, artifact.extract, artifact.folder, file.read_text(encoding="utf-8"))


def _refuse_ranks(args: argparse.Namespace) -> None:
    """Targets have the labels that apply.

    Raises:
        ConfigError: others are asked for.
    """
    if args.top > 1 or args.threshold:
        raise ConfigError(
            f"{args.run} tells several targets, each with thresholds of its own: leave out --top and --threshold."
        )


def _keep_rows(labeller: Labeller, files: Iterable[Path], journal: Journal) -> None:
    """Label the files of which the journal has no row."""
    from doctune.text.progress import shown_pace

    left = [file for file in files if not journal.has(file)]
    for row in shown_pace(labeller.rows(_from_files(labeller, left)), len(left), sys.stderr):
        journal.add(row)


def _checked_format(args: argparse.Namespace) -> str:
    """The format, if the arguments make sense.

    Raises:
        ConfigError: they contradict each other.
        DataError: a path does not exist.
    """
    file_format: str = args.format or format_of(args.out, FORMATS, "csv")
    if file_format == "parquet" and args.out is None:
        raise ConfigError("--format parquet is binary: give it a file with --out FILE.parquet.")
    if file_format == "parquet":
        require_parquet()
    if args.out is not None and os.path.lexists(args.out) and not args.out.is_file():
        raise ConfigError(f"--out {args.out} is no regular file: name the file to write.")
    if args.resume and args.out is None:
        raise ConfigError("--resume goes on with a file: name it with --out FILE, as in the run that was interrupted.")
    if args.resume and not args.paths:
        raise ConfigError("--resume goes on with files; a text on standard input is one row. Leave it out.")
    if args.top < 1:
        raise ConfigError(f"--top is {args.top}; ask for at least 1 label.")
    if not 0 <= args.threshold <= 1:
        raise ConfigError(f"--threshold is {args.threshold:g}; a probability is from 0 to 1.")
    if args.batch_size < 1:
        raise ConfigError(f"--batch-size is {args.batch_size}; at least 1 text is computed at once.")
    if args.cascade is not None and (args.top > 1 or args.probabilities or args.threshold):
        raise ConfigError(
            "--cascade has thresholds of its own and one label: leave out --top, --probabilities, --threshold."
        )
    for path in args.paths:
        if not os.path.lexists(path):
            raise DataError(f"{path}: there is no such file or folder.")
    return file_format


def _from_stdin(labeller: Labeller) -> Iterator[Document]:
    from doctune.text.extract import extract

    yield extract(sys.stdin.buffer.read(), labeller.extract, name="-")


def _from_files(labeller: Labeller, files: Iterable[Path]) -> Iterator[Document]:
    """A file that is gone when its turn comes is a row like any other that cannot be read."""
    from doctune.text.sandbox import extract_files

    return extract_files(files, labeller.extract)
