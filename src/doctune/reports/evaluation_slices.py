"""Scores by slice: kinds of documents in which a model may be worse than its overall score says.

Every slicing puts each document into exactly one group. Shapes: N documents, L labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doctune.inference.judged import JudgedDocument
from doctune.reports.evaluation_source import Evaluated
from doctune.reports.verdict import MIN_DOCUMENTS
from doctune.scoring.classification import STATISTICS, confusion_matrix
from doctune.scoring.intervals import bootstrap_intervals

METRICS = ("accuracy", "f1_macro")
SLICES = {
    "length": "length in characters, as far as it is read",
    "format": "kind of file",
    "suffix": "suffix of the file's name",
    "copies": "near-copies among the documents",
    "training_copies": "near-copy in training",
    "extraction": "extraction",
    "confidence": "confidence of the label",
}
RARE_SUFFIX = 10  # fewer documents have no row of their own
QUARTERS = (0.25, 0.5, 0.75)
CONFIDENCES = (0.6, 0.8, 0.95)
WHOLE, REMARKED = "read without a remark", "read with a remark"


def sliced_scores(found: Evaluated, predicted: NDArray[np.int64]) -> dict[str, list[dict[str, Any]]]:
    """Per slicing, the scores of its groups with intervals; what is not known, or makes one group only, is left out.

    Args:
        found: N documents.
        predicted: label ids, (N,).
    """
    groupings = {
        "length": _lengths(found.documents),
        "format": [document.format or "unknown" for document in found.documents],
        "suffix": _suffixes(found.documents),
        "copies": _yes_no(found.copies.has_copy, "has near-copies", "alone"),
        "training_copies": _yes_no(found.copies.in_training, "near-copy in training", "none in training"),
        "extraction": [REMARKED if document.remark else WHOLE for document in found.documents],
        "confidence": _confidences(found.documents),
    }
    return {
        name: _scored(groups, found.truth, predicted, len(found.labels))
        for name, groups in groupings.items()
        if groups is not None and len(set(groups)) > 1
    }


def scores_without_training_copies(found: Evaluated, predicted: NDArray[np.int64]) -> dict[str, Any] | None:
    """The scores with all documents, and without those that have a near-copy in training; None: that is not known."""
    in_training = found.copies.in_training
    if in_training is None:
        return None
    num_labels = len(found.labels)
    fresh = ~in_training
    return {
        "documents": int(in_training.sum()),
        "with": score_group("all documents", found.truth, predicted, num_labels),
        "without": (
            score_group("without near-copies in training", found.truth[fresh], predicted[fresh], num_labels)
            if fresh.any()
            else None
        ),
    }


def score_group(name: str, truth: NDArray[np.int64], predicted: NDArray[np.int64], num_labels: int) -> dict[str, Any]:
    """The scores of one group, which has a document at least, with 95 % intervals; small groups are marked."""
    confusion = confusion_matrix(truth, predicted, num_labels)
    statistics = {metric: STATISTICS[metric] for metric in METRICS}
    return {
        "group": name,
        "documents": len(truth),
        "is_small": len(truth) < MIN_DOCUMENTS,
        **{metric: float(statistic(confusion)) for metric, statistic in statistics.items()},
        "ci95": {metric: list(bounds) for metric, bounds in bootstrap_intervals(confusion, statistics).items()},
    }


def _scored(
    groups: Sequence[str], truth: NDArray[np.int64], predicted: NDArray[np.int64], num_labels: int
) -> list[dict[str, Any]]:
    """The groups as they are first sorted: by name, but for lengths and confidences, whose names carry their order."""
    names = np.array(groups)
    return [
        score_group(_shown(name), truth[names == name], predicted[names == name], num_labels)
        for name in sorted(set(groups))
    ]


# Groups with an order are named "1|shorter than …", and shown without what stands before the bar.
def _shown(name: str) -> str:
    return name.partition("|")[2] or name


def _lengths(documents: Sequence[JudgedDocument]) -> list[str] | None:
    """Quarters by characters; fewer where so many are equally long, as those cut at the limit of extraction are."""
    if any(document.characters is None for document in documents):
        return None
    lengths = np.array([document.characters for document in documents])
    edges = np.unique(np.quantile(lengths, QUARTERS, method="higher"))
    places = np.searchsorted(edges, lengths)  # 0: up to the first edge
    names = {place: _range_words(lengths[places == place]) for place in np.unique(places).tolist()}
    return [f"{place}|{names[place]}" for place in places.tolist()]


def _range_words(lengths: NDArray[np.int64]) -> str:
    low, high = int(lengths.min()), int(lengths.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _suffixes(documents: Sequence[JudgedDocument]) -> list[str]:
    """In lower case; rare ones together."""
    suffixes = [Path(document.path).suffix.lower() or "none" for document in documents]
    counts = Counter(suffixes)
    return [suffix if counts[suffix] >= RARE_SUFFIX else "~|rare ones" for suffix in suffixes]


def _confidences(documents: Sequence[JudgedDocument]) -> list[str] | None:
    """By what the manifest said of each label; None where it said nothing of any."""
    if all(document.confidence is None for document in documents):
        return None
    bounds = (0.0, *CONFIDENCES, 1.0)
    groups = []
    for document in documents:
        if document.confidence is None:
            groups.append("9|not known")
            continue
        place = int(np.searchsorted(CONFIDENCES, document.confidence, side="right"))
        groups.append(f"{place}|{bounds[place]:g} to {bounds[place + 1]:g}")
    return groups


def _yes_no(is_so: NDArray[np.bool_] | None, yes: str, no: str) -> list[str] | None:
    return None if is_so is None else [yes if one else no for one in is_so.tolist()]
