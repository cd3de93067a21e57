"""The pictures of an evaluation, in the style of a report's: rates from 0 to 1 on whole axes, colours of Okabe and Ito.

Shapes: N documents, L labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from doctune.reports import plots
from doctune.reports.plots import BLUE, CURVE_COLOURS, GREEN, GREY, GRID, LEGEND_SIZE, VERMILLION, shorten
from doctune.scoring.ranking import PrecisionRecallCurve, RocCurve, precision_recall_curve, roc_curve

SQUARE, TWO_PANELS, WIDE = (5.6, 6.2), (8.4, 4.6), (7.0, 4.4)  # inches
NAMED_CURVES = 5  # as many as there are colours; the others are thin and grey
_LIGHT = "#b8b8b8"

Report = Mapping[str, Any]


def write_pictures(report: Report, truth: NDArray[np.int64], given: NDArray[np.float64], folder: Path) -> None:
    """Write all PNGs of an evaluation.

    Args:
        report: what `build_evaluation` gives.
        truth: label ids, (N,).
        given: probabilities as `predict` gives them, (N, L).
        folder: where they go.
    """
    title = f"{report['name']}, {report['documents']:,} documents"
    confusion = np.asarray(report["confusion"])
    plots.save(plots.confusion_matrix(confusion, report["labels"], title), folder / "confusion_matrix.png")
    plots.save(roc_curves(report["per_class"], truth, given), folder / "roc_curves.png")
    plots.save(precision_recall_curves(report["per_class"], truth, given), folder / "precision_recall_curves.png")
    plots.save(reliability(report["calibration"]), folder / "reliability.png")
    plots.save(coverage(report["coverage"], report["thresholds"]), folder / "coverage.png")


def roc_curves(per_class: Sequence[Mapping[str, Any]], truth: NDArray[np.int64], given: NDArray[np.float64]) -> Figure:
    """One curve per label against the rest; the labels with the smallest areas are named."""
    figure, axes = _square("ROC curves, one label against the rest", "false positive rate", "true positive rate")
    named = weakest(per_class, "roc_auc")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1.2, label="chance")
    for label, row in _others_first(per_class, named):
        curve = roc_curve(truth == label, given[:, label])
        if isinstance(curve, RocCurve):
            style = _curve_style(label, named, row, "roc_auc")
            axes.plot(curve.false_positive_rate, curve.true_positive_rate, **style)
    return _with_legend(figure, axes, len(per_class) > len(named))


def precision_recall_curves(
    per_class: Sequence[Mapping[str, Any]], truth: NDArray[np.int64], given: NDArray[np.float64]
) -> Figure:
    """One curve per label against the rest; the labels with the lowest average precision are named."""
    figure, axes = _square("Precision and recall, one label against the rest", "recall", "precision")
    named = weakest(per_class, "average_precision")
    for label, row in _others_first(per_class, named):
        curve = precision_recall_curve(truth == label, given[:, label])
        if isinstance(curve, PrecisionRecallCurve):
            style = _curve_style(label, named, row, "average_precision")
            recall, precision = np.append(0.0, curve.recall), np.append(curve.precision[0], curve.precision)
            axes.plot(recall, precision, drawstyle="steps-pre", **style)
    return _with_legend(figure, axes, len(per_class) > len(named))


def weakest(per_class: Sequence[Mapping[str, Any]], metric: str) -> list[int]:
    """The ids of the labels with the lowest values, lowest first; those without a value are none of them."""
    known = [label for label, row in enumerate(per_class) if row[metric] is not None]
    return sorted(known, key=lambda label: (per_class[label][metric], label))[:NAMED_CURVES]


def reliability(calibration: Mapping[str, Any]) -> Figure:
    """Accuracy against score in bins, before the temperature and after it; the bars below count documents."""
    figure = Figure(figsize=TWO_PANELS, layout="constrained")
    panels = figure.subplots(2, 2, sharex=True, sharey="row", height_ratios=(4, 1))
    words = {"before": "before", "after": f"after, temperature {calibration['temperature']:.3f}"}
    for column, moment in enumerate(words):
        measured = calibration[moment]
        _draw_bins(panels[0, column], panels[1, column], measured["bins"])
        panels[0, column].set_title(f"{words[moment]}: error {measured['ece']:.3f}", fontsize=11)
        panels[1, column].set_xlabel("score (probability of the label)")
    panels[0, 0].set_ylabel("share that is right")
    panels[1, 0].set_ylabel("documents")
    panels[0, 0].legend(loc="upper left", frameon=False, fontsize=LEGEND_SIZE)
    figure.suptitle("Reliability")
    return figure


def coverage(
    curve: Mapping[str, Sequence[float]], thresholds: Sequence[Mapping[str, Any]], noun: str = "document"
) -> Figure:
    """Which share is right among those that are kept, from the surest on; thresholds are marked."""
    figure = Figure(figsize=WIDE, layout="constrained")
    axes = figure.add_subplot()
    _bare(axes)
    axes.plot(curve["coverage"], curve["accuracy"], color=BLUE, linewidth=1.8, label=f"accepting the surest {noun}s")
    marks = zip(_reached(thresholds), (VERMILLION, GREEN, *CURVE_COLOURS[3:]), "os^D", strict=False)
    for row, colour, marker in marks:
        judged = row["judged"]
        name = f"threshold {row['threshold']:.3f}, chosen for {100 * row['precision']:g} %"
        axes.plot([judged["coverage"]], [judged["accuracy"]], marker, color=colour, markersize=7, label=name)
    axes.set(title="Accuracy against coverage", xlabel=f"share of {noun}s kept", ylabel="share of them that is right")
    axes.set(xlim=(0, 1.01), ylim=(0, 1.02))
    axes.legend(loc="lower left", frameon=False, fontsize=LEGEND_SIZE)
    return figure


def _reached(thresholds: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those that exist and keep a document."""
    return [row for row in thresholds if row["judged"] is not None and row["judged"]["documents"]]


