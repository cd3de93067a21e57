"""The random forest of a cascade, grown beside the transformer on the same split."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from doctune.corpus.baselines import Baseline, add_baselines
from doctune.corpus.file_corpus import Corpus
from doctune.inference.forest import FOREST_FILE, Forest, ForestSettings, fit_forest
from doctune.training import config as schema

log = logging.getLogger(__name__)

NAME = "forest"


def grow_forest(config: schema.Config, corpus: Corpus, run: Path, max_chars: int | None) -> None:
    """Write `model/forest.skops`, and what the forest scores beside the other baselines, once.

    Args:
        config: of the run; nothing happens without `cascade.forest`.
        corpus: the documents with their parts.
        run: the run's folder.
        max_chars: characters of each text that the forest reads; None: all.
    """
    path = run / "model" / FOREST_FILE
    if not config.cascade.forest or (path.exists() and NAME in _judged(run)):
        return
    train = corpus.part("train")
    settings = ForestSettings(config.cascade.trees, config.cascade.max_features, max_chars, config.seed)
    begun = time.monotonic()
    forest = fit_forest(corpus.texts(train), corpus.label_ids(train).tolist(), corpus.labels, settings)
    forest.save(path)
    val, test = (_predicted(forest, corpus, part) for part in ("val", "test"))
    add_baselines(corpus, run, [Baseline(NAME, val, test)])
    log.info(
        "Random forest: %d trees in %.0f s, %.1f MB.",
        config.cascade.trees,
        time.monotonic() - begun,
        path.stat().st_size / 1e6,
    )


def _predicted(forest: Forest, corpus: Corpus, part: str) -> NDArray[np.int64]:
    return forest.probabilities(corpus.texts(corpus.part(part))).argmax(axis=1)


def _judged(run: Path) -> set[str]:
    """The baselines that have been judged already."""
    return set(json.loads((run / "data" / "baselines.json").read_text(encoding="utf-8")))
