"""The data part of a configuration -> a prepared corpus. Imports no torch, so that `doctune prepare` starts at once."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from doctune import __version__
from doctune.corpus.audit import audit_corpus
from doctune.corpus.division import SplitSettings
from doctune.corpus.file_corpus import Corpus
from doctune.corpus.findings.lengths import AuditSettings
from doctune.corpus.manifest import Manifest
from doctune.corpus.manifest_tables import ManifestColumns
from doctune.corpus.prepare import PrepareSettings, prepare
from doctune.corpus.saved_manifest import saved_manifest
from doctune.corpus.store import TextStore, mark_used
from doctune.documents import Document
from doctune.errors import ConfigError
from doctune.files import write_json
from doctune.text.chunks import ChunkSettings, Keep
from doctune.text.extract import ExtractSettings
from doctune.text.progress import Pace
from doctune.text.sandbox import Limits, extract_files
from doctune.text.windows import chars_for_window
from doctune.training import config as schema

log = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 15.0


def file_content(data: schema.DataConfig) -> schema.FileContentConfig:
    """The data choice as files with labels, read by their beginnings or, with data=chunks, whole."""
    if not isinstance(data, schema.FileContentConfig):
        raise ConfigError(f"data.kind={data.kind} is not a kind of data set that can be trained on.")
    return data


def manifest(data: schema.FileContentConfig) -> Manifest:
    """The rows of the manifest."""
    columns = ManifestColumns(data.path_column, data.label_column, data.confidence_column, data.text_column)
    root = Path(data.root) if data.root else None
    return saved_manifest(Path(data.cache_dir), Path(data.manifest), columns=columns, root=root, query=data.query)


def extract_settings(data: schema.FileContentConfig) -> ExtractSettings:
    """Extraction stops where no window of `max_length` tokens can reach; what is read in chunks is extracted whole."""
    reads_all = isinstance(data, schema.ChunksConfig)
    return ExtractSettings(
        max_chars=None if reads_all else chars_for_window(data.max_length * data.augment.windows_to_read()),
        pdf_backend=data.extract.pdf_backend,
        scrub=data.extract.scrub,
    )


def chunk_settings(data: schema.ChunksConfig) -> ChunkSettings:
    """How texts are cut into chunks."""
    return ChunkSettings(data.max_length, data.chunk_stride, data.max_chunks, cast(Keep, data.keep))


def corpus(
    data: schema.FileContentConfig,
    split: schema.SplitConfig,
    rows: Manifest,
    engine: schema.PrepareConfig | None = None,
) -> Corpus:
    """Texts, groups and parts of the manifest's files, which the engine reads, by default this machine."""
    settings = extract_settings(data)
    limits = Limits(timeout_s=data.extract.timeout_s, memory_mb=data.extract.memory_mb)

    def extract(paths: Sequence[Path]) -> Iterator[Document]:
        log.info("Reading %d new files.", len(paths))
        if engine is not None and engine.engine == "ray":
            from doctune.text.cluster import extract_on_ray

            return _with_progress(extract_on_ray(paths, settings, limits, address=engine.ray_address), len(paths))
        return _with_progress(extract_files(paths, settings, limits, data.extract.workers), len(paths))

    how = PrepareSettings(
        data.min_confidence, data.max_unusable, data.duplicate_threshold, split_settings(split), data.max_documents
    )
    return prepare(rows, TextStore(Path(data.cache_dir), settings.key()), extract, how)


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


def audit(data: schema.FileContentConfig, found: Corpus) -> dict[str, Any]:
    """The findings about a corpus, as `doctune audit` has them; from the cache where nothing has changed."""
    settings = AuditSettings(_tokens_read(data), max_chars=extract_settings(data).max_chars)
    key = hashlib.sha256(repr([__version__, settings, str(found.source), found.key]).encode()).hexdigest()[:16]
    folder = Path(data.cache_dir) / "audits" / key
    file = folder / "audit.json"
    if not file.exists():
        documents, left_out = [*found.documents], [*found.left_out()]  # they are looked at again and again
        texts = found.texts(documents)
        findings = audit_corpus(
            documents, texts, found.groups(), source=str(found.source), left_out=left_out, settings=settings
        )
        write_json(file, {k: v for k, v in findings.to_dict().items() if k not in ("rows", "documents")})
    mark_used(folder)
    report: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return report


def _tokens_read(data: schema.FileContentConfig) -> int:
    """Tokens of a document that the model reads at most."""
    if isinstance(data, schema.ChunksConfig):
        return data.max_length + (data.max_chunks - 1) * (data.max_length - 2 - data.chunk_stride)
    return data.max_length


def say_findings(report: dict[str, Any]) -> list[str]:
    """Log what spoils scores or wants a decision; the sentences."""
    sentences = [found["message"] for found in report["findings"] if found["severity"] in ("error", "warning")]
    for sentence in sentences:
        log.warning("%s", sentence)
    return sentences
