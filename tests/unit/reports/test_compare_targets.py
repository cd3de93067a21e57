"""What a comparison of runs with several targets says: scores, tests on the same texts, gates by target."""

from __future__ import annotations

import json
import re

import pytest

from doctune.errors import ArtifactError, ConfigError
from doctune.reports import compare as comparing
from doctune.reports.compare_page import page, summarize
from doctune.reports.gates import apply_gates, parse_gate
from doctune.reports.run import write_report


@pytest.fixture
def finish(make_targets_run, judged):
    """A run that has finished and has its report; of its 40 texts the first `right` have their kind right."""

    def make(name, right=40, *, wrong_tags=0, test=None, **settings):
        run = make_targets_run(name, test=test or judged(right, wrong_tags=wrong_tags), **settings)
        write_report(run)
        (run / "status.json").write_text(json.dumps({"phase": "finished"}))
        return run

    return make


def compared(*given, gates=()):
    folders, left_out = comparing.find_runs(given)
    runs = comparing.read_compared(folders)
    return runs, comparing.compare(runs, left_out, [parse_gate(gate) for gate in gates])


def test_a_better_run_is_named_with_its_lead_on_each_target(finish):
    _, report = compared(finish("poor", 20), finish("good"))
    assert (report["task"], report["metric"], report["best"], report["shared_texts"]) == (
        "multi_task", "f1_macro", "good", 40,
    )  # fmt: skip
    (against,) = report["comparisons"]
    # Of 36 texts 8 that are y are said to be x: F1 40 / 48 and 16 / 24.
    assert against["difference"] == pytest.approx(0.125)
    assert 0 < against["low"] < 0.125 < against["high"]
    assert against["targets"]["kind"]["difference"] == pytest.approx(0.25)
    assert against["targets"]["tags"] == {"difference": 0, "low": 0, "high": 0}
    assert (against["only_best_right"], against["only_other_right"], against["p"]) == (8, 0, 2 / 2**8)
    assert (against["same_labels"], against["status"]) == (False, "better")
    assert re.fullmatch(
        r"good is better than poor: macro F1 \+0\.125 \(\+0\.\d{3} to \+0\.\d{3}\) on the same 40 texts \(sign test "
        r"p = 0\.008\)\.",
        report["verdict"],
    )
    assert report["notes"][:2] == [
        "Macro F1, where no target is named, is the mean over kind and tags.",
        "The intervals of single targets are not corrected for there being several.",
    ]
    assert report["runs"][0]["targets"]["kind"]["test"]["f1_macro"] == pytest.approx(0.75)
    assert report == json.loads(json.dumps(report))


def test_text_and_page_have_a_row_for_each_target(finish, read_html):
    runs, report = compared(finish("poor", 20), finish("good"))
    lines = [re.split(r" {2,}", line) for line in summarize(report).splitlines()]
    cells = {head: rest for head, *rest in lines}
    assert cells["macro F1, kind"][0].startswith("0.750 (0.")
    assert cells["macro F1, tags"] == ["1.000 (1.000–1.000)", "1.000 (1.000–1.000)"]
    assert cells["test texts"] == ["40", "40"]
    assert cells["TEST AGAINST good"] == ["macro F1", "one better", "sign test", "verdict"]
    assert cells["MACRO F1: good MINUS"] == ["poor"]
    assert cells["tags"] == ["+0.000 (+0.000 to +0.000)"]
    html = page(report, {run.name: run.records.history for run in runs})
    read = read_html(html)
    assert read.open == []
    words = " ".join("".join(f"{text} " for text in read.text).split())
    assert "By target poor kind +0.250 (" in words
    assert (
        "how many only the other run labelled better, by the F1 of the labels of a text; the exact sign test" in words
    )


def test_a_lead_that_few_texts_carry_is_no_better_run(finish):
    _, report = compared(finish("a", 36), finish("b", 36, wrong_tags=10))
    (against,) = report["comparisons"]
    # Said b: text 0 has a and b, 2, 4, 6 and 8 have a, 5 has b, four have none.
    assert (against["best"], against["only_best_right"], against["only_other_right"]) == ("a", 9, 0)
    _, report = compared(finish("c", 36), finish("d", 40))
    (against,) = report["comparisons"]
    assert (against["only_best_right"], against["p"], against["status"]) == (1, 1.0, "unclear")


