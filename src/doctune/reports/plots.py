"""The pictures of a report, as matplotlib figures without pyplot's global state.

Shapes: L labels. Colours are those of Okabe and Ito (2008), which colour-blind readers tell apart; no meaning rests on
colour alone. Scores are drawn on the whole range from 0 to 1, since a cut axis flatters.
"""

from __future__ import annotations

import html
import io
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image

from doctune.files import written_whole

BLUE, VERMILLION, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#666666"
CURVE_COLOURS, CURVE_MARKERS = (BLUE, VERMILLION, GREEN, PURPLE, GREY), "os^Dv*XP"  # together they repeat after 40
SCORE_COLOURS, SCORE_MARKERS = (VERMILLION, BLUE, GREEN, PURPLE), "so^Dv*X"  # of 28 no two look alike
DPI = 120
COLOURS = 128
WIDE, NARROW = (7.0, 4.2), (5.2, 4.0)  # inches
GRID = "#e4e4e4"
PAGE_COLOURS = {"#000000": "currentColor", GREY.lower(): "var(--soft)", GRID: "var(--line)"}
POINTS_PER_INCH = 72
DIGIT_WIDTH = 0.62  # of the font size, in the default font
LETTER_WIDTH = 0.52  # likewise, on average
LEGEND_SIZE = 9
MAX_NAME = 30
MAX_NAMES = 80  # more names than this along one axis cannot be read, so only every second, third … is written


@dataclass(frozen=True)
class Curves:
    """The curves of a run as a page shows them: two SVG elements."""

    losses: str
    scores: str


def loss_curves(history: Sequence[dict[str, Any]], best_epoch: int | None, size: tuple[float, float] = WIDE) -> Figure:
    """Training and validation loss per epoch; epochs without a value leave a gap. `size` is in inches.

    The loss that is minimised is weighted, smoothed and under dropout. What validation is compared with is a sample of
    the training documents in evaluation mode.
    """
    figure, axes = _epoch_axes(history, best_epoch, size)
    _draw(axes, history, "train_loss", "training, as minimised (weighted, smoothed)", BLUE, "o")
    _draw(axes, history, "train_eval_loss", "training sample, evaluation mode", GREEN, "^")
    _draw(axes, history, "val_loss", "validation, plain", VERMILLION, "s")
    axes.set_title("Loss")
    axes.set_ylabel("cross entropy, nats")
    axes.set_ylim(bottom=0)
    _legend(figure, axes)
    return figure


def metric_curve(
    history: Sequence[dict[str, Any]],
    metrics: dict[str, str],
    best_epoch: int | None,
    baselines: dict[str, float],
    size: tuple[float, float] = WIDE,
) -> Figure:
    """Validation scores per epoch, with the baselines as level lines.

    Args:
        history: the epochs.
        metrics: history key -> name in the legend; the first is the one that the baselines are of.
        best_epoch: marked with a line; None marks none.
        baselines: name in the legend -> validation score.
        size: in inches.
    """
    figure, axes = _epoch_axes(history, best_epoch, size)
    for place, (key, name) in enumerate(metrics.items()):
        colour, marker = SCORE_COLOURS[place % len(SCORE_COLOURS)], SCORE_MARKERS[place % len(SCORE_MARKERS)]
        _draw(axes, history, key, shorten(name).replace("$", r"\$"), colour, marker)  # $ opens a formula
    for (name, value), style in zip(baselines.items(), ("--", ":", "-."), strict=False):
        axes.axhline(value, color=GREY, linestyle=style, linewidth=1.3, label=f"{name} ({value:.3f})", zorder=1)
    axes.set_title("Validation scores")
    axes.set_ylabel("score")
    if all(0 <= value <= 1 for key in metrics for value in _values(history, key) if not math.isnan(value)):
        axes.set_ylim(0, 1)
    _legend(figure, axes)
    return figure


def write_curves(
    history: Sequence[dict[str, Any]],
    metrics: dict[str, str],
    best_epoch: int | None,
    baselines: dict[str, float],
    folder: Path,
) -> Curves:
    """Write `loss_curves.png` and `metric_curve.png`; give the same curves, narrow enough for a phone.

    Args:
        history: the epochs.
        metrics: as for `metric_curve`.
        best_epoch: marked with a line; None marks none.
        baselines: as for `metric_curve`.
        folder: where the files go.
    """
    losses = partial(loss_curves, history, best_epoch)
    scores = partial(metric_curve, history, metrics, best_epoch, baselines)
    save(losses(), folder / "loss_curves.png")
    save(scores(), folder / "metric_curve.png")
    return Curves(
        losses=svg(losses(size=NARROW), "Losses per epoch"),
        scores=svg(scores(size=NARROW), "Validation scores per epoch"),
    )


