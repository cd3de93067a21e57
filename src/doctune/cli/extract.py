"""Extract the text of files and folders into a JSON Lines file, one row per file.

Each row has path, status, reason, format, chars and text. Damaged, encrypted or hostile files are rows like others:
their status and reason say what happened. Files are parsed in worker processes with a time and a memory limit.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

from doctune.documents import Document
from doctune.errors import ConfigError, DataError
from doctune.files import written_whole
from doctune.text.progress import shown_pace
from doctune.text.sandbox import Limits, extract_files
from doctune.text.settings import PDF_BACKENDS, ExtractSettings
from doctune.text.walk import walk_files

EXAMPLE = "doctune extract invoices/ report.pdf --max-chars 6000 --out texts.jsonl"
ALL = "all"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    settings, limits = ExtractSettings(), Limits()
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="a file, or a folder to read recursively")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE.jsonl", help="the file to write")
    parser.add_argument(
        "--max-chars",
        type=_max_chars,
        default=settings.max_chars,
        metavar="N",
        help=f"characters to keep of each file, or `{ALL}` (default: {settings.max_chars})",
    )
    parser.add_argument("--workers", type=int, metavar="N", help="worker processes at most (default: all cores)")
    parser.add_argument(
        "--timeout",
        type=float,
        default=limits.timeout_s,
        metavar="S",
        help="seconds for one file (default: %(default)g)",
    )
    parser.add_argument(
        "--memory-mb",
        type=int,
        default=limits.memory_mb,
        metavar="MB",
        help="memory of a worker (default: %(default)s)",
    )
    parser.add_argument(
        "--pdf-backend", choices=PDF_BACKENDS, default=settings.pdf_backend, help="default: %(default)s"
    )
    parser.add_argument(
        "--scrub", action="store_true", help="replace e-mail addresses, phone numbers, IBANs, ... by marks"
    )


def run(args: argparse.Namespace) -> int:
    """Extract everything; damaged files do not make it fail."""
    settings = ExtractSettings(max_chars=args.max_chars, pdf_backend=args.pdf_backend, scrub=args.scrub)
    limits = Limits(timeout_s=args.timeout, memory_mb=args.memory_mb)
    if args.out.suffix not in ("", ".jsonl", ".ndjson"):
        raise ConfigError(f"--out {args.out}: JSON lines are written, one row per file; name it FILE.jsonl.")
    if args.out.is_dir():
        raise DataError(f"--out {args.out} is a folder; name the file to write, such as {args.out / 'texts.jsonl'}.")
    paths = list(walk_files(args.paths))
    counts: Counter[str] = Counter()
    with written_whole(args.out) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for document in shown_pace(extract_files(paths, settings, limits, args.workers), len(paths), sys.stderr):
            file.write(row(document) + "\n")
            counts[document.status] += 1
    print(f"{summary(counts)}\nwrote {args.out}")
    return 0


def row(document: Document) -> str:
    """The document as a line of JSON; a path that is no valid unicode keeps its bytes as escapes."""
    record = {
        "path": document.path,
        "status": document.status,
        "reason": document.reason,
        "format": document.format,
        "chars": len(document.text),
        "text": document.text,
    }
    line = json.dumps(record, ensure_ascii=False)
    return line if _is_encodable(line) else json.dumps(record)


def summary(counts: Counter[str]) -> str:
    """The totals in one line, the most frequent status first: `190 files: 118 ok, 24 empty`."""
    totals = ", ".join(f"{count:,} {status}" for status, count in counts.most_common())
    return f"{sum(counts.values()):,} files" + (f": {totals}" if totals else "")


def _max_chars(text: str) -> int | None:
    if text == ALL:
        return None
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of characters nor `{ALL}`") from None


def _is_encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
