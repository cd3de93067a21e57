"""What a model says wrongly of a target: labels taken for others, the texts that it was surest of, how many labels.

Shapes: N texts that know a target, L labels of the target.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from doctune.corpus.targets import TargetSpec
from doctune.reports.confusions import confused_in_sets, confused_pairs
from doctune.reports.target_records import Sets, TargetPart
from doctune.reports.target_scores import as_predictions
from doctune.scoring.classification import confusion_matrix

WORST_MISTAKES = 10
MAX_CHARS = 400  # of a text
MOST_LABELS = 4  # texts with so many labels or more are counted together


def describe_mistakes(spec: TargetSpec, part: TargetPart, trained: dict[str, int], known: int) -> dict[str, Any]:
    """What an entry of `report["targets"]` tells of a target's mistakes.

    Args:
        spec: the target.
        part: the texts that are judged.
        trained: training texts with each label.
        known: training texts that know the target.
    """
    worst = {"worst_mistakes": worst_mistakes(spec, part)}
    if spec.is_multi:
        pairs = confused_in_sets(part.truth, part.predicted, spec.labels.names)
        return {"confused_pairs": pairs, "cardinality": cardinality(part, sum(trained.values()), known), **worst}
    said = as_predictions(part)
    confusion = confusion_matrix(said.truth, said.predicted, len(spec.labels))
    pairs = confused_pairs(confusion, spec.labels.names)
    return {"confused_pairs": pairs, "confusion": confusion.tolist(), **worst}


def cardinality(part: TargetPart, trained: int, known: int) -> dict[str, Any]:
    """How many labels a text has and is given: means, and texts by their number of labels, "4" being 4 or more.

    Args:
        part: the texts that are judged.
        trained: labels of all training texts together.
        known: training texts that know the target.
    """
    sides = {"true": part.truth.sum(axis=1), "said": part.predicted.sum(axis=1)}
    counts = {name: Counter(np.minimum(numbers, MOST_LABELS).tolist()) for name, numbers in sides.items()}
    return {
        "train": trained / known if known else None,
        **{name: float(numbers.mean()) for name, numbers in sides.items()},
        "texts": {str(number): {name: counts[name][number] for name in sides} for number in range(MOST_LABELS + 1)},
    }


def worst_mistakes(spec: TargetSpec, part: TargetPart) -> list[dict[str, Any]]:
    """The texts that were given a label that does not apply, with the highest probability; equal ones in their order.

    Each has its said and its true labels with their probabilities, the most probable first. A label that is only missed
    makes no such text: of dozens of labels, most are improbable everywhere.
    """
    wrong = part.predicted & ~part.truth
    sureness = np.where(wrong, part.probabilities, -1.0).max(axis=1)
    places = np.flatnonzero(wrong.any(axis=1))
    surest = places[np.argsort(-sureness[places], kind="stable")][:WORST_MISTAKES]
    return [
        {
            "id": part.ids[row],
            "path": part.paths[row],
            "text": shortened(part.texts[row]),
            "probability": float(sureness[row]),
            "said": _with_probabilities(spec, part, part.predicted, row),
            "truth": _with_probabilities(spec, part, part.truth, row),
        }
        for row in surest
    ]


def shortened(text: str) -> str:
    """A text on one line, cut behind a word where it is long."""
    line = " ".join(text.split())
    if len(line) <= MAX_CHARS:
        return line
    return (line[:MAX_CHARS].rpartition(" ")[0] or line[:MAX_CHARS]) + " …"


def _with_probabilities(spec: TargetSpec, part: TargetPart, sets: Sets, row: int) -> list[dict[str, Any]]:
    chances = part.probabilities[row]
    labels = sorted(np.flatnonzero(sets[row]).tolist(), key=lambda label: -chances[label])
    return [{"label": spec.labels.names[label], "probability": float(chances[label])} for label in labels]