def fold_losses(histories: Mapping[int, Sequence[dict[str, Any]]]) -> Figure:
    """Validation loss per epoch, one curve per fold; fold -> its epochs, of which there must be one at least."""
    epochs = [row for history in histories.values() for row in history]
    figure, axes = _epoch_axes(epochs, None, WIDE)
    for place, (fold, history) in enumerate(histories.items()):
        colour = CURVE_COLOURS[place % len(CURVE_COLOURS)]
        _draw(axes, history, "val_loss", f"fold {fold}", colour, CURVE_MARKERS[place % len(CURVE_MARKERS)])
    axes.set_title("Validation loss of each fold")
    axes.set_ylabel("cross entropy, nats")
    axes.set_ylim(bottom=0)
    _legend(figure, axes)
    return figure


def fold_scores(folds: Sequence[int], values: Mapping[str, Sequence[float | None]]) -> Figure:
    """One mark per fold and series, with the mean of each series as a level line.

    Args:
        folds: the numbers of the folds.
        values: name in the legend -> value per fold, of two series at most; None leaves a gap.
    """
    figure = Figure(figsize=WIDE, layout="constrained")
    axes = figure.add_subplot()
    _bare(axes)
    series = zip(values.items(), (VERMILLION, BLUE), "so", (9, 5), ("--", ":"), strict=False)
    for (name, of_folds), colour, marker, size, style in series:
        known = {fold: value for fold, value in zip(folds, of_folds, strict=True) if value is not None}
        if not known:
            continue
        mean = sum(known.values()) / len(known)
        fill = "none" if marker == "s" else colour  # hollow and larger, so that of equal values both are seen
        look: dict[str, Any] = {
            "color": colour,
            "marker": marker,
            "markersize": size,
            "markerfacecolor": fill,
            "linestyle": "none",
        }
        axes.plot(list(known), list(known.values()), label=name, **look)
        axes.axhline(mean, color=colour, linestyle=style, linewidth=1.3, label=f"mean of {name} ({mean:.3f})", zorder=1)
    axes.set_xticks(folds)
    axes.set(title="Scores of each fold", xlabel="fold", xlim=(min(folds) - 0.5, max(folds) + 0.5))
    is_share = all(value is None or 0 <= value <= 1 for of_folds in values.values() for value in of_folds)
    axes.set_ylim(0, 1 if is_share else None)
    _legend(figure, axes)
    return figure


