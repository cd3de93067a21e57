"""`doctune prepare`: extract, store and split the data of a configuration without training."""

from __future__ import annotations

import logging
from pathlib import Path

from doctune.corpus.prepare import describe_account
from doctune.corpus.store import prune
from doctune.training import sources
from doctune.training.config import Config

log = logging.getLogger(__name__)


def prepare(config: Config, run: Path) -> None:
    """Fill the text store and write `data/` into the folder `run`; its splits.parquet can be given as `split.file`.

    Raises:
        DataError: the data cannot be used.
    """
    data = sources.file_content(config.data)
    if data.prune_unused_days is not None:
        gone = prune(Path(data.cache_dir), data.prune_unused_days)
        log.info("Cache entries unused for %g days: %d removed.", data.prune_unused_days, len(gone))
    corpus = sources.corpus(data, config.split, sources.manifest(data))
    report = sources.audit(data, corpus)
    corpus.write(run / "data", report)
    sources.say_findings(report)
    log.info("Documents: %s.", describe_account(corpus))
    log.info("Texts are in %s, the account and the split in %s.", corpus.store.folder, run / "data")
