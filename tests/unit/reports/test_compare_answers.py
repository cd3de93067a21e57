"""What a comparison of readers says: scores, the test on the same questions, gates, k-fold multiruns as one column."""

from __future__ import annotations

import json
import re

import pytest

from doctune.errors import ArtifactError, ConfigError
from doctune.reports import compare as comparing
from doctune.reports.compare_page import page, summarize
from doctune.reports.gates import apply_gates, parse_gate
from doctune.reports.run import write_report

# Of four answers one is in the wrong place, one a word too long (F1 2/3), and two are exact.
SAID = ("Paris", "in 1889", "1889", "1889")
CERTAIN = ("Paris", "1889", "1889", "1889")
FEW = (
    "The 40 shared questions are about 1 article. Questions of one article are not independent of each other, so the "
    "intervals are too narrow and p is too small."
)


@pytest.fixture
def finish(make_reader_run, answer):
    """A reader's run that has finished and has its report; it says `said` in turn to 40 questions."""

    def make(name, said=SAID, part="q", questions=40, articles=1, rows=None, **settings):
        if rows is None:
            rows = [
                answer(f"{part}-{row:02}", said[row % len(said)], article=f"{row % articles}")
                for row in range(questions)
            ]
        run = make_reader_run(name, test=rows, **settings)
        write_report(run)
        (run / "status.json").write_text(json.dumps({"phase": "finished"}))
        return run

    return make


@pytest.fixture
def finish_folds(finish):
    """A multirun of three folds with 40 questions each, about an article each."""

    def make(name, said=SAID, lr=0.001):
        for fold in range(3):
            config = {
                "optim": {"lr": lr},
                "monitor": {"metric": "val/f1", "mode": "max"},
                "split": {"kind": "kfold", "folds": 3, "fold": fold},
            }
            history = [{"epoch": 1, "val_loss": 1.0 + fold, "val_f1": 0.25 * fold, "gap": 0.125, "gap_status": "good"}]
            run = finish(f"{name}/fold-{fold}", said, str(fold), config=config, history=history, best_epoch=1)
        return run.parent

    return make


def compared(*given, gates=()):
    folders, left_out = comparing.find_runs(given)
    runs = comparing.read_compared(folders)
    return runs, comparing.compare(runs, left_out, [parse_gate(gate) for gate in gates])


def cells_of(text):
    """What a line of a table is of -> its cells."""
    lines = (re.split(r" {2,}", line) for line in text.splitlines())
    return {head: cells for head, *cells in lines}


def test_a_better_reader_is_named_with_its_lead_in_f1_and_exact_matches(finish):
    _, report = compared(finish("vague"), finish("certain", CERTAIN))
    assert (report["task"], report["metric"], report["best"]) == ("question_answering", "f1", "certain")
    assert report["shared_questions"] == 40
    (against,) = report["comparisons"]
    assert against["difference"] == pytest.approx(10 / 3 / 40)
    assert 0 < against["low"] < against["difference"] < against["high"]
    assert (against["only_best_right"], against["only_other_right"], against["p"]) == (10, 0, 2 / 2**10)
    assert (against["same_answers"], against["status"]) == (False, "better")
    assert report["verdict"].startswith("certain is better than vague: F1 +0.083 (+0.0")
    assert report["verdict"].endswith(") on the same 40 questions (McNemar on exact match p = 0.002).")
    assert report["notes"][0] == FEW
    assert report == json.loads(json.dumps(report))


def test_the_metric_that_all_monitored_is_judged(finish):
    monitor = {"metric": "val/exact_match", "mode": "max"}
    vague, certain = finish("vague", monitor=monitor), finish("certain", CERTAIN, monitor=monitor)
    _, report = compared(vague, certain)
    assert report["verdict"].startswith("certain is better than vague: exact match +0.250 (+0.1")
    assert compared(vague, finish("third"))[1]["metric"] == "f1"


