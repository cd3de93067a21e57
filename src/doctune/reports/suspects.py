"""Labels that are probably wrong, found by confident learning on out-of-fold probabilities.

The method is that of C. G. Northcutt, L. Jiang and I. L. Chuang, "Confident Learning: Estimating Uncertainty in Dataset
Labels", JAIR 70, 2021, as the library cleanlab has it. cleanlab is optional, `pip install 'doctune[labels]'`: its
versions before 2.8 are under AGPL-3.0, those since then under Apache-2.0, and doctune asks for the latter.

Shapes: N documents, L labels.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from doctune.reports.records import Predictions

# The accuracy from which the models' word on labels counts: of one that is wrong about most documents it is noise.
MIN_ACCURACY = 0.5


@dataclass(frozen=True)
class Suspect:
    """A document whose label a model that never saw it finds unlikely, and the label that it would give."""

    path: str
    label: str
    suggested_label: str
    label_probability: float
    suggested_probability: float
    rank: int
    """From 1; the lower the probability of the given label, the earlier."""


def can_find_suspects() -> bool:
    """Whether cleanlab is installed."""
    return importlib.util.find_spec("cleanlab") is not None


def find_suspects(predictions: Predictions, labels: Sequence[str]) -> list[Suspect]:
    """The suspect labels, ranked by self-confidence: the probability that the model gives to the label.

    Args:
        predictions: out-of-fold ones; a model's word on its own training documents proves nothing.
        labels: the L names in id order.

    Raises:
        ImportError: cleanlab is missing; see `can_find_suspects`.
    """
    from cleanlab.filter import find_label_issues

    chances = predictions.probabilities.astype(np.float64)
    known = np.flatnonzero(np.isfinite(chances).all(axis=1))  # a model that diverged has no opinion
    if not known.size:
        return []
    chances /= chances.sum(axis=1, keepdims=True)  # float32 sums may pass 1, which cleanlab refuses
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of every label without documents
        # One process: those that cleanlab would start each load the program anew.
        found = find_label_issues(
            predictions.truth[known], chances[known], return_indices_ranked_by="self_confidence", n_jobs=1
        )
    suggested = chances.argmax(axis=1)
    return [
        Suspect(
            path=predictions.paths[row],
            label=labels[predictions.truth[row]],
            suggested_label=labels[suggested[row]],
            label_probability=float(chances[row, predictions.truth[row]]),
            suggested_probability=float(chances[row, suggested[row]]),
            rank=rank,
        )
        for rank, row in enumerate(known[found], start=1)
    ]