def test_the_same_labels_are_said(finish):
    _, report = compared(finish("a"), finish("b"))
    assert report["verdict"] == "a and b cannot be told apart: they label the same 40 texts alike."


def test_only_targets_that_all_runs_have_are_tested(finish):
    _, report = compared(finish("both"), finish("one", labels={"kind": ["y", "x"]}))
    assert report["notes"][:2] == [
        "Macro F1, where no target is named, is that of kind.",
        "Not tested, since not all runs have it: tags.",
    ]
    assert [*report["comparisons"][0]["targets"]] == ["kind"]
    _, report = compared(finish("kinds", labels={"kind": ["x", "y"]}), finish("tags", labels={"tags": ["a", "b"]}))
    assert report["verdict"] == "No significance test: kinds and tags have no target of one kind in common."


def test_other_true_labels_are_not_compared(finish, judged):
    rows = judged(40)
    rows[3]["tags/truth"] = ["a"]
    _, report = compared(finish("a"), finish("b", test=rows))
    assert report["verdict"] == (
        "No significance test: 1 of 40 shared test texts have other true labels in b than in a."
    )


def test_runs_of_other_tasks_have_no_score_in_common(finish, make_run):
    classifier = make_run("classifier")
    write_report(classifier)
    (classifier / "status.json").write_text('{"phase": "finished"}')
    with pytest.raises(ArtifactError) as refused:
        compared(finish("targets"), classifier)
    assert str(refused.value) == (
        "classifier labels documents and targets labels texts, so they have no score in common: compare runs of one "
        "task."
    )


def test_gates_are_on_the_mean_and_on_single_targets(finish):
    reports = {"poor": json.loads((finish("poor", 20) / "report/report.json").read_text())}
    gates = ["f1_macro>0.9", "kind/f1_macro>=0.75", "val_tags/exact_match>=1", "gap<0.15"]
    outcomes = apply_gates([parse_gate(gate) for gate in gates], reports)
    assert [outcome.passed for outcome in outcomes] == [False, True, True, True]
    assert outcomes[0].sentence == "poor: f1_macro 0.875 is not above 0.9."
    assert outcomes[1].sentence == "poor: kind/f1_macro 0.75 is >= 0.75."


def test_a_gate_on_a_target_that_there_is_not_is_refused(finish):
    reports = {"good": json.loads((finish("good") / "report/report.json").read_text())}
    with pytest.raises(
        ConfigError, match=r"^--gate 'mood/f1_macro>0\.4': there is no metric 'mood/f1_macro'\. There are"
    ):
        apply_gates([parse_gate("mood/f1_macro > 0.4")], reports)


def test_a_k_fold_multirun_is_one_column_with_its_targets(finish, judged):
    def folds(name, right):
        for fold in range(2):
            config = {
                "monitor": {"metric": "val/f1_macro", "mode": "max"},
                "split": {"kind": "kfold", "folds": 2, "fold": fold},
                "optim": {"lr": right / 1000},
            }
            run = finish(f"{name}/fold-{fold}", test=judged(right, prefix=f"{fold}-"), config=config)
        return run.parent

    _, report = compared(folds("poor", 20), folds("good", 40), gates=["kind/f1_macro>0.7", "val_kind/f1_macro>=1"])
    assert (report["best"], report["shared_texts"]) == ("good", 80)
    poor = report["runs"][0]
    assert (poor["folds"], poor["test"]["texts"]) == ({"num_folds": 2, "missing": []}, 80)
    assert poor["targets"]["kind"]["test"]["f1_macro"] == pytest.approx(0.75)
    assert poor["targets"]["kind"]["val"] == {"f1_macro": 1.0, "std": {"f1_macro": 0.0}}
    assert [outcome["passed"] for outcome in report["gates"]] == [True] * 4
