"""What one part's predictions of one label each score, with intervals.

Shapes: N documents, L labels.
"""

from __future__ import annotations

from typing import Any

from doctune.reports.records import Predictions
from doctune.scoring.classification import STATISTICS, confusion_matrix, document_log_losses, score
from doctune.scoring.intervals import bootstrap_intervals, bootstrap_mean_interval


def score_part(predictions: Predictions | None, num_labels: int) -> dict[str, Any] | None:
    """The scores of a part with 95 % intervals; None for a part without documents."""
    if predictions is None:
        return None
    scores = score(predictions.truth, predictions.predicted, num_labels, predictions.probabilities).to_dict()
    confusion = confusion_matrix(predictions.truth, predictions.predicted, num_labels)
    intervals = {name: list(bounds) for name, bounds in bootstrap_intervals(confusion, STATISTICS).items()}
    losses = document_log_losses(predictions.truth, predictions.probabilities)
    return scores | {"ci95": intervals | {"log_loss": list(bootstrap_mean_interval(losses))}}