def test_a_lead_in_f1_alone_is_no_better_run(finish):
    _, report = compared(finish("wrong", ("Paris",)), finish("long", ("in 1889",)))
    (against,) = report["comparisons"]
    assert (against["difference"], against["p"], against["tests_disagree"]) == (pytest.approx(2 / 3), 1.0, True)
    assert report["verdict"].startswith("long and wrong cannot be told apart: F1 +0.667 (+0.667 to +0.667) for long on")
    assert (
        "Against wrong the interval and McNemar's test disagree: better is said only where both find it."
        in report["notes"]
    )


def test_the_same_answers_and_too_few_questions_are_said(finish):
    a, b = finish("a"), finish("b")
    assert compared(a, b)[1]["verdict"] == ("a and b cannot be told apart: they answer the same 40 questions alike.")
    few = finish("c", questions=12)
    assert compared(a, few)[1]["verdict"].startswith(
        "a and c cannot be told apart: 12 questions are too few to judge (at least 30); F1 +0.000"
    )


def test_many_articles_need_no_note(finish):
    a, b = finish("a", articles=40, config={"seed": 0}), finish("b", CERTAIN, articles=40, config={"seed": 1})
    assert compared(a, b)[1]["notes"] == [comparing.NOT_KNOWABLE]


def test_only_shared_questions_are_tested(finish):
    _, report = compared(finish("a", questions=60), finish("b", CERTAIN))
    assert report["shared_questions"] == 40
    assert report["notes"][0] == (
        "The runs were judged on different splits: they share 40 test questions of 60 (a) and 40 (b). The scores in "
        "the table are of all questions of each run; the test is on the shared ones."
    )
    assert compared(finish("c"), finish("d", part="other"))[1]["verdict"] == (
        "No significance test: the runs have 0 test questions in common, and two are the least; they were judged on "
        "different splits."
    )


def test_what_cannot_be_tested_is_said(finish, answer):
    a = finish("a")
    rows = [answer(f"q-{row:02}", "1889", references=("1889", "Eiffel") if row < 7 else ("1889",)) for row in range(40)]
    assert compared(a, finish("b", rows=rows))[1]["verdict"] == (
        "No significance test: 7 of 40 shared test questions have other reference answers in b than in a."
    )
    assert compared(a, finish("c", rows=[], baselines={}))[1]["verdict"] == (
        "No significance test: c has no test questions."
    )
    assert compared(a, finish("d", version="2.0"))[1]["verdict"] == (
        "No significance test: a is judged by the rules of SQuAD 1.1 and d by those of 2.0."
    )


def test_a_classifier_and_a_reader_are_refused_in_one_sentence(finish, make_run):
    classifier = make_run("sorter")
    write_report(classifier)
    (classifier / "status.json").write_text('{"phase": "finished"}')
    with pytest.raises(ArtifactError) as refused:
        compared(finish("a"), classifier, finish("b"))
    assert str(refused.value) == (
        "sorter labels documents and a and b answer questions, so they have no score in common: compare runs of one "
        "task."
    )


def test_two_kfold_multiruns_are_two_columns(finish_folds):
    runs, report = compared(finish_folds("vague"), finish_folds("certain", CERTAIN, lr=0.002))
    assert [run["name"] for run in report["runs"]] == ["vague", "certain"]
    assert report["shared_questions"] == 120
    assert report["verdict"].endswith(" on the same 120 questions (McNemar on exact match p < 0.001).")
    run = report["runs"][1]
    assert (run["test"]["questions"], run["test"]["exact_match"], run["test"]["f1"]) == (120, 0.75, 0.75)
    assert (run["val"]["exact_match"], run["val"]["std"]["f1"]) == (0.5, 0)
    assert run["gap"] == {"value": 0.125, "status": "good"}
    assert run["folds"] == {"num_folds": 3, "missing": []}
    assert report["settings"] == {"optim.lr": [0.001, 0.002]}
    (row,) = runs[0].records.history
    assert (row["val_loss"], row["val_f1"]) == (2.0, 0.25)