def confusion_matrix(
    confusion: NDArray[np.int64], labels: Sequence[str], title: str, *, noun: str = "document"
) -> Figure:
    """A confusion matrix `(L, L)`, truth in rows; colour is the share of the row, numbers are of what `noun` names.

    The colour scale is the square root of the share, since mistakes are rare and would not be seen otherwise.
    """
    num_labels = len(labels)
    cell_inches = min(0.9, max(0.26, 6 / num_labels), 20 / num_labels)
    side = cell_inches * num_labels
    names = [shorten(label) for label in labels]
    margin = 0.09 * max(map(len, names)) + 0.9
    figure = Figure(figsize=(max(side + margin + 1.2, 5), max(side + margin, 4)), layout="constrained")
    axes = figure.add_subplot()
    shares = _row_shares(confusion)
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1))
    _name_labels(axes, names, cell_inches)
    _write_counts(axes, confusion, shares, cell_inches)
    axes.set(xlabel="predicted label", ylabel="true label")
    axes.set_title(title, parse_math=False)
    bar = figure.colorbar(image, ax=axes, shrink=min(1.0, 4 / side), aspect=25, pad=0.02, ticks=[0, 0.05, 0.2, 0.5, 1])
    bar.ax.set_yticklabels(["0 %", "5 %", "20 %", "50 %", "100 %"])
    bar.set_label(f"share of the true label's {noun}s")
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all; letters that the font lacks become boxes without a warning.

    A palette of 128 colours halves the size of large matrices, and nobody sees the difference.
    """
    drawn = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(drawn, format="png", dpi=DPI, bbox_inches="tight")
    picture = Image.open(drawn).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    with written_whole(path) as temporary:
        picture.save(temporary, format="png", optimize=True)


def svg(figure: Figure, name: str) -> str:
    """A figure as an SVG element for an HTML page: its text stays text, its ink is the page's own.

    Args:
        figure: lines and text, such as curves; a matrix makes a smaller PNG.
        name: what the picture shows, for readers that cannot see it; one page must not hold two of a name.
    """
    drawn = io.StringIO()
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(drawn, format="svg", transparent=True, metadata=metadata)
    text = drawn.getvalue()
    text = text[text.index("<svg") :].rstrip()
    for colour, of_page in PAGE_COLOURS.items():
        text = text.replace(colour, of_page)
    text = re.sub(r'<g id="[^"]*">', "<g>", text)  # nothing refers to them, and two pictures would share them
    box = re.search(r'viewBox="[\d. ]+"', text)
    assert box, "matplotlib writes the size of a picture"
    return f'<svg {box[0]} role="img" aria-label="{html.escape(name)}">{text[text.index(">") + 1 :]}'


def shorten(name: str, width: int = MAX_NAME) -> str:
    """Cut the middle of a long name, since names tend to differ at their ends; control characters become spaces."""
    name = "".join(letter if letter.isprintable() else " " for letter in name)
    if len(name) <= width:
        return name
    tail = (width - 1) // 2
    return name[: width - 1 - tail] + "…" + name[len(name) - tail :]


def _epoch_axes(
    history: Sequence[dict[str, Any]], best_epoch: int | None, size: tuple[float, float]
) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    epochs = [row["epoch"] for row in history]
    axes.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
    _bare(axes)
    if best_epoch is not None:
        axes.axvline(best_epoch, color=GREY, linewidth=1, alpha=0.6, label=f"best epoch ({best_epoch})", zorder=1)
    return figure, axes


def _bare(axes: Axes) -> None:
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _draw(axes: Axes, history: Sequence[dict[str, Any]], key: str, name: str, colour: str, marker: str) -> None:
    values = _values(history, key)
    if all(math.isnan(value) for value in values):
        return
    epochs = [row["epoch"] for row in history]
    axes.plot(epochs, values, color=colour, marker=marker, markersize=4.5, linewidth=1.8, label=name)


def _values(history: Sequence[dict[str, Any]], key: str) -> list[float]:
    """The values of a history key; NaN where an epoch has none, which matplotlib leaves out."""
    return [math.nan if row.get(key) is None else float(row[key]) for row in history]


def _legend(figure: Figure, axes: Axes) -> None:
    """Below the axes, where it can never cover a curve; as many columns, up to 3, as the figure has room for."""
    handles, names = axes.get_legend_handles_labels()
    if handles:
        width = figure.get_figwidth() * POINTS_PER_INCH
        columns = min(3, max(1, int(width / (LETTER_WIDTH * LEGEND_SIZE * max(map(len, names)) + 40))))
        figure.legend(handles, names, loc="outside lower center", ncols=columns, frameon=False, fontsize=LEGEND_SIZE)


def _row_shares(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    totals = confusion.sum(axis=1, keepdims=True)
    return np.divide(confusion, totals, out=np.zeros(confusion.shape), where=totals > 0)


def _name_labels(axes: Axes, names: Sequence[str], cell_inches: float) -> None:
    step = math.ceil(len(names) / MAX_NAMES)
    places = range(0, len(names), step)
    shown = [names[place] for place in places]
    size = min(9.0, max(5.0, cell_inches * step * POINTS_PER_INCH * 0.42))
    axes.set_xticks(places, shown, rotation=90, fontsize=size, parse_math=False)
    axes.set_yticks(places, shown, fontsize=size, parse_math=False)
    axes.tick_params(length=2)
    if len(names) <= MAX_NAMES:
        axes.set_xticks(np.arange(-0.5, len(names)), minor=True)
        axes.set_yticks(np.arange(-0.5, len(names)), minor=True)
        axes.grid(which="minor", color="#dddddd", linewidth=0.5)
        axes.tick_params(which="minor", length=0)


def _write_counts(axes: Axes, confusion: NDArray[np.int64], shares: NDArray[np.float64], cell_inches: float) -> None:
    """Write the counts that are not 0, each only where its digits fit its cell at a size that can be read."""
    cell_points = cell_inches * POINTS_PER_INCH
    for row, column in np.argwhere(confusion):
        digits = str(confusion[row, column])
        size = min(9.0, 0.85 * cell_points / (DIGIT_WIDTH * len(digits)), 0.6 * cell_points)
        if size < 4.5:
            continue
        colour = "white" if shares[row, column] > 0.3 else "black"
        axes.text(column, row, digits, ha="center", va="center", fontsize=size, color=colour)
