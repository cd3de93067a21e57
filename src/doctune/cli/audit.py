"""Look for what in labelled files would mislead a model or flatter its scores, before anything is trained.

Finds exact and near duplicates, the same content under two labels, leaks between the parts of given splits, empty and
tiny classes, damaged files, documents that the model's window cuts, and words, paths and headers that give a label
away. Files are read as training reads them, and what was read is kept in the same cache.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from doctune.cli.columns import add_column_arguments, columns_of
from doctune.errors import ConfigError, DataError

if TYPE_CHECKING:
    from doctune.corpus.audit import Audit
    from doctune.corpus.findings.lengths import TokenCounter
    from doctune.corpus.findings.record import SplitRow
    from doctune.corpus.manifest import Manifest
    from doctune.documents import Document
    from doctune.text.settings import ExtractSettings

EXAMPLE = "doctune audit .ifmos/training_data.csv --strict --html audit.html"
_SPLIT_COLUMNS = ("id", "path", "label", "part")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `doctune audit`."""
    add = parser.add_argument
    add("manifest", type=Path, metavar="MANIFEST", help="a manifest as for training, or a folder with one per class")
    add("--strict", action="store_true", help="exit 1 if there is any error or warning")
    add("--json", type=Path, metavar="FILE", help="write the findings for scripts")
    add("--html", type=Path, metavar="FILE", help="write the findings as a page that needs nothing else")
    add("--max-length", type=int, default=512, metavar="N", help="tokens of the model's window (default 512)")
    add("--tokenizer", type=Path, metavar="FILE", help="a tokenizer.json to count with (default: an estimate)")
    add("--threshold", type=float, default=0.8, metavar="X", help="similarity of near-duplicates (default 0.8)")
    add("--splits", type=Path, metavar="FILE", help="a run's splits.parquet, to be checked against these files")
    add("--min-confidence", type=float, default=0.0, metavar="X", help="leave out rows below it (default 0)")
    add("--max-chars", type=int, metavar="N", help="characters to read of each file (default: 8 per token)")
    add("--cache", type=Path, default=Path(".doctune"), metavar="DIR", help="where texts are kept (default .doctune)")
    add("--root", type=Path, metavar="DIR", help="what relative paths are relative to (default: the manifest's folder)")
    add("--query", metavar="SQL", help="one SELECT; an SQLite manifest needs it")
    add_column_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Read, audit, write, print."""
    from doctune.reports.audit import page, summarize

    _require_sound(args)
    audit = _audit(args)
    report = audit.to_dict()
    print(summarize(report), end="")
    if args.json:
        _write("--json", args.json, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    if args.html:
        _write("--html", args.html, page(report))
    return 1 if args.strict and audit.count("error") + audit.count("warning") else 0


def _require_sound(args: argparse.Namespace) -> None:
    """Refuse what cannot work before any file is read."""
    from doctune.corpus.duplicates import MIN_THRESHOLD

    for name in ("max_length", "max_chars"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name.replace('_', '-')} is {value}; use a number from 1.")
    if not 0 <= args.min_confidence <= 1:
        raise ConfigError(f"--min-confidence is {args.min_confidence}; use a number from 0 to 1.")
    if not MIN_THRESHOLD <= args.threshold <= 1:
        raise ConfigError(f"--threshold is {args.threshold}; use a number from {MIN_THRESHOLD} to 1 (exact copies).")
    for name in ("json", "html"):
        path = getattr(args, name)
        if path is not None and path.is_dir():
            raise ConfigError(f"--{name} {path} is a folder; name a file in it, such as {path / f'audit.{name}'}.")


def _write(option: str, path: Path, text: str) -> None:
    from doctune.files import write_text

    try:
        write_text(path, text)
    except OSError as error:
        raise ConfigError(f"{option} {path} cannot be written: {error.strerror}.") from error
    print(f"wrote {path}")


def _audit(args: argparse.Namespace) -> Audit:
    from doctune.corpus.audit import audit_corpus
    from doctune.corpus.findings.lengths import AuditSettings
    from doctune.corpus.prepare import group_documents, read_documents
    from doctune.corpus.store import TextStore
    from doctune.text.settings import ExtractSettings
    from doctune.text.windows import chars_for_window

    counter, special_tokens = _token_counter(args.tokenizer)
    splits = _read_splits(args.splits) if args.splits else []
    settings = ExtractSettings(max_chars=args.max_chars or chars_for_window(args.max_length))
    store = TextStore(args.cache, settings.key())
    read = read_documents(
        _read(args), store, lambda paths: _extract(paths, settings), args.min_confidence, on_wait=_say_waiting
    )
    documents, groups = group_documents(read.documents, store, args.threshold)
    return audit_corpus(
        documents,
        store.texts([document.content for document in documents]),
        groups,
        source=str(args.manifest),
        left_out=read.left_out,
        splits=splits,
        labels=_class_folders(args.manifest),
        settings=AuditSettings(args.max_length, special_tokens, settings.max_chars),
        counter=counter,
    )


def _read(args: argparse.Namespace) -> Manifest:
    from doctune.corpus.manifest import read_manifest

    texts = args.cache / "rows"
    return read_manifest(
        args.manifest, columns=columns_of(args), root=args.root, query=args.query, min_classes=1, texts=texts
    )


def _extract(paths: Sequence[Path], settings: ExtractSettings) -> Iterator[Document]:
    from doctune.text.sandbox import extract_files

    print(f"doctune: reading {len(paths):,} new files …", file=sys.stderr)
    return extract_files(paths, settings)


def _say_waiting() -> None:
    print("doctune: another process is filling the text store: waiting for it to finish …", file=sys.stderr)


def _class_folders(source: Path) -> list[str]:
    """The classes that a folder names, those without files among them."""
    if not source.is_dir():
        return []
    with os.scandir(source) as found:
        folders = [entry.name for entry in found if entry.is_dir(follow_symlinks=False)]
    return sorted(name for name in folders if not name.startswith("."))


def _token_counter(path: Path | None) -> tuple[TokenCounter, int]:
    """How tokens are counted, and how many special ones the model adds."""
    from doctune.corpus.findings.lengths import ESTIMATE, AuditSettings, TokenCounter

    if path is None:
        return ESTIMATE, AuditSettings.special_tokens
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise ConfigError(f"--tokenizer {path} cannot be read as a tokenizer.json: {error}.") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def count(texts: Sequence[str]) -> list[int]:
        return [len(found.ids) for found in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    return TokenCounter(f"the tokenizer {path}", count), tokenizer.num_special_tokens_to_add(is_pair=False)


def _read_splits(path: Path) -> list[SplitRow]:
    import pyarrow
    import pyarrow.parquet

    from doctune.corpus.findings.record import SplitRow

    if not path.is_file():
        raise DataError(f"--splits {path}: there is no such file; a run writes one to data/splits.parquet.")
    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"--splits {path} cannot be read as Parquet: {error}") from error
    missing = [name for name in _SPLIT_COLUMNS if name not in table.column_names]
    if missing:
        raise DataError(f"--splits {path} has no column {missing[0]!r}; it has: {', '.join(table.column_names)}.")
    wanted = [name for name in (*_SPLIT_COLUMNS, "fold") if name in table.column_names]
    return [SplitRow(**row) for row in table.select(wanted).to_pylist()]