def test_a_missing_fold_is_noted_and_a_single_run_may_stand_beside(finish_folds, finish):
    part = finish_folds("part")
    (part / "fold-1/status.json").write_text('{"phase": "failed"}')
    _, report = compared(part, finish("single", CERTAIN, "0"))
    assert report["shared_questions"] == 40
    assert report["notes"][1] == "part has 2 of 3 folds: nothing is known of the questions of fold 1."


def test_gates_know_the_scores_of_answers(finish):
    gates = ["exact_match>=0.6", "f1>=0.66", "val_f1>0.5", "gap<0.3", "questions>=40"]
    _, report = compared(finish("vague"), finish("certain", CERTAIN), gates=gates)
    assert [(gate["gate"], gate["run"], gate["passed"]) for gate in report["gates"]] == [
        ("exact_match>=0.6", "vague", False),
        ("exact_match>=0.6", "certain", True),
        *((gate, run, True) for gate in ("f1>=0.66", "val_f1>0.5") for run in ("vague", "certain")),
        *(("gap<0.3", run, False) for run in ("vague", "certain")),
        *(("questions>=40", run, True) for run in ("vague", "certain")),
    ]
    assert report["gates"][0]["sentence"] == "vague: exact_match 0.5 is below 0.6."


def test_a_gate_on_another_tasks_score_lists_those_of_answers():
    with pytest.raises(ConfigError) as refused:
        apply_gates([parse_gate("f1_macro>0.9")], {"a": {"task": "question_answering", "test": None, "val": None}})
    assert str(refused.value) == (
        "--gate 'f1_macro>0.9': there is no metric 'f1_macro'. There are questions, f1, exact_match (of the test part; "
        "with val_ before it, of the validation part), and gap, gap_abs, seconds, parameters."
    )


def test_questions_without_an_answer_have_a_row_and_a_gate(finish, answer):
    def rows(silent):
        known = [answer(f"a-{row}", "1889") for row in range(30)]
        return known + [answer(f"n-{row}", "" if row < silent else "Paris", references=()) for row in range(10)]

    runs = finish("a", rows=rows(5), version="2.0"), finish("b", rows=rows(9), version="2.0")
    _, report = compared(*runs, gates=["no_answer_f1>=0.8"])
    assert [gate["passed"] for gate in report["gates"]] == [False, True]
    cells = cells_of(summarize(report))["F1, questions without one"]
    assert [cell.split()[0] for cell in cells] == ["0.500", "0.900"]


def test_text_and_page_speak_of_questions(finish, read_html):
    runs, report = compared(finish("vague"), finish("certain", CERTAIN))
    shown = summarize(report)
    assert shown.startswith("doctune compare: 2 runs, 40 shared test questions\n")
    assert max(map(len, shown.splitlines())) <= 100
    cells = cells_of(shown)
    assert cells["test F1"] == ["0.667 (0.533–0.792)", "0.750 (0.625–0.900)"]
    assert [cell[:8] for cell in cells["test exact match"]] == ["0.500 (0", "0.750 (0"]
    assert [cell[:8] for cell in cells["validation F1"]] == ["0.667 (0", "0.667 (0"]
    assert cells["training time"] == ["3 min 12 s", "3 min 12 s"]
    assert cells["parameters"] == ["4,500,000 (1,000 trained)"] * 2
    assert cells["test questions"] == ["40", "40"]
    assert cells["vague"][1:] == ["10 : 0", "p = 0.002", "worse"]
    assert "document" not in shown
    read = read_html(page(report, {run.name: run.records.history for run in runs}))
    assert read.open == []
    assert [svg["aria-label"] for svg in read.named("svg")] == [
        "Validation loss of the runs",
        "Validation F1 of the runs",
    ]
    text = "".join(read.text)
    assert report["verdict"] in text
    assert (
        "By how much certain is higher on the same 40 questions, with a 95 % interval from 1,000 resamples of them; "
        "how many only it, and how many only the other run answered exactly; McNemar's exact test of these two numbers."
    ) in text
