"""What the folds of a multirun say together, as a page of plain text of at most 100 columns."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from doctune.reports.numbers import UNKNOWN, counted, decimal
from doctune.reports.plots import shorten
from doctune.reports.reader import FEW_ARTICLES
from doctune.reports.reader_summary import HALVES
from doctune.reports.records import CLASSIFICATION, INSTRUCTIONS, MULTI_TASK, QUESTION_ANSWERING
from doctune.reports.summary import INDENT, WIDTH, paragraph
from doctune.reports.suspects import Suspect, can_find_suspects
from doctune.reports.verdict import ANSWER_METRIC_WORDS, COMPLETION_METRIC_WORDS, METRIC_WORDS, metric_words

MAX_FOLDS = 20
MAX_SUSPECTS = 5
Results = Mapping[str, Any]


@dataclass(frozen=True)
class Wording:
    """How the folds of a task are told of.

    `noun` is what was judged and `judged` what was done with it; `summary` are the scores that the text names beside
    the compared one, `losses` and `tested` the columns of a fold before and after the monitored score, and `column` is
    how many characters a column has. `has_labels` is whether there are classes, and labels that can be wrong, and
    `no_suspects` why those are not looked for. `unit` says what losses are in.
    """

    noun: str
    judged: str
    metrics: Mapping[str, str]
    summary: tuple[str, ...]
    losses: Mapping[str, str]
    tested: tuple[str, ...]
    column: int
    has_labels: bool
    no_suspects: str = ""
    unit: str = ""


WORDINGS = {
    CLASSIFICATION: Wording(
        noun="document",
        judged="judged",
        metrics=METRIC_WORDS,
        summary=("f1_macro", "accuracy"),
        losses={"best_val_loss": "best val loss", "final_val_loss": "final val loss"},
        tested=(),
        column=16,
        has_labels=True,
        unit="The log loss is in nats.",
    ),
    QUESTION_ANSWERING: Wording(
        noun="question",
        judged="answered",
        metrics=ANSWER_METRIC_WORDS,
        summary=("f1", "exact_match"),
        losses={"best_val_loss": "best val loss"},
        tested=("f1", "exact_match"),
        column=17,
        has_labels=False,
        no_suspects="Suspect labels are looked for in the predictions of classifiers: an answer has no label.",
    ),
    MULTI_TASK: Wording(
        noun="text",
        judged="judged",
        metrics={"f1_macro": "mean macro F1"},
        summary=("f1_macro",),
        losses={"best_val_loss": "best val loss"},
        tested=("f1_macro",),
        column=17,
        has_labels=False,
        no_suspects="Suspect labels are looked for in the predictions of classifiers, which have one target.",
    ),
    INSTRUCTIONS: Wording(
        noun="conversation",
        judged="judged",
        metrics=COMPLETION_METRIC_WORDS | ANSWER_METRIC_WORDS,
        summary=("loss", "perplexity"),
        losses={"final_val_loss": "final val loss"},
        tested=(),
        column=21,
        has_labels=False,
        no_suspects="Suspect labels are looked for in the predictions of classifiers: a conversation has no label.",
        unit="Losses are in nats. Completions are compared with their answers on the prompts that were answered.",
    ),
}


def wording(results: Results) -> Wording:
    """That of the task; classifiers do not name theirs."""
    return WORDINGS[results.get("task", CLASSIFICATION)]


def summarize_folds(results: Results, suspects: Sequence[Suspect] | None, directory: Path, files: Sequence[str]) -> str:
    """The page made from `kfold_results.json`; `suspects` are None where they were not looked for."""
    blocks = [
        [f"doctune folds: {shorten('/'.join(directory.resolve().parts[-3:]), WIDTH - 15)}"],
        paragraph("RESULT", result_sentence(results)),
        _folds(results),
        _pooled(results),
        _targets(results),
        _missing(results, directory),
        _suspects(results, suspects),
        paragraph("FILES", ", ".join(files)),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def result_sentence(results: Results) -> str:
    """Mean and spread of the monitored score, how many folds have finished, and the best one."""
    done = results["num_folds"] - len(results["missing"])
    of_all = f"{done} of {counted(results['num_folds'], 'fold')} finished"
    if results["mean"] is None:
        return f"{of_all}: there is no score of {results['metric']} yet."
    if results["std"] is None:
        spread = "one fold has no standard deviation"
    else:
        spread = (
            f"mean ± standard deviation of the folds, whose training {wording(results).noun}s overlap; min "
            f"{decimal(results['min'])}, max {decimal(results['max'])}"
        )
    best = next(row for row in results["folds"] if row["fold"] == results["best_fold"])
    deviation = "" if results["std"] is None else f" ± {decimal(results['std'])}"
    return (
        f"{results['metric']} {decimal(results['mean'])}{deviation} ({spread}); {of_all}. Best fold: "
        f"{results['best_fold']} ({best['path']})."
    )


def fold_heads(results: Results) -> tuple[str, ...]:
    """What the numbers of `fold_rows` are."""
    tested = (f"test {metric_words(metric)}" for metric in _tested(results))
    return (*wording(results).losses.values(), results["metric"], *tested)


def fold_rows(results: Results) -> list[tuple[int, str, list[float | None]]]:
    """Number, status and numbers of every fold, missing ones included."""
    known = {row["fold"]: row for row in results["folds"]}
    rows = []
    for number in range(results["num_folds"]):
        row = known.get(number, {"status": "missing"})
        values = [row.get(key) for key in (*wording(results).losses, "monitor")]
        tested = [(row.get("test") or {}).get(metric) for metric in _tested(results)]
        rows.append((number, row["status"], [*values, *tested]))
    return rows


def _tested(results: Results) -> list[str]:
    """The scores of each fold's test part, that which compares with the monitored one first."""
    return list(dict.fromkeys([results["test_metric"], *wording(results).tested]))


