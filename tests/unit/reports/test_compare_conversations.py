"""What a comparison of tuned language models says: losses on the same conversations, the gap as a headline, gates."""

from __future__ import annotations

import json

import pytest

from doctune.errors import ArtifactError
from doctune.reports import compare as comparing
from doctune.reports.compare_page import page, summarize
from doctune.reports.gates import parse_gate
from doctune.reports.run import write_report


@pytest.fixture
def finish(make_instruction_run, conversation_rows):
    """A tuned model's run that has finished and has its report; every odd conversation's loss is `lower` than usual."""

    def make(name, lower=0.0, settings=None, rows=None, **facts):
        rows = conversation_rows(lower) if rows is None else rows
        config = {"optim": {"lr": 1e-3}, "monitor": {"metric": "val/loss", "mode": "min"}} | (settings or {})
        run = make_instruction_run(name, test=rows, config=config, **facts)
        write_report(run)
        (run / "status.json").write_text(json.dumps({"phase": "finished"}))
        return run

    return make


def compared(*given, gates=()):
    folders, left_out = comparing.find_runs(given)
    runs = comparing.read_compared(folders)
    return runs, comparing.compare(runs, left_out, [parse_gate(gate) for gate in gates])


def test_the_lower_loss_is_the_better_one(finish):
    runs, report = compared(finish("rough"), finish("careful", lower=4.0))
    assert (report["task"], report["metric"], report["best"]) == ("instruction_tuning", "loss", "careful")
    assert report["shared_conversations"] == 40
    (against,) = report["comparisons"]
    assert against["difference"] == pytest.approx(-0.2)  # 20 of 40 are 4 nats lower, over 10 tokens each
    assert against["low"] < against["difference"] < against["high"] < 0
    assert (against["only_best_right"], against["only_other_right"]) == (20, 0)
    assert against["p"] == pytest.approx(2 / 2**20)
    assert (against["status"], against["same_completes"]) == ("better", False)
    text = " ".join(summarize(report).split())
    assert "careful is better than rough: loss per token -0.200 (-0." in text
    assert "on the same 40 conversations (sign test p < 0.001)." in text
    shown = page(report, {run.name: run.records.history for run in runs})
    assert "The loss of <bdi>careful</bdi> minus that of the other run on the same 40 conversations" in shown
    assert "Validation minus training loss" in shown


def test_the_gap_of_each_stands_in_the_verdict(finish):
    overfit = [{"step": 10, "epoch": 1, "train_loss": 0.5, "val_loss": 2.77, "gap": 2.27}]
    overfit = [row | {"gap_status": "critical", "lr": 1e-3} for row in overfit]
    _, report = compared(finish("v1", checks=overfit), finish("v2"), gates=["gap<0.15"])
    assert report["verdict"] == (
        "v1 and v2 cannot be told apart: they complete the same 40 conversations alike. Gap between validation and "
        "training loss: v1 2.270 (critical) and v2 0.100 (good)."
    )
    assert [(gate["run"], gate["passed"]) for gate in report["gates"]] == [("v1", False), ("v2", True)]


def test_scores_of_losses_and_completions_are_rows(finish):
    _, report = compared(finish("a"), finish("b", lower=4.0), gates=["perplexity<9", "f1>=1", "val_loss<3"])
    lines = summarize(report).splitlines()
    rows = {line[:24].strip(): line[24:].split() for line in lines}
    assert rows["test loss per token"][0] == "2.200"
    assert rows["test perplexity"][0] == "9.025"
    assert rows["test F1"][0] == "1.000"
    assert rows["gap"][:2] == ["0.100", "(good)"]
    passed = {(gate["gate"], gate["run"]): gate["passed"] for gate in report["gates"]}
    assert passed[("perplexity<9", "a")] is False
    assert passed[("perplexity<9", "b")] is True
    assert passed[("f1>=1", "a")] is passed[("val_loss<3", "a")] is True


def test_losses_over_other_tokens_are_not_compared(finish, conversation_rows):
    _, report = compared(finish("a"), finish("b", rows=conversation_rows(tokens=11)))
    assert report["comparisons"] == []
    assert report["verdict"].startswith(
        "No significance test: a and b read the same answers as other tokens, so their losses per token cannot be "
        "compared. Compare runs of one tokenizer and data.max_length."
    )


def test_conversations_with_other_answers_are_not_compared(finish, conversation_rows):
    others = [row | {"reference": "no"} for row in conversation_rows()]
    _, report = compared(finish("a"), finish("b", rows=others))
    assert report["verdict"].startswith(
        "No significance test: 40 of 40 shared test conversations have another answer in b than in a."
    )


def test_a_language_model_and_a_classifier_have_no_score_in_common(finish, make_run):
    classifier = make_run("labels")
    write_report(classifier)
    (classifier / "status.json").write_text(json.dumps({"phase": "finished"}))
    with pytest.raises(ArtifactError, match="labels labels documents and tuned completes conversations, so they have"):
        compared(finish("tuned"), classifier)


def test_folds_of_a_language_model_are_one_run(finish, conversation_rows):
    for fold in range(2):
        split = {"kind": "kfold", "folds": 2, "fold": fold}
        folds = finish(f"cv/fold-{fold}", rows=conversation_rows(prefix=str(fold)), settings={"split": split}).parent
    single = finish("single", rows=[*conversation_rows(4.0, prefix="0"), *conversation_rows(4.0, prefix="1")])
    _, report = compared(folds, single)
    assert (report["best"], report["shared_conversations"]) == ("single", 80)
    assert report["runs"][0]["test"]["loss"] == pytest.approx(2.2)
    assert report["runs"][0]["gap"] == {"value": pytest.approx(0.1), "status": "good"}
