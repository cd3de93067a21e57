"""The verdict on a tuned language model: after against before, on the same conversations."""

from pathlib import Path

import pytest

from doctune.reports.instruction_page import page
from doctune.reports.instruction_records import Conversations, InstructionRecords
from doctune.reports.instruction_summary import summarize
from doctune.reports.instructions import build_report, judge
from doctune.reports.plots import Curves

COUNT = 40


def conversations(losses, predictions=None):
    names = tuple(f"c{number}" for number in range(len(losses)))
    return Conversations(
        names, names, tuple(f"Say {name}." for name in names), names, tuple(losses), (10,) * len(losses),
        predictions or (None,) * len(losses),
    )  # fmt: skip


def records(before, after, predictions=None):
    judged = {part: conversations(before) for part in ("val", "test")}
    tuned = {part: conversations(after, predictions) for part in ("val", "test")}
    checks = [
        {"step": step, "epoch": 1, "train_loss": 1.0, "val_loss": 1 + gap, "gap": gap, "gap_status": name, "lr": 1e-3}
        for step, gap, name in ((4, 0.1, "good"), (8, 0.6, "critical"))
    ]
    history = [
        {"epoch": 1, "train_loss": 1.0, "val_loss": 1.6, "val_perplexity": 5.0, "gap": 0.6, "gap_status": "critical"}
    ]
    baselines = {"untrained": {part: judged[part].scores() for part in judged}}
    environment = {"best_epoch": 1, "best_step": 4, "model": {"name": "mistral"}, "hardware": {}, "git": {}}
    audit = {"rows": 100, "parts": {"train": 20, "val": 40, "test": 40, "left_out": 0}, "truncated": 0}
    return InstructionRecords(
        folder=Path("run"), audit=audit, history=history, baselines=baselines, environment=environment, config={},
        overrides=[], before=judged, after=tuned, checks=checks,
    )  # fmt: skip


BEFORE = [20.0 + number % 5 for number in range(COUNT)]


@pytest.mark.parametrize(
    ("after", "status", "opening"),
    [
        ([loss - 5 for loss in BEFORE], "better", "Better than before training: test perplexity 5.47 (95 % interval "),
        ([loss + 5 for loss in BEFORE], "worse", "Worse than before training: "),
        (
            [loss + (-1) ** number for number, loss in enumerate(BEFORE)],
            "unclear",
            "Cannot be told apart from the model before training: ",
        ),
    ],
)
def test_the_verdict_is_on_the_loss_of_the_same_conversations(after, status, opening):
    found = records(BEFORE, after)
    verdict = judge(found, found.after["test"].scores(), "test")
    assert (verdict.status, verdict.baseline, verdict.count) == (status, "untrained", COUNT)
    assert verdict.sentence.startswith(opening)
    assert verdict.sentence.endswith(" on the same 40 conversations.")


def test_few_conversations_are_not_judged():
    found = records(BEFORE[:12], BEFORE[:12])
    assert judge(found, found.after["test"].scores(), "test").sentence.startswith(
        "Too few conversations to judge (12 of at least 30): "
    )


def test_the_gap_is_that_of_the_check_that_was_kept():
    report = build_report(records(BEFORE, BEFORE))
    assert report["gap"] == {"value": 0.1, "status": "good", "onset_epoch": 1, "onset_step": 8}


def test_page_and_summary_show_answers_beside_references_as_text():
    predictions = ("<b>c0</b>", *[None] * (COUNT - 1))
    found = records(BEFORE, BEFORE, predictions)
    report = build_report(found)
    (sample,) = report["samples"]
    assert (sample["reference"], sample["before"], sample["after"]) == ("c0", None, "<b>c0</b>")
    shown = page(report, found, Curves("", ""))
    assert "&lt;b&gt;c0&lt;/b&gt;" in shown
    summary = summarize(report)
    assert "after training   <b>c0</b>" in summary
    assert all(len(line) <= 100 for line in summary.splitlines())


def test_large_perplexities_fit_the_summary():
    worse = records([3 * loss for loss in BEFORE], [15 * loss for loss in BEFORE])
    summary = summarize(build_report(worse))
    assert all(len(line) <= 100 for line in summary.splitlines())
    assert "  735.10" in summary
    assert "  2.1e+14" in summary
    assert "test perplexity 2.1e+14 (95 % interval " in summary
