"""Long documents, one label each: read whole, in chunks."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from lightning import Callback
from numpy.typing import NDArray

from doctune.corpus.baselines import add_baselines, judge_baselines
from doctune.corpus.chunk_tokens import DocumentChunks, describe_chunks, describe_truncation
from doctune.errors import ConfigError
from doctune.inference.artifact import Artifact
from doctune.nets.hierarchy import HierarchySettings, hierarchical_classifier
from doctune.training import build, first_chunk, sources
from doctune.training import config as schema
from doctune.training.callbacks.attention import AttentionWriter
from doctune.training.data.chunks import ChunkDataModule
from doctune.training.data.file_content import Facts
from doctune.training.features import encoder_outputs
from doctune.training.forest import grow_forest
from doctune.training.modules.hierarchical import HierarchicalModule
from doctune.training.record import RunRecord
from doctune.training.tasks.classification import (
    FileContent,
    document_loss,
    f1_weights,
    fitted_temperature,
    prepare_documents,
)
from doctune.training.tasks.task import save_encoder

log = logging.getLogger(__name__)

JUDGED = ("val", "test")
# What a dropout of None means: the encoders' own heads have between 0.1 and 0.2.
HEAD_DROPOUT = 0.1

Vectors = Mapping[str, NDArray[np.float32]]


class LongDocuments(FileContent):
    """Classify files by all of their content.

    In the run's files the task has the name of its relative, whose reports it has.
    """

    _judged_chunks: Mapping[str, DocumentChunks]

    def judge_baselines(self, run: Path) -> None:
        """The majority class, and TF-IDF with a linear SVM over the whole text."""
        judge_baselines(self.corpus, run, max_chars=None)

    def datamodule(  # type: ignore[override]  # another datamodule than its relative's
        self, config: schema.Config, first_chunks: int | None = None
    ) -> ChunkDataModule:
        """Batches of chunks, or of the first ones only."""
        data = chunks(config.data)
        return ChunkDataModule(
            self.corpus,
            self.source.backend,
            pad_id=int(self.source.tokenizer.pad_token_id),
            cache=Path(data.cache_dir),
            settings=sources.chunk_settings(data),
            chunks_per_pass=data.chunks_per_pass,
            plan=build.batch_plan(config.trainer),
            seed=config.seed,
            sampling=(data.sampling.method, data.sampling.strength),
            views=build.random_views(data.augment, self.source),
            first_chunks=first_chunks,
            num_workers=build.num_workers(data),
        )

    def facts(self, datamodule: Any) -> Facts:
        """Labels and counts."""
        found: Facts = datamodule.facts()
        return found

    def module(  # type: ignore[override]
        self, config: schema.Config, datamodule: ChunkDataModule, precision: str, max_chunks: int | None = None
    ) -> HierarchicalModule:
        """The classifier of documents of at most `max_chunks`; None: as many as the data has."""
        data, facts = chunks(config.data), datamodule.facts()
        net = hierarchical_classifier(
            self.source.config,
            facts.labels,
            self.source.weights,
            hierarchy_settings(config, max_chunks or data.max_chunks),
            chunks_per_pass=data.chunks_per_pass,
        )
        build.prepare_net(net, config)  # type: ignore[arg-type]  # it has its encoder where stock nets have theirs
        return HierarchicalModule(
            net,
            document_loss(config.loss, facts),
            build.optimisation(config, facts.steps_per_epoch, precision),
            releases_layers=config.finetune.strategy == "gradual",
            f1_weights=self.f1_weights,
        )

    def before_training(  # type: ignore[override]
        self,
        config: schema.Config,
        run: Path,
        precision: str,
        module: HierarchicalModule,
        datamodule: ChunkDataModule,
        record: RunRecord,
    ) -> None:
        """Count chunks, grow the forest, let a frozen encoder read once, train the first-chunk baseline once."""
        grow_forest(config, self.corpus, run, max_chars=None)
        self._judged_chunks = {part: datamodule.chunks(part) for part in JUDGED}
        self._describe(config, datamodule, record)
        vectors: Vectors = {}
        if config.finetune.strategy == "head" and config.finetune.cache_encoder:
            vectors = encoder_outputs(config, precision, module, datamodule)
            datamodule.read_from(vectors)
        baselines = json.loads((run / "data" / "baselines.json").read_text(encoding="utf-8"))
        if first_chunk.NAME not in baselines:
            started = time.monotonic()
            self._judge_first_chunks(config, run, precision, vectors)
            record.update(baseline_seconds=round(time.monotonic() - started, 1))

    def _describe(self, config: schema.Config, datamodule: ChunkDataModule, record: RunRecord) -> None:
        data, tokens = chunks(config.data), datamodule.tokens()
        cut = sources.chunk_settings(data)
        log.info("Chunks: %s", describe_chunks(tokens))
        longer = describe_truncation(tokens, cut)
        if longer:
            record.note(longer)
        counts = {
            "documents": len(tokens),
            "chunks": len(tokens.lengths),
            "truncated": tokens.num_truncated(),
            "without_text": tokens.num_without_text(),
        }
        net = asdict(hierarchy_settings(config, data.max_chunks))
        record.update(hierarchy=asdict(cut) | net | {"chunks_per_pass": data.chunks_per_pass} | counts)

    def _judge_first_chunks(self, config: schema.Config, run: Path, precision: str, vectors: Vectors) -> None:
        def make(config: schema.Config) -> tuple[HierarchicalModule, ChunkDataModule]:
            datamodule = self.datamodule(config, first_chunks=1)
            module = self.module(config, datamodule, precision, max_chunks=1)
            datamodule.read_from(vectors)
            return module, datamodule

        log.info("Baseline: the same encoder learns by the same recipe from the first chunk of each document only.")
        judged = {part: self.corpus.part(part) for part in JUDGED}
        baseline = first_chunk.first_chunk_baseline(config, run, precision, make, self.corpus.labels, judged)
        add_baselines(self.corpus, run, [baseline])

    def callbacks(self, run: Path, record: RunRecord) -> list[Callback]:
        """Labels and probabilities of every judged document, and how much its chunks counted."""
        judged = {part: self.corpus.part(part) for part in JUDGED}
        attention = AttentionWriter(run / "predictions", judged, self._judged_chunks, self.corpus.texts)
        return [*super().callbacks(run, record), attention]

    def export(  # type: ignore[override]
        self, config: schema.Config, module: HierarchicalModule, folder: Path, record: RunRecord
    ) -> None:
        """The encoder as transformers writes it, the rest beside it."""
        data = chunks(config.data)
        save_encoder(self.source, module, data.max_length, folder)
        Artifact(
            folder,
            "hierarchical_classification",
            self.corpus.labels,
            data.max_length,
            sources.extract_settings(data),
            chunks=sources.chunk_settings(data),
            temperature=fitted_temperature(folder.parent, self.corpus.labels, record),
        ).save()


def prepare(config: schema.Config, run: Path, record: RunRecord) -> LongDocuments:
    """The task with its documents and its encoder.

    Raises:
        DoctuneError: the data or the model cannot be used.
    """
    corpus, source = prepare_documents(config, run, record)
    return LongDocuments(corpus, source, f1_weights(config.metric, corpus.labels))


def chunks(data: schema.DataConfig) -> schema.ChunksConfig:
    """The data choice as long documents."""
    if not isinstance(data, schema.ChunksConfig):
        raise ConfigError(f"data.kind={data.kind} is not a data set of long documents.")
    return data


def hierarchy_settings(config: schema.Config, max_chunks: int) -> HierarchySettings:
    """How chunk vectors are made and pooled."""
    data = chunks(config.data)
    dropout = config.model.head_dropout
    return HierarchySettings(
        max_chunks,
        pooling=data.pooling,
        vector=data.chunk_vector,
        positions=data.chunk_positions,
        dropout=HEAD_DROPOUT if dropout is None else dropout,
    )
