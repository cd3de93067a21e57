"""What the folds of a multirun say together, as a page of plain text of at most 100 columns."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from doctune.reports.numbers import counted, decimal
from doctune.reports.plots import shorten
from doctune.reports.summary import INDENT, WIDTH, paragraph
from doctune.reports.suspects import Suspect, can_find_suspects
from doctune.reports.verdict import METRIC_WORDS

MAX_FOLDS = 20
MAX_SUSPECTS = 5
COLUMN = 16  # characters of a column of numbers
Results = Mapping[str, Any]


def summarize_folds(results: Results, suspects: Sequence[Suspect] | None, directory: Path, files: Sequence[str]) -> str:
    """The page made from `kfold_results.json`; `suspects` are None where they were not looked for."""
    blocks = [
        [f"doctune folds: {shorten('/'.join(directory.resolve().parts[-3:]), WIDTH - 15)}"],
        paragraph("RESULT", _result(results)),
        _folds(results),
        paragraph("POOLED", _pooled(results)),
        _missing(results, directory),
        _suspects(results, suspects),
        paragraph("FILES", ", ".join(files)),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def _result(results: Results) -> str:
    done = results["num_folds"] - len(results["missing"])
    of_all = f"{done} of {counted(results['num_folds'], 'fold')} finished"
    if results["mean"] is None:
        return f"{of_all}: there is no score of {results['metric']} yet."
    if results["std"] is None:
        spread = "one fold has no standard deviation"
    else:
        spread = (
            f"mean ± standard deviation of the folds, whose training documents overlap; min {decimal(results['min'])}, "
            f"max {decimal(results['max'])}"
        )
    best = next(row for row in results["folds"] if row["fold"] == results["best_fold"])
    deviation = "" if results["std"] is None else f" ± {decimal(results['std'])}"
    return (
        f"{results['metric']} {decimal(results['mean'])}{deviation} ({spread}); {of_all}. Best fold: "
        f"{results['best_fold']} ({best['path']})."
    )


def _folds(results: Results) -> list[str]:
    """A line per fold, missing ones included; many folds are cut."""
    test_metric = results["test_metric"]
    heads = ("best val loss", "final val loss", results["metric"], f"test {METRIC_WORDS[test_metric]}")
    lines = ["fold  status       " + "".join(f"{shorten(head, COLUMN - 1):>{COLUMN}}" for head in heads)]
    rows = {row["fold"]: row for row in results["folds"]}
    for number in range(results["num_folds"]):
        row = rows.get(number, {"status": "missing"})
        values = [row.get(key) for key in ("best_val_loss", "final_val_loss", "monitor")]
        values.append((row.get("test") or {}).get(test_metric))
        numbers = "".join(f"{decimal(value):>{COLUMN}}" for value in values)
        lines.append(f"{number:>4}  {shorten(row['status'], 12):<13}{numbers}")
    if len(lines) > MAX_FOLDS + 1:
        lines[MAX_FOLDS + 1 :] = [f"{len(lines) - MAX_FOLDS - 1} more in kfold_results.json"]
    return [f"{'FOLDS' if place == 0 else '':<{INDENT}}{line}" for place, line in enumerate(lines)]


def _pooled(results: Results) -> str:
    scores = results["oof"]
    if scores is None:
        return "No fold has finished, so no document has an out-of-fold prediction yet."
    metrics = list(dict.fromkeys([results["test_metric"], "f1_macro", "accuracy"]))
    shown = ", ".join(f"{METRIC_WORDS[metric]} {_with_interval(scores, metric)}" for metric in metrics)
    return (
        f"Out-of-fold {shown} on {counted(scores['documents'], 'document')}, each judged by a model that neither "
        "trained on it nor was chosen by it; 95 % intervals over documents."
    )


def _with_interval(scores: Mapping[str, Any], metric: str) -> str:
    low, high = (scores.get("ci95") or {}).get(metric) or (None, None)
    return f"{decimal(scores[metric])} ({decimal(low)}–{decimal(high)})"


def _missing(results: Results, directory: Path) -> list[str]:
    """Which folds there are no scores of, and how to make them."""
    missing = results["missing"]
    if not missing:
        return []
    states = {row["fold"]: row["status"] for row in results["folds"]}
    listed = ", ".join(f"{number} ({states.get(number, 'not begun')})" for number in missing[:MAX_FOLDS])
    more = f" and {len(missing) - MAX_FOLDS} more" if len(missing) > MAX_FOLDS else ""
    shown = directory.resolve()
    shown = shown.relative_to(Path.cwd()) if shown.is_relative_to(Path.cwd()) else shown
    start = f"hydra.sweep.dir={shlex.quote(str(shown))}"
    sentence = (
        f"{counted(len(missing), 'fold')} without a finished run: {listed}{more}. Finished folds are skipped when the "
        "multirun goes on in its folder."
    )
    return [
        *paragraph("MISSING", sentence),
        f"{'':<{INDENT}}Start the same multirun again with: {start}",
        f"{'':<{INDENT}}or, where multirun.yaml is in it: python train.py resume={shlex.quote(str(shown))}",
    ]


def _suspects(results: Results, suspects: Sequence[Suspect] | None) -> list[str]:
    """The labels that are most probably wrong, or why they were not looked for."""
    if suspects is None and results["missing"]:
        return paragraph("LABELS", "Suspect labels are looked for when all folds have finished.")
    if suspects is None and not can_find_suspects():
        hint = "Suspect labels were not looked for: cleanlab (Apache-2.0 since 2.8, AGPL-3.0 before) is missing."
        return [*paragraph("LABELS", hint), f"{'':<{INDENT}}pip install 'doctune[labels]'"]
    if not suspects:
        return paragraph("LABELS", "No label looks wrong to the models that have not seen it.")
    verb = "looks" if len(suspects) == 1 else "look"
    lines = paragraph("LABELS", f"{counted(len(suspects), 'label')} {verb} wrong; given -> suggested, probabilities:")
    for suspect in suspects[:MAX_SUSPECTS]:
        change = f"{shorten(suspect.label, 20)} -> {shorten(suspect.suggested_label, 20)}"
        chances = f"{suspect.label_probability:.3f} -> {suspect.suggested_probability:.3f}"
        room = WIDTH - INDENT - len(change) - len(chances) - 4
        lines.append(f"{'':<{INDENT}}{change}  {chances}  {shorten(suspect.path, max(room, 20))}".rstrip())
    if len(suspects) > MAX_SUSPECTS:
        lines.append(f"{'':<{INDENT}}{len(suspects) - MAX_SUSPECTS:,} more in suspect_labels.csv")
    return lines
