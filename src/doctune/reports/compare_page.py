"""A comparison of runs as plain text and as an HTML page that needs nothing but itself."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from doctune.reports import plots
from doctune.reports.compare import p_words
from doctune.reports.compare_shared import task_of
from doctune.reports.html import STYLE
from doctune.reports.numbers import UNKNOWN, counted, decimal, duration, gap_words, whole
from doctune.reports.page import document, escaped, isolated
from doctune.reports.plots import shorten
from doctune.reports.reader_summary import HALVES
from doctune.reports.verdict import ALL_METRIC_WORDS, metric_words

Report = Mapping[str, Any]
Histories = Mapping[str, Sequence[Mapping[str, Any]]]  # name of a run -> its epochs
Row = tuple[str, list[str]]  # what it is, and a cell for every run

WIDTH = 100
NAME_WIDTH, CELL_WIDTH = 34, 31  # with two spaces before each cell, two runs fill WIDTH
SPACE = "  "
COLOURS = (plots.VERMILLION, plots.BLUE, plots.GREEN, plots.PURPLE, plots.GREY)
MARKERS, LINES = "so^Dv", ("-", "--", ":", "-.")


def summarize(report: Report) -> str:
    """The comparison as text: 100 columns wide for two runs, wider for more."""
    names = [run["name"] for run in report["runs"]]
    shared = counted(_shared(report), f"shared test {task_of(report).noun}")
    blocks = [
        [f"doctune compare: {counted(len(names), 'run')}, {shared}"],
        _wrapped(report["verdict"]),
        *_side_by_side(report, names),
        _tests(report),
        _target_tests(report),
        [line for note in report["notes"] for line in _wrapped(note, "- ")],
        [
            f"gate {outcome['gate']}: {'passed' if outcome['passed'] else 'FAILED'}: {outcome['sentence']}"
            for outcome in report["gates"]
        ],
    ]
    text = "\n\n".join("\n".join(block) for block in blocks if block) + "\n"
    return "".join(letter if letter.isprintable() or letter == "\n" else " " for letter in text)


def page(report: Report, histories: Histories) -> str:
    """The comparison as HTML, with the validation curves of all runs over each other."""
    names = [run["name"] for run in report["runs"]]
    is_better = any(each["status"] == "better" for each in report["comparisons"])
    tone = "success" if is_better else "warning"
    word = "better" if is_better else "not told apart" if report["comparisons"] else "not tested"
    folders = "".join(
        f"<li>{isolated(run['name'])}: <code>{escaped(run['folder'])}</code></li>" for run in report["runs"]
    )
    settings = setting_rows(report)
    blocks = [
        f"<h1>{counted(len(names), 'run')} compared</h1>",
        f'<article class="verdict {tone}"><span class="tag">{word}</span><p>{escaped(report["verdict"])}</p></article>',
        _html_gates(report["gates"]),
        f"<h2>Scores and cost</h2>{_html_table(names, score_rows(report))}",
        _html_tests(report),
        _html_target_tests(report),
        f"<h2>Settings that differ</h2>{_html_table(names, settings) if settings else '<p>None.</p>'}",
        "<h2>Curves</h2>",
        _html_curves(histories, report),
        _html_means(report),
        f'<h2>Notes</h2><ul class="files">{"".join(f"<li>{escaped(note)}</li>" for note in report["notes"])}</ul>',
        f'<h2>Runs</h2><ul class="files">{folders}</ul>',
    ]
    return document(f"Comparison of {', '.join(names)}", "\n".join(block for block in blocks if block), style=STYLE)


def overlaid_curves(histories: Histories, key: str, title: str, ylabel: str, top: float | None = None) -> Figure | None:
    """One history key of all runs per epoch; None where no run has it. No two of 20 runs look the same.

    The axis begins at 0, or at a lower value that there is, and ends at `top`, since a cut axis flatters; None leaves
    room for the largest value.
    """
    curves = {
        name: [(row["epoch"], float(row[key])) for row in history if row.get(key) is not None]
        for name, history in histories.items()
    }
    if not any(curves.values()):
        return None
    figure = Figure(figsize=plots.NARROW, layout="constrained")
    axes = figure.add_subplot()
    for place, (name, points) in enumerate(curves.items()):
        axes.plot(
            [epoch for epoch, _ in points],
            [value for _, value in points],
            color=COLOURS[place % len(COLOURS)],
            marker=MARKERS[place % len(MARKERS)],
            linestyle=LINES[place // len(COLOURS) % len(LINES)],
            markersize=4.5,
            linewidth=1.8,
            label=shorten(name).replace("$", r"\$").lstrip("_"),  # $ opens a formula, _ hides a curve
        )
    axes.set(title=title, xlabel="epoch", ylabel=ylabel)
    values = [value for points in curves.values() for _, value in points]
    axes.set_ylim(None if min(values) < 0 else 0, 1.05 * max(values) if top is None and max(values) > 0 else top)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(color=plots.GRID, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=plots.LEGEND_SIZE)
    return figure


# --- the tables, as text -----------------------------------------------------------------------------------------


def score_rows(report: Report) -> list[Row]:
    """Scores with their 95 % intervals, gap, time and size of every run."""
    runs, noun = report["runs"], task_of(report).noun
    metrics = dict.fromkeys([report["metric"], *task_of(report).scores])
    tested = [(f"test {ALL_METRIC_WORDS[metric]}", [_score(run["test"], metric) for run in runs]) for metric in metrics]
    validated = f"validation {ALL_METRIC_WORDS[report['metric']]}"
    folds = [("folds", [_folds(run["folds"]) for run in runs])] if any(run["folds"] for run in runs) else []
    return [
        *tested,
        *_half_rows(report),
        *_target_rows(report),
        (validated, [_score(run["val"], report["metric"]) for run in runs]),
        ("gap", [gap_words(run["gap"]) for run in runs]),
        ("training time", [duration(run["training_seconds"]) for run in runs]),
        ("best epoch", [_best_epoch(run) for run in runs]),
        ("parameters", [_parameters(run["parameters"]) for run in runs]),
        (f"test {noun}s", [whole((run["test"] or {}).get(f"{noun}s")) for run in runs]),
        *folds,
    ]


def _half_rows(report: Report) -> list[Row]:
    """The judged score of the test questions with, and of those without an answer, where a run has both."""
    metric, tests = report["metric"], [run["test"] or {} for run in report["runs"]]
    return [
        (f"{ALL_METRIC_WORDS[metric]}, {words}", [_score(test.get(half), metric) for test in tests])
        for half, words in HALVES.items()
        if any(half in test for test in tests)
    ]


def _target_rows(report: Report) -> list[Row]:
    """The macro F1 of every target that a run has."""
    by_run = [run.get("targets") or {} for run in report["runs"]]
    names = dict.fromkeys(name for of_run in by_run for name in of_run)
    return [
        (
            metric_words(f"{name}/f1_macro"),
            [_score((of_run.get(name) or {}).get("test"), "f1_macro") for of_run in by_run],
        )
        for name in names
    ]


def _shared(report: Report) -> int:
    """How many documents or questions all runs have."""
    return int(report[f"shared_{task_of(report).noun}s"])


def setting_rows(report: Report) -> list[Row]:
    """Dotted keys and their values as they would be typed; a dash for null and for what a run does not have."""
    return [(key, [_setting(value) for value in values]) for key, values in report["settings"].items()]


def _setting(value: Any) -> str:
    if value is None:
        return UNKNOWN
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _score(scores: Mapping[str, Any] | None, metric: str) -> str:
    if not scores:
        return UNKNOWN
    bounds, deviation = ((scores.get(key) or {}).get(metric) for key in ("ci95", "std"))
    beside = f" ({decimal(bounds[0])}–{decimal(bounds[1])})" if bounds else ""
    return decimal(scores.get(metric)) + beside + (f" ± {decimal(deviation)}" if deviation is not None else "")


def _best_epoch(run: Mapping[str, Any]) -> str:
    return UNKNOWN if run["best_epoch"] is None else f"{run['best_epoch']} of {whole(run['epochs'])}"


def _folds(folds: Mapping[str, Any] | None) -> str:
    if not folds:
        return UNKNOWN
    return f"{folds['num_folds'] - len(folds['missing'])} of {folds['num_folds']}"


def _parameters(parameters: Mapping[str, Any] | None) -> str:
    known = parameters or {}
    trained = f" ({whole(known['trainable'])} trained)" if known.get("trainable") is not None else ""
    return whole(known.get("total")) + trained


def _side_by_side(report: Report, names: list[str]) -> tuple[list[str], list[str]]:
    """Scores and settings, as two blocks whose columns stand below each other."""
    scores, settings = score_rows(report), setting_rows(report)
    lines = _table("SCORES", names, [*scores, ("SETTINGS THAT DIFFER", names), *settings])
    below = len(scores) + 1
    return lines[:below], lines[below:] if settings else ["SETTINGS THAT DIFFER: none"]


def _table(head: str, names: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """Columns as wide as their cells; what is wider than CELL_WIDTH loses its middle."""
    lines = [(head, list(names)), *rows]
    first = min(NAME_WIDTH, max(len(name) for name, _ in lines))
    widths = [min(CELL_WIDTH, max(len(cells[place]) for _, cells in lines)) for place in range(len(names))]
    return [
        SPACE.join(
            [
                f"{shorten(name, first):<{first}}",
                *(f"{shorten(cell, width):<{width}}" for cell, width in zip(cells, widths, strict=True)),
            ]
        ).rstrip()
        for name, cells in lines
    ]


def _test_rows(report: Report) -> list[Row]:
    """Each other run: difference to the best with its interval, documents that only one had right, p."""
    several = len(report["comparisons"]) > 1
    return [
        (
            each["other"],
            [
                _difference(each),
                f"{each['only_best_right']:,} : {each['only_other_right']:,}",
                p_words(each["p"]) + (f", Holm {p_words(each['p_holm'])}" if several else ""),
                {"better": "worse", "unclear": "not told apart", "too_few": "too few"}[each["status"]],
            ],
        )
        for each in report["comparisons"]
    ]


def _test_heads(report: Report) -> tuple[str, list[str]]:
    best, task = report["best"], task_of(report)
    return f"TEST AGAINST {best}", [ALL_METRIC_WORDS[report["metric"]], task.count_head, task.test_head, "verdict"]


def _tests(report: Report) -> list[str]:
    if not report["comparisons"]:
        return []
    head, columns = _test_heads(report)
    return _table(head, columns, _test_rows(report))


def _by_target(report: Report) -> tuple[list[str], list[Row]]:
    """The other runs, and of every target the difference of the best run to each of them; nothing without targets."""
    against = {each["other"]: each["targets"] for each in report["comparisons"] if "targets" in each}
    names = dict.fromkeys(name for targets in against.values() for name in targets)
    return list(against), [(name, [_difference(targets[name]) for targets in against.values()]) for name in names]


def _target_tests(report: Report) -> list[str]:
    others, rows = _by_target(report)
    return _table(f"MACRO F1: {report['best']} MINUS", others, rows) if rows else []


def _difference(found: Mapping[str, float]) -> str:
    return f"{found['difference']:+.3f} ({found['low']:+.3f} to {found['high']:+.3f})"


def _wrapped(text: str, mark: str = "") -> list[str]:
    indent = " " * len(mark)
    return textwrap.wrap(text, WIDTH, initial_indent=mark, subsequent_indent=indent, break_on_hyphens=False)


# --- the same, as HTML -------------------------------------------------------------------------------------------


def _html_table(columns: Sequence[str], rows: Sequence[Row]) -> str:
    head = "".join(f"<th>{isolated(name)}</th>" for name in columns)
    body = "\n".join(
        f'<tr><td class="name">{isolated(name)}</td>{"".join(f"<td>{isolated(cell)}</td>" for cell in cells)}</tr>'
        for name, cells in rows
    )
    return (
        f'<div class="scroll" tabindex="0"><table><thead><tr><th></th>{head}</tr></thead><tbody>\n{body}\n'
        "</tbody></table></div>"
    )


def _html_tests(report: Report) -> str:
    if not report["comparisons"]:
        return ""
    task = task_of(report)
    best = isolated(report["best"])
    lead = (
        f"The loss of {best} minus that of the other run" if task.lower_is_better else f"By how much {best} is higher"
    )
    return (
        f"<h2>Tested against {isolated(report['best'])}</h2>{_html_table(_test_heads(report)[1], _test_rows(report))}"
        f'<p class="soft">{lead} on the same '
        f"{counted(_shared(report), task.noun)}, with a 95 % interval from 1,000 resamples of them; how many only it, "
        f"and how many only the other run {task.right}; {task.exact_test} of these two numbers.</p>"
    )


def _html_target_tests(report: Report) -> str:
    others, rows = _by_target(report)
    if not rows:
        return ""
    return (
        f"<h2>By target</h2>{_html_table(others, rows)}"
        f'<p class="soft">By how much the macro F1 of {isolated(report["best"])} is higher than that of each other '
        "run, on the same resamples of the shared texts.</p>"
    )


def _html_gates(outcomes: Sequence[Mapping[str, Any]]) -> str:
    if not outcomes:
        return ""
    items = "".join(
        f'<li class="{"success" if each["passed"] else "error"}"><span class="tag">'
        f"{'passed' if each['passed'] else 'failed'}</span> {escaped(each['sentence'])}</li>"
        for each in outcomes
    )
    return f'<h2>Gates</h2><ul class="files">{items}</ul>'


def _html_curves(histories: Histories, report: Report) -> str:
    word, loss = ALL_METRIC_WORDS[report["metric"]], "cross entropy, nats"
    figures = {"Validation loss of the runs": overlaid_curves(histories, "val_loss", "Validation loss", loss)}
    if task_of(report).lower_is_better:
        figures["Gap of the runs"] = overlaid_curves(histories, "gap", "Validation minus training loss", loss)
    else:
        figures[f"Validation {word} of the runs"] = overlaid_curves(
            histories, f"val_{report['metric']}", f"Validation {word}", word, top=1
        )
    drawn = [f"<figure>{plots.svg(figure, name)}</figure>" for name, figure in figures.items() if figure is not None]
    return f'<div class="curves">{"".join(drawn)}</div>' if drawn else "<p>No run kept any.</p>"


def _html_means(report: Report) -> str:
    if not any(run["folds"] for run in report["runs"]):
        return ""
    words = "The curve of a k-fold multirun is the mean of its folds, up to the last epoch that all have."
    return f'<p class="soft">{words}</p>'