def _folds(results: Results) -> list[str]:
    """A line per fold; many folds are cut."""
    column = wording(results).column
    heads = "".join(f"{shorten(head, column - 1):>{column}}" for head in fold_heads(results))
    lines = [f"fold  status       {heads}"]
    for number, status, values in fold_rows(results):
        numbers = "".join(f"{decimal(value):>{column}}" for value in values)
        lines.append(f"{number:>4}  {shorten(status, 12):<13}{numbers}")
    if len(lines) > MAX_FOLDS + 1:
        lines[MAX_FOLDS + 1 :] = [f"{len(lines) - MAX_FOLDS - 1} more in kfold_results.json"]
    return [f"{'FOLDS' if place == 0 else '':<{INDENT}}{line}" for place, line in enumerate(lines)]


def _pooled(results: Results) -> list[str]:
    sentences = [*half_sentences(results), articles_sentence(results)]
    return [
        *paragraph("POOLED", pooled_sentence(results)),
        *(line for sentence in sentences for line in paragraph("", sentence)),
    ]


def _targets(results: Results) -> list[str]:
    """A line per target, and one for their mean; many targets are cut."""
    rows = target_rows(results)
    if not rows:
        return []
    heads = "".join(f"{head:>{width}}" for head, width in zip(TARGET_HEADS, _TARGET_WIDTHS, strict=True))
    lines = [f"{'macro F1':<27}{heads}"]
    for name, cells in rows[: MAX_FOLDS + 1]:
        numbers = "".join(f"{cell:>{width}}" for cell, width in zip(cells, _TARGET_WIDTHS, strict=True))
        lines.append(f"{shorten(name, 26):<27}{numbers}")
    if len(rows) > MAX_FOLDS + 1:
        lines.append(f"{len(rows) - MAX_FOLDS - 1} more in kfold_results.json")
    return [f"{'TARGETS' if place == 0 else '':<{INDENT}}{line}" for place, line in enumerate(lines)]


TARGET_HEADS = ("val, folds", "test, folds", "out-of-fold")
_TARGET_WIDTHS = (17, 17, 23)


def target_rows(results: Results) -> list[tuple[str, list[str]]]:
    """Of the mean of several targets and of each: its mean ± deviation over folds, and its out-of-fold score."""
    if "targets" not in results:
        return []
    together = results["combined"] | {"oof": results["oof"]}
    return [
        (name, [spread_words(found["val"]), spread_words(found["test"]), _out_of_fold(found["oof"])])
        for name, found in [("mean of all targets", together), *results["targets"].items()]
    ]


def spread_words(spread: Mapping[str, float | None] | None) -> str:
    """Mean and standard deviation over folds; one fold has no deviation."""
    if spread is None:
        return UNKNOWN
    return decimal(spread["mean"]) + ("" if spread["std"] is None else f" ± {decimal(spread['std'])}")


def _out_of_fold(scores: Mapping[str, Any] | None) -> str:
    return UNKNOWN if scores is None else with_interval(scores, "f1_macro")


def pooled_sentence(results: Results) -> str:
    """The out-of-fold scores."""
    scores, words = results["oof"], wording(results)
    if scores is None:
        return f"No fold has finished, so no {words.noun} has an out-of-fold prediction yet."
    shown = _score_words(scores, dict.fromkeys([results["test_metric"], *words.summary]), words.metrics)
    return f"Out-of-fold {shown} on {judged_words(results)}; 95 % intervals over {words.noun}s."


def half_sentences(results: Results) -> list[str]:
    """The scores of the questions with, and of those without an answer; nothing where all have one."""
    scores, metrics = results["oof"] or {}, ANSWER_METRIC_WORDS
    return [
        f"{scores[half]['questions']:,} {words}: {_score_words(scores[half], metrics, metrics)}."
        for half, words in HALVES.items()
        if half in scores
    ]


