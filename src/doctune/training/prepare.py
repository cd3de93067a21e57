"""`doctune prepare`: extract, store and split the data of a configuration without training."""

from __future__ import annotations

import logging
from pathlib import Path

from doctune.corpus.chunk_tokens import cut_documents, describe_chunks, describe_truncation
from doctune.corpus.file_corpus import Corpus, describe_account
from doctune.corpus.question_lengths import analyse_lengths, describe_lengths
from doctune.corpus.question_tokens import tokenise_questions
from doctune.corpus.store import prune
from doctune.training import questions, sources, targets
from doctune.training.config import ChunksConfig, Config, InstructionsConfig, MultiTaskConfig, SquadConfig

log = logging.getLogger(__name__)


def prepare(config: Config, run: Path) -> None:
    """Fill the caches and write `data/` into the folder `run`; its splits.parquet can be given as `split.file`.

    Raises:
        DoctuneError: the data, or the model whose tokenizer cuts it, cannot be used.
    """
    data = config.data
    if data.prune_unused_days is not None:
        gone = prune(Path(data.cache_dir), data.prune_unused_days)
        log.info("Cache entries unused for %g days: %d removed.", data.prune_unused_days, len(gone))
    if isinstance(data, SquadConfig):
        _prepare_questions(config, data, run)
    elif isinstance(data, MultiTaskConfig):
        _prepare_targets(config, data, run)
    elif isinstance(data, InstructionsConfig):
        _prepare_instructions(config, run)
    else:
        _prepare_files(config, run)


def _prepare_files(config: Config, run: Path) -> None:
    data = sources.file_content(config.data)
    corpus = sources.corpus(data, config.split, sources.manifest(data), config.prepare)
    report = sources.audit(data, corpus)
    corpus.write(run / "data", report)
    sources.say_findings(report)
    log.info("Documents: %s.", describe_account(corpus))
    log.info("Texts are in %s, the account and the split in %s.", corpus.store.folder, run / "data")
    if isinstance(data, ChunksConfig):
        _cut(config, data, corpus)


def _cut(config: Config, data: ChunksConfig, corpus: Corpus) -> None:
    from doctune.training.tasks.classification import encoder  # the tokenizer wants torch

    contents, texts = corpus.documents.values("content"), corpus.texts(corpus.documents)
    source, settings = encoder(config, corpus), sources.chunk_settings(data)
    tokens = cut_documents(Path(data.cache_dir), source.backend, settings, corpus.store.folder.name, contents, texts)
    log.info("Chunks: %s They are in %s.", describe_chunks(tokens), tokens.folder)
    if longer := describe_truncation(tokens, settings):
        log.info("%s", longer)


def _prepare_questions(config: Config, data: SquadConfig, run: Path) -> None:
    from doctune.training.tasks.squad import encoder  # the tokenizer wants torch

    corpus = questions.corpus(data, config.split)
    corpus.write(run / "data")
    source = encoder(config, corpus)
    settings = questions.window_settings(data, question_first=not source.pads_left)
    for part in ("train", "val", "test"):
        asked = corpus.part(part)
        tokens = tokenise_questions(Path(data.cache_dir), source.backend, settings, asked)
        lengths = analyse_lengths(source.backend, asked, tokens, settings)
        log.info("%s, %d questions. %s", part, len(asked), describe_lengths(lengths, settings))
    log.info("Windows are in %s, the account and the split in %s.", tokens.folder.parent, run / "data")


def _prepare_targets(config: Config, data: MultiTaskConfig, run: Path) -> None:
    corpus = targets.corpus(data, config.split)
    corpus.write(run / "data")
    log.info("The account and the split are in %s.", run / "data")


def _prepare_instructions(config: Config, run: Path) -> None:
    from doctune.training.tasks.instructions import read_corpus  # the tokenizer wants torch

    _, corpus = read_corpus(config)
    corpus.write(run / "data")
    log.info("Tokens are in %s, the account and the split in %s.", corpus.tokens.folder, run / "data")
