"""What accepting only sure labels, or answers, buys: the curve, and thresholds chosen on validation data.

Shapes: N documents or questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doctune.reports.numbers import percent
from doctune.scoring import calibration
from doctune.scoring.intervals import Interval, bootstrap_mean_interval

PRECISIONS = (0.9, 0.95, 0.99)
CURVE_POINTS = 200  # that a JSON file keeps


@dataclass(frozen=True)
class Scored:
    """The score of each prediction, and whether it is right, both `(N,)`."""

    scores: NDArray[np.float64]
    is_right: NDArray[np.bool_]


def curve(judged: Scored) -> dict[str, list[float]]:
    """The accuracy-against-coverage curve, thinned to points that are evenly spaced."""
    found = calibration.coverage_curve(judged.scores, judged.is_right)
    last = len(found.thresholds) - 1
    places = np.unique(np.linspace(0, last, min(CURVE_POINTS, last + 1)).round().astype(int))
    return {name: getattr(found, name)[places].tolist() for name in ("thresholds", "coverage", "accuracy")}


def threshold_rows(asked: float, validation: Scored | None, judged: Scored) -> list[dict[str, Any]]:
    """A row for the precision that was asked for and for the usual ones, by rising precision.

    Each has the threshold chosen on validation data, None where none reaches the precision or there are no such data,
    and what it keeps of either. `reason` says why there is none.
    """
    return [_row(wanted, validation, judged) for wanted in sorted({*PRECISIONS, asked})]


def threshold_words(rows: Sequence[Mapping[str, Any]], asked: float, noun: str) -> str:
    """What was chosen for the precision that was asked for, on what, and what it does on what is judged."""
    row = next(row for row in rows if row["precision"] == asked)
    wanted = f"{100 * asked:g} %"
    if row["threshold"] is None:
        return f"No threshold for a precision of {wanted}: {row['reason']}."
    chosen, judged = row["validation"], row["judged"]
    start = (
        f"For a precision of {wanted} accept scores of at least {row['threshold']:.4f} (chosen on validation data: "
        f"{percent(chosen['accuracy'])} right, {percent(chosen['coverage'])} kept)."
    )
    if not judged["documents"]:
        return f"{start} It keeps none of the judged {noun}s."
    low, high = judged["ci95"]
    return (
        f"{start} On the judged {noun}s: {percent(judged['accuracy'])} right ({percent(low)} to {percent(high)}), "
        f"{percent(judged['coverage'])} kept."
    )


def _row(wanted: float, validation: Scored | None, judged: Scored) -> dict[str, Any]:
    row: dict[str, Any] = {"precision": wanted, "threshold": None, "reason": "", "validation": None, "judged": None}
    if validation is None:
        return row | {"reason": "there are no validation predictions to choose it on"}
    threshold = calibration.threshold_for(wanted, validation.scores, validation.is_right)
    if threshold is None:
        return row | {"reason": "none reaches it on validation data"}
    kept = asdict(calibration.kept_by(threshold, judged.scores, judged.is_right))
    hits = judged.is_right[judged.scores >= threshold]
    return row | {
        "threshold": threshold,
        "validation": asdict(calibration.kept_by(threshold, validation.scores, validation.is_right)),
        "judged": kept | {"ci95": list(_interval(hits)) if len(hits) else None},
    }


def _interval(hits: NDArray[np.bool_]) -> Interval:
    """Of a share; where nothing was wrong a bootstrap has no width, so the rule of three says what can be excluded."""
    if hits.all():
        return max(0.0, 1 - 3 / len(hits)), 1.0
    return bootstrap_mean_interval(hits.astype(np.float64))
