"""Label files, the files of folders, or a text on standard input, with the model of a finished run.

One row per file in the order given; folders are walked in name order, links in them are not followed. A file that
cannot be read is a row with a reason. Columns: path, status, label, score (the label's probability), reason.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from doctune.documents import Document
from doctune.errors import ConfigError, DataError
from doctune.files import written_whole

if TYPE_CHECKING:
    from doctune.inference.predictor import Predictor

EXAMPLE = "doctune predict outputs/2026-01-31/12-00-00 letters/ report.pdf --out labels.csv"
FORMATS = ("csv", "jsonl", "parquet")
COLUMNS = ("path", "status", "label", "score", "reason")
_FILES_AT_ONCE = 256


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `doctune predict`."""
    parser.add_argument("run", type=Path, metavar="RUN", help="a finished run's folder, or its model/ folder")
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="files and folders; none: text on stdin")
    parser.add_argument("--format", choices=FORMATS, help="default: what the suffix of --out says, else csv")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write; without it, standard output")


def run(args: argparse.Namespace) -> int:
    """Predict and write."""
    suffix = args.out.suffix.removeprefix(".") if args.out else ""
    file_format = args.format or (suffix if suffix in FORMATS else "csv")
    if file_format == "parquet" and args.out is None:
        raise ConfigError("--format parquet is binary: give it a file with --out FILE.parquet.")
    for path in args.paths:
        if not os.path.lexists(path):
            raise DataError(f"{path}: there is no such file or folder.")
    from doctune.inference.predictor import load

    predictor = load(args.run)
    documents = _documents(args.paths, predictor) if args.paths else iter([_from_stdin(predictor)])
    rows = _label(predictor, documents)
    if args.out is None:
        _write(rows, sys.stdout, file_format)
        return 0
    count = _write_file(rows, args.out, file_format)
    print(f"doctune: {count} rows written to {args.out}", file=sys.stderr)
    return 0


def _documents(paths: Iterable[Path], predictor: Predictor) -> Iterator[Document]:
    from doctune.text.sandbox import extract_files
    from doctune.text.walk import walk_files

    return extract_files(walk_files(paths), predictor.artifact.extract)


def _from_stdin(predictor: Predictor) -> Document:
    from doctune.text.extract import extract

    return extract(sys.stdin.buffer.read(), predictor.artifact.extract, name="-")


def _label(predictor: Predictor, documents: Iterable[Document]) -> Iterator[dict[str, Any]]:
    """A row per document, in order; a bounded number of documents is held at a time."""
    iterator = iter(documents)
    while chunk := list(islice(iterator, _FILES_AT_ONCE)):
        predictions = predictor.predict([document.text for document in chunk if document.status == "ok"])
        for document in chunk:
            found = next(predictions) if document.status == "ok" else None
            yield {
                "path": document.path,
                "status": document.status,
                "label": found.label if found else None,
                "score": round(found.score, 6) if found else None,
                "reason": document.reason,
            }


def _write_file(rows: Iterator[dict[str, Any]], path: Path, file_format: str) -> int:
    if file_format == "parquet":
        return _write_parquet(rows, path)
    with written_whole(path) as temporary, _text_file(temporary) as stream:
        return _write(rows, stream, file_format)


@contextmanager
def _text_file(path: Path) -> Iterator[TextIO]:
    # Names of files need not be valid UTF-8; they are written as the bytes they are.
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        yield stream


def _write(rows: Iterator[dict[str, Any]], stream: TextIO, file_format: str) -> int:
    written = 0
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    if file_format == "csv":
        writer.writeheader()
    for written, row in enumerate(rows, start=1):  # noqa: B007  (returned below)
        if file_format == "csv":
            writer.writerow(row)
        else:
            stream.write(json.dumps(row) + "\n")
    return written


def _write_parquet(rows: Iterator[dict[str, Any]], path: Path) -> int:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError as error:
        raise ConfigError("--format parquet needs pyarrow: pip install pyarrow.") from error
    types = {name: pa.float64() if name == "score" else pa.string() for name in COLUMNS}
    table = pa.Table.from_pylist(list(rows), schema=pa.schema(types.items()))
    with written_whole(path) as temporary:
        pq.write_table(table, temporary)
    return int(table.num_rows)