def articles_sentence(results: Results) -> str:
    """That the questions are about few articles; nothing where they are not, and for documents."""
    articles = (results["oof"] or {}).get("articles")
    if articles is None or articles >= FEW_ARTICLES:
        return ""
    return (
        f"The questions are about {counted(articles, 'article')}. Questions of one article are not independent of each "
        "other, so the intervals are too narrow."
    )


def judged_words(results: Results) -> str:
    """How many documents or questions were judged, and by whom."""
    words = wording(results)
    count = counted(results["oof"][f"{words.noun}s"], words.noun)
    return f"{count}, each {words.judged} by a model that neither trained on it nor was chosen by it"


def _score_words(scores: Mapping[str, Any], metrics: Iterable[str], words: Mapping[str, str]) -> str:
    """Scores with their intervals; those that `words` does not name are named as everywhere."""
    return ", ".join(f"{words.get(name) or metric_words(name)} {with_interval(scores, name)}" for name in metrics)


def with_interval(scores: Mapping[str, Any], metric: str) -> str:
    """A score with its 95 % interval."""
    low, high = (scores.get("ci95") or {}).get(metric) or (None, None)
    return f"{decimal(scores.get(metric))} ({decimal(low)}–{decimal(high)})"


def missing_sentence(results: Results) -> str:
    """Which folds there are no scores of; nothing where all have finished."""
    missing = results["missing"]
    if not missing:
        return ""
    states = {row["fold"]: row["status"] for row in results["folds"]}
    listed = ", ".join(f"{number} ({states.get(number, 'not begun')})" for number in missing[:MAX_FOLDS])
    more = f" and {len(missing) - MAX_FOLDS} more" if len(missing) > MAX_FOLDS else ""
    return (
        f"{counted(len(missing), 'fold')} without a finished run: {listed}{more}. Finished folds are skipped when the "
        "multirun goes on in its folder."
    )


def ways_on(directory: Path) -> tuple[str, str]:
    """What to type so that the missing folds are made."""
    shown = directory.resolve()
    shown = shown.relative_to(Path.cwd()) if shown.is_relative_to(Path.cwd()) else shown
    place = shlex.quote(str(shown))
    return f"hydra.sweep.dir={place}", f"python train.py resume={place}"


def _missing(results: Results, directory: Path) -> list[str]:
    if not results["missing"]:
        return []
    start, resume = ways_on(directory)
    return [
        *paragraph("MISSING", missing_sentence(results)),
        f"{'':<{INDENT}}Start the same multirun again with: {start}",
        f"{'':<{INDENT}}or, where multirun.yaml is in it: {resume}",
    ]


def why_no_suspects(results: Results, suspects: Sequence[Suspect] | None) -> tuple[str, str]:
    """Why there is no list of suspect labels, and what to type if that helps; nothing where there is one."""
    if not wording(results).has_labels:
        return wording(results).no_suspects, ""
    if suspects is None and results["missing"]:
        return "Suspect labels are looked for when all folds have finished.", ""
    if suspects is None and not can_find_suspects():
        sentence = "Suspect labels were not looked for: cleanlab (Apache-2.0 since 2.8, AGPL-3.0 before) is missing."
        return sentence, "pip install 'doctune[labels]'"
    if suspects is None:
        return (
            f"Suspect labels were not looked for: the models are right about {results['oof']['accuracy']:.0%} of the "
            "documents that they have not seen, and those that are wrong about most cannot tell whose label is wrong.",
            "",
        )
    return ("", "") if suspects else ("No label looks wrong to the models that have not seen it.", "")


def suspects_sentence(suspects: Sequence[Suspect]) -> str:
    """How many labels look wrong, as the opening of their list."""
    verb = "looks" if len(suspects) == 1 else "look"
    return f"{counted(len(suspects), 'label')} {verb} wrong"


def _suspects(results: Results, suspects: Sequence[Suspect] | None) -> list[str]:
    """The labels that are most probably wrong, or why there are none."""
    reason, command = why_no_suspects(results, suspects)
    if not suspects:
        return [*paragraph("LABELS", reason), *([f"{'':<{INDENT}}{command}"] if command else [])]
    lines = paragraph("LABELS", f"{suspects_sentence(suspects)}; given -> suggested, probabilities:")
    for suspect in suspects[:MAX_SUSPECTS]:
        change = f"{shorten(suspect.label, 20)} -> {shorten(suspect.suggested_label, 20)}"
        chances = f"{suspect.label_probability:.3f} -> {suspect.suggested_probability:.3f}"
        room = WIDTH - INDENT - len(change) - len(chances) - 4
        lines.append(f"{'':<{INDENT}}{change}  {chances}  {shorten(suspect.path, max(room, 20))}".rstrip())
    if len(suspects) > MAX_SUSPECTS:
        lines.append(f"{'':<{INDENT}}{len(suspects) - MAX_SUSPECTS:,} more in suspect_labels.csv")
    return lines
