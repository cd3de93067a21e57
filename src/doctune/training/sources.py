"""The data part of a configuration -> a prepared corpus. Imports no torch, so that `doctune prepare` starts at once."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from doctune.corpus.division import SplitSettings
from doctune.corpus.manifest import Manifest, ManifestColumns, read_manifest
from doctune.corpus.prepare import Corpus, prepare
from doctune.corpus.store import TextStore
from doctune.documents import Document
from doctune.errors import ConfigError
from doctune.text.extract import ExtractSettings
from doctune.text.progress import Pace
from doctune.text.sandbox import Limits, extract_files
from doctune.training import config as schema

log = logging.getLogger(__name__)

# 4,000 characters fill 510 tokens in 99 to 100 of 100 long files of every kind, so 8 per token are enough to read.
_CHARS_PER_TOKEN = 8
_MIN_CHARS = 1024
_SECONDS_BETWEEN_LINES = 15.0


def file_content(data: schema.DataConfig) -> schema.FileContentConfig:
    """The data choice as the one kind there is so far."""
    if not isinstance(data, schema.FileContentConfig):
        raise ConfigError(f"data.kind={data.kind} is not a kind of data set that can be trained on.")
    return data


def manifest(data: schema.FileContentConfig) -> Manifest:
    """The rows of the manifest."""
    columns = ManifestColumns(data.path_column, data.label_column, data.confidence_column)
    root = Path(data.root) if data.root else None
    return read_manifest(Path(data.manifest), columns=columns, root=root, query=data.query)


def extract_settings(data: schema.FileContentConfig) -> ExtractSettings:
    """Extraction stops where no window of `max_length` tokens can reach."""
    return ExtractSettings(
        max_chars=max(_MIN_CHARS, _CHARS_PER_TOKEN * data.max_length),
        pdf_backend=data.extract.pdf_backend,
        scrub=data.extract.scrub,
    )


def corpus(data: schema.FileContentConfig, split: schema.SplitConfig, rows: Manifest) -> Corpus:
    """Texts, groups and parts of the manifest's files."""
    settings = extract_settings(data)
    limits = Limits(timeout_s=data.extract.timeout_s, memory_mb=data.extract.memory_mb)

    def extract(paths: Sequence[Path]) -> Iterator[Document]:
        log.info("Reading %d new files.", len(paths))
        return _with_progress(extract_files(paths, settings, limits, data.extract.workers), len(paths))

    return prepare(
        rows,
        TextStore(Path(data.cache_dir), settings.key()),
        extract,
        min_confidence=data.min_confidence,
        max_unusable=data.max_unusable,
        duplicate_threshold=data.duplicate_threshold,
        split=split_settings(split),
    )


def _with_progress(documents: Iterable[Document], total: int) -> Iterator[Document]:
    """The documents as they come, with a line in the log now and then."""
    pace = Pace(total)
    said = time.monotonic()
    for document in documents:
        yield document
        pace.advance()
        if time.monotonic() - said > _SECONDS_BETWEEN_LINES:
            said = time.monotonic()
            log.info("Reading: %s.", pace.line())


def split_settings(split: schema.SplitConfig) -> SplitSettings:
    """How documents are divided."""
    return SplitSettings(
        val=split.val,
        test=split.test,
        seed=split.seed,
        small_classes=split.small_classes,
        num_folds=split.folds,
        fold=split.fold,
        file=Path(split.file) if split.file else None,
    )