def _draw_bins(axes: Axes, counts: Axes, bins: Sequence[Mapping[str, Any]]) -> None:
    filled = [each for each in bins if each["count"]]
    left = [each["low"] for each in bins]
    width = bins[0]["high"] - bins[0]["low"]
    _bare(axes)
    _bare(counts)
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1.2, label="calibrated")
    axes.bar(
        [each["low"] for each in filled],
        [each["accuracy"] for each in filled],
        width=width,
        align="edge",
        color=BLUE,
        alpha=0.35,
        edgecolor=BLUE,
    )
    scores, shares = [each["score"] for each in filled], [each["accuracy"] for each in filled]
    axes.plot(scores, shares, "o", color=VERMILLION, markersize=4.5, label="mean score and accuracy")
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    counts.bar(left, [each["count"] for each in bins], width=width, align="edge", color=GREY)


def _square(title: str, x_name: str, y_name: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=SQUARE, layout="constrained")
    axes = figure.add_subplot()
    _bare(axes)
    axes.set(title=title, xlabel=x_name, ylabel=y_name, xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), aspect="equal")
    return figure, axes


def _bare(axes: Axes) -> None:
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _others_first(per_class: Sequence[Mapping[str, Any]], named: Sequence[int]) -> list[tuple[int, Mapping[str, Any]]]:
    """All labels with their rows, the named ones last, so that they are drawn above the others."""
    others = [label for label in range(len(per_class)) if label not in named]
    return [(label, per_class[label]) for label in (*others, *named)]


def _curve_style(label: int, named: Sequence[int], row: Mapping[str, Any], metric: str) -> dict[str, Any]:
    if label not in named:
        return {"color": _LIGHT, "linewidth": 0.9}
    colour = CURVE_COLOURS[named.index(label) % len(CURVE_COLOURS)]
    name = f"{shorten(row['label'])} ({row[metric]:.3f})"
    return {"color": colour, "linewidth": 1.8, "label": name.lstrip("_")}


def _with_legend(figure: Figure, axes: Axes, has_others: bool) -> Figure:
    if has_others:
        axes.plot([], [], color=_LIGHT, linewidth=0.9, label="other labels")
    handles, names = axes.get_legend_handles_labels()
    if handles:
        columns = 2 if max(map(len, names)) <= plots.MAX_NAME else 1
        figure.legend(handles, names, loc="outside lower center", ncols=columns, frameon=False, fontsize=LEGEND_SIZE)
    return figure
