"""The report of a run that tuned a language model on instructions, made from the files in its folder.

Shapes: N conversations of a part.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from doctune.files import write_json, write_text
from doctune.reports import facts, instruction_page, plots
from doctune.reports.instruction_records import InstructionRecords, read_instruction_run
from doctune.reports.instruction_summary import perplexity_words, summarize
from doctune.reports.records import INSTRUCTIONS
from doctune.reports.verdict import MIN_DOCUMENTS, PART_WORDS, Status, Verdict
from doctune.scoring.generation import loss_difference, score_completions
from doctune.scoring.intervals import Difference

SCHEMA = 1
METRIC = "perplexity"
NOUN = "conversation"
SAMPLES = 10
FILES = ("index.html", "summary.txt", "report.json", "loss_curves.png", "metric_curve.png")


def write_report(run: Path) -> Path:
    """Write `report/` of a finished run and return the path of its `summary.txt`.

    Raises:
        ArtifactError: a file of the run is missing or damaged; the message names it.
    """
    records = read_instruction_run(run)
    report = build_report(records)
    folder = run / "report"
    write_json(folder / "report.json", report)
    levels = facts.baseline_levels(report["baselines"], METRIC)
    curves = plots.write_curves(records.history, {f"val_{METRIC}": METRIC}, report["best_epoch"], levels, folder)
    write_text(folder / "index.html", instruction_page.page(report, records, curves))
    write_text(folder / "summary.txt", summarize(report))
    return folder / "summary.txt"


def build_report(records: InstructionRecords) -> dict[str, Any]:
    """The content of `report.json`; every value is plain, and a number that is not finite becomes null."""
    part = "test"
    scores = {name: found.scores() for name, found in records.after.items()}
    verdict = judge(records, scores[part], part)
    training = facts.training_facts(records, "val/loss")
    report = {
        "schema": SCHEMA,
        "task": INSTRUCTIONS,
        "verdict": verdict.sentence,
        "comparison": verdict.to_dict(),
        "run": facts.run_name(records),
        "part": part,
        **scores,
        "baselines": records.baselines,
        "samples": _samples(records, part),
        **training,
        "best_step": records.environment.get("best_step"),
        "gap": _gap_of_best_check(records) or training["gap"],
        "learnt_tokens": records.environment.get("learnt_tokens"),
        "account": records.audit,
        "notes": facts.told(records),
        "alarms": records.environment.get("alarms") or [],
        "files": list(FILES),
    }
    plain: dict[str, Any] = facts.finite(report)
    return plain


def judge(records: InstructionRecords, scores: Mapping[str, Any], part: str) -> Verdict:
    """Compare a part's loss with that of the model before training, on the same conversations."""
    before, after = records.before[part], records.after[part]
    own = f"{PART_WORDS[part]} perplexity {_with_interval(scores)}"
    beside = f"{own}, before training {perplexity_words(records.baselines['untrained'][part]['perplexity'])}"
    count = len(after.ids)
    if count < MIN_DOCUMENTS:
        sentence = f"Too few {NOUN}s to judge ({count} of at least {MIN_DOCUMENTS}): {beside}."
        return Verdict("too_few", sentence, METRIC, part, NOUN, count, "untrained")
    difference = loss_difference(after.losses, before.losses, after.tokens)
    status: Status
    if difference.high < 0:
        status, opening = "better", "Better than before training"
    elif difference.low > 0:
        status, opening = "worse", "Worse than before training"
    else:
        status, opening = "unclear", "Cannot be told apart from the model before training"
    sentence = f"{opening}: {beside}; {_change(difference)} on the same {count:,} {NOUN}s."
    return Verdict(
        status, sentence, METRIC, part, NOUN, count, "untrained", difference.value, difference.low, difference.high
    )


def _samples(records: InstructionRecords, part: str) -> list[dict[str, Any]]:
    """The first answers, before and after training, beside their references."""
    before, after = records.before[part], records.after[part]
    answered = [place for place, text in enumerate(after.predictions) if text is not None][:SAMPLES]
    return [
        {
            "id": after.ids[place],
            "place": after.places[place],
            "prompt": after.prompts[place],
            "reference": after.references[place],
            "before": before.predictions[place],
            "after": after.predictions[place],
            "f1": float(score_completions([after.predictions[place] or ""], [after.references[place]]).f1[0]),
            "loss_before": before.losses[place] / before.tokens[place],
            "loss": after.losses[place] / after.tokens[place],
        }
        for place in answered
    ]


def _gap_of_best_check(records: InstructionRecords) -> dict[str, Any] | None:
    """The gap of the weights that were kept, and where it first became critical."""
    kept = next((row for row in records.checks if row["step"] == records.environment.get("best_step")), None)
    if kept is None:
        return None
    onset = next((row for row in records.checks if row["gap_status"] == "critical"), {})
    return {
        "value": kept["gap"],
        "status": kept["gap_status"],
        "onset_epoch": onset.get("epoch"),
        "onset_step": onset.get("step"),
    }


def _with_interval(scores: Mapping[str, Any]) -> str:
    low, high = scores["ci95"][METRIC]
    return f"{perplexity_words(scores[METRIC])} (95 % interval {perplexity_words(low)} to {perplexity_words(high)})"


def _change(difference: Difference) -> str:
    return f"loss per token {difference.value:+.3f} ({difference.low:+.3f} to {difference.high:+.3f})"
