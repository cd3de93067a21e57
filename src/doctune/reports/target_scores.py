"""What a model's predictions of several targets score, one by one and together.

Shapes: N texts, L labels of a target.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from doctune.corpus.target_baselines import score_label_sets
from doctune.corpus.targets import TargetSpec
from doctune.reports.part_scores import score_part
from doctune.reports.records import Predictions
from doctune.reports.target_records import Sets, TargetPart
from doctune.scoring.multilabel import label_counts, label_scores
from doctune.scoring.targets import JudgedTarget, mean_f1_interval

METRIC = "f1_macro"
Said = tuple[TargetSpec, TargetPart]  # a target, and what was said of the texts that know it


def score_target(spec: TargetSpec, part: TargetPart | None) -> dict[str, Any] | None:
    """The scores of a target in a part with 95 % intervals, and `texts`, how many know it; None where none does."""
    if part is None:
        return None
    if spec.is_multi:
        return score_label_sets(part.truth, part.predicted)
    scores = score_part(as_predictions(part), len(spec.labels)) or {}
    return scores | {"texts": scores["documents"]}


def label_rows(spec: TargetSpec, part: TargetPart) -> list[dict[str, Any]]:
    """Every label of a target with its scores and counts, in id order."""
    counts = label_counts(part.truth, part.predicted)
    scores = label_scores(counts)
    return [
        {
            "label": label,
            "precision": float(scores.precision[row]),
            "recall": float(scores.recall[row]),
            "f1": float(scores.f1[row]),
            "support": int(counts.support[row]),
            "predicted": int(counts.predicted[row]),
        }
        for row, label in enumerate(spec.labels.names)
    ]


def as_predictions(part: TargetPart) -> Predictions:
    """The same of a target with one label per text as a classifier has it."""
    truth, predicted = part.truth.argmax(axis=1), part.predicted.argmax(axis=1)
    return Predictions(part.ids, part.paths, truth, predicted, part.probabilities)


def score_together(said: Sequence[Said], scores: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """The mean of the targets' macro F1 with its 95 % interval over texts; None without any target.

    Args:
        said: of the targets that are known in a part.
        scores: those of `score_target`, by target.
    """
    if not said:
        return None
    ids = all_ids([part for _, part in said])
    interval = mean_f1_interval([align(spec, part, part.predicted, ids) for spec, part in said])
    return {
        METRIC: float(np.mean([scores[spec.name][METRIC] for spec, _ in said])),
        "targets": len(said),
        "texts": len(ids),
        "ci95": {METRIC: list(interval)},
    }


def all_ids(parts: Sequence[TargetPart]) -> list[str]:
    """The texts that know any target, in the order in which they are met."""
    return list(dict.fromkeys(name for part in parts for name in part.ids))


def align(spec: TargetSpec, part: TargetPart, said: Sets, ids: Sequence[str]) -> JudgedTarget:
    """A target as it is in all the texts of `ids`, to be resampled with others; `said` is in the order of `part`."""
    row_of = {name: row for row, name in enumerate(ids)}
    rows = np.asarray([row_of[name] for name in part.ids])
    known = np.zeros(len(ids), dtype=bool)
    known[rows] = True
    truth, spread = (np.zeros((len(ids), len(spec.labels)), dtype=bool) for _ in range(2))
    truth[rows], spread[rows] = part.truth, said
    return JudgedTarget(truth, spread, known, spec.is_multi)
