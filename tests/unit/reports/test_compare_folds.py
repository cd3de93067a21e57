"""A k-fold multirun as one column of a comparison."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest

from doctune.errors import ArtifactError
from doctune.reports import compare as comparing
from doctune.reports.compare_folds import is_kfold
from doctune.reports.compare_page import page, summarize
from doctune.reports.gates import parse_gate
from doctune.reports.records import read_run
from doctune.reports.run import build_report

MEANS = (
    "{}: test scores are of the pooled out-of-fold predictions; validation scores and gap are means over the folds, "
    "the time is their sum, the size that of the largest."
)


@pytest.fixture
def finish(make_run):
    """A made-up run that has finished and has its report; its documents are named after `part`."""

    def make(name, part="0", **settings):
        run = make_run(name, **settings)
        (run / "report").mkdir()
        (run / "report/report.json").write_text(json.dumps(build_report(read_run(run))))
        (run / "status.json").write_text(json.dumps({"phase": "finished"}))
        path = run / "predictions/test.parquet"
        table = pq.read_table(path)
        ids = [f"{part}-{row}" for row in range(len(table))]
        pq.write_table(table.set_column(0, "id", [ids]), path)
        (run / "predictions/baselines_test.parquet").unlink()
        return run

    return make


@pytest.fixture
def finish_folds(finish):
    """A multirun of three folds with 40 documents each, of which every `wrong_every`-th is wrong."""

    def make(name, wrong_every=4, lr=0.001, **split):
        for fold in range(3):
            config = {
                "optim": {"lr": lr},
                "monitor": {"metric": "val/f1_macro", "mode": "max"},
                "split": {"kind": "kfold", "folds": 3, "fold": fold, **split},
            }
            gap = {"gap": 0.1 * (fold + 1), "gap_status": "good"}
            history = [{"epoch": epoch, "val_loss": epoch / 4 + fold, **gap} for epoch in range(1, 2 + fold)]
            run = finish(
                f"{name}/fold-{fold}",
                str(fold),
                documents=40,
                wrong_every=wrong_every,
                config=config,
                history=history,
                best_epoch=1,
                model={"total": 100 + fold, "trainable": 10 + fold},
            )
        return run.parent

    return make


def compared(*given, gates=()):
    folders, left_out = comparing.find_runs(given)
    runs = comparing.read_compared(folders)
    return runs, comparing.compare(runs, left_out, [parse_gate(gate) for gate in gates])


def drop(fold, phase="failed"):
    (fold / "status.json").write_text(json.dumps({"phase": phase}))


def configure(fold, change):
    """Change the configuration that a run kept."""
    environment = json.loads((fold / "environment.json").read_text())
    change(environment["config"])
    (fold / "environment.json").write_text(json.dumps(environment))


def test_two_kfold_multiruns_are_two_columns_tested_on_the_same_documents(finish_folds):
    _, report = compared(finish_folds("wide", 4), finish_folds("narrow", 8, lr=0.002))
    assert [run["name"] for run in report["runs"]] == ["wide", "narrow"]
    assert report["shared_documents"] == 120
    assert report["verdict"].startswith("narrow is better than wide: macro F1 +0.12")
    assert report["verdict"].endswith(" on the same 120 documents (McNemar p < 0.001).")
    (against,) = report["comparisons"]  # each fold misses 10 and 5 of 40, the 5 among the 10
    assert (against["only_best_right"], against["only_other_right"], against["p"]) == (15, 0, 2 / 2**15)
    assert report["settings"] == {"optim.lr": [0.001, 0.002]}
    assert report["notes"][0] == MEANS.format("wide and narrow")


def test_scores_are_pooled_gap_is_the_mean_time_the_sum_and_size_the_largest(finish_folds):
    _, report = compared(finish_folds("a", 4), finish_folds("b", 8))
    run = report["runs"][0]
    assert (run["test"]["documents"], run["test"]["accuracy"]) == (120, 0.75)
    low, high = run["test"]["ci95"]["f1_macro"]
    assert low < run["test"]["f1_macro"] < high
    assert run["gap"] == {"value": pytest.approx(0.2), "status": "moderate"}
    assert run["training_seconds"] == pytest.approx(3 * 192.4)
    assert run["parameters"] == {"total": 102, "trainable": 12}
    assert run["val"]["accuracy"] == 0.75
    assert run["val"]["std"]["accuracy"] == 0
    assert run["folds"] == {"num_folds": 3, "missing": []}
    assert (run["monitor"]["metric"], run["best_epoch"], run["epochs"]) == ("val/f1_macro", None, None)


def test_the_gap_is_named_by_the_thresholds_of_the_configuration(finish_folds):
    folders = finish_folds("a"), finish_folds("b")
    gap = {"good": 0.01, "moderate": 0.1, "critical": 0.15, "stop": True}
    for fold in folders[0].iterdir():
        configure(fold, lambda config: config.update(callbacks={"gap": gap}))
    _, report = compared(*folders)
    assert [run["gap"]["status"] for run in report["runs"]] == ["critical", "moderate"]


def test_what_one_fold_does_not_know_is_not_known(finish_folds):
    folder, other = finish_folds("a"), finish_folds("b")
    path = folder / "fold-1/report/report.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"training_seconds": None, "gap": {"value": None}}))
    _, report = compared(folder, other)
    assert (report["runs"][0]["training_seconds"], report["runs"][0]["gap"]) == (None, {"value": None, "status": None})


def test_the_curve_is_the_mean_of_the_epochs_that_all_folds_have(finish_folds):
    runs, _ = compared(finish_folds("a"), finish_folds("b"))
    (row,) = runs[0].records.history
    assert (row["epoch"], row["val_loss"], row["val_f1_macro"]) == (1, 1.25, None)


def test_a_kfold_multirun_against_a_run_is_tested_on_the_documents_of_both(finish_folds, finish):
    config = {"optim": {"lr": 0.001}, "split": {"kind": "holdout", "folds": 3, "fold": None}}
    single = finish("single", "1", documents=40, wrong_every=8, config=config)
    _, report = compared(finish_folds("many"), single)
    assert report["shared_documents"] == 40
    assert report["verdict"].startswith("single and many cannot be told apart: macro F1 +0.12")
    assert report["comparisons"][0]["p"] == 2 / 2**5
    assert report["notes"][:2] == [
        MEANS.format("many"),
        "The runs were judged on different splits: they share 40 test documents of 120 (many) and 40 (single). The "
        "scores in the table are of all documents of each run; the test is on the shared ones.",
    ]
    assert report["settings"]["split.kind"] == ["kfold", "holdout"]
    assert "split.fold" not in report["settings"]
    assert report["runs"][1]["folds"] is None


def test_folds_that_are_missing_are_noted_and_only_common_documents_tested(finish_folds):
    whole, part = finish_folds("whole", 8), finish_folds("part", 4)
    drop(part / "fold-1")
    _, report = compared(whole, part)
    assert report["shared_documents"] == 80
    assert report["runs"][1]["folds"] == {"num_folds": 3, "missing": [1]}
    assert report["runs"][1]["test"]["documents"] == 80
    assert report["notes"][1] == "part has 2 of 3 folds: nothing is known of the documents of fold 1."
    drop(part / "fold-2", "training")
    notes = compared(whole, part)[1]["notes"]
    assert notes[1] == "part has 1 of 3 folds: nothing is known of the documents of folds 1 and 2."


def test_a_multirun_without_a_finished_fold_is_left_out(finish_folds):
    folders = finish_folds("a"), finish_folds("b"), finish_folds("c")
    for fold in folders[2].iterdir():
        drop(fold)
    _, report = compared(*folders)
    assert report["notes"][0] == f"Left out: {folders[2]} (none of its folds has finished)."
    assert len(report["runs"]) == 2


def test_one_kfold_multirun_alone_is_refused_with_what_shows_its_folds(finish_folds):
    folder = finish_folds("a")
    with pytest.raises(ArtifactError) as refused:
        comparing.find_runs([folder])
    assert str(refused.value) == (
        f"A comparison needs at least two finished runs, and {folder} gives 1: name another run or a multirun folder. "
        f"A k-fold multirun is one run; `doctune folds {folder}` shows its folds."
    )


def test_folds_that_are_named_one_by_one_are_runs(finish_folds):
    folder = finish_folds("a")
    _, report = compared(folder / "fold-0", folder / "fold-1")
    assert [run["name"] for run in report["runs"]] == ["fold-0", "fold-1"]
    assert report["settings"] == {"split.fold": [0, 1]}


def test_another_multirun_stays_a_column_per_run(finish, finish_folds):
    for number, lr in enumerate((0.001, 0.002)):
        sweep = finish(f"sweep/{number}", config={"optim": {"lr": lr}, "split": {"kind": "holdout"}}).parent
    assert not is_kfold(sweep)
    assert [run["name"] for run in compared(sweep)[1]["runs"]] == ["0", "1"]
    searched = finish_folds("searched")
    configure(searched / "fold-1", lambda config: config["optim"].update(lr=0.5))
    assert not is_kfold(searched)
    assert [run["name"] for run in compared(searched)[1]["runs"]] == ["fold-0", "fold-1", "fold-2"]


def test_one_fold_twice_is_no_kfold_multirun(finish_folds):
    assert is_kfold(finish_folds("a"))
    assert not is_kfold(finish_folds("b", fold=1))


def test_gates_judge_the_pooled_scores(finish_folds):
    gates = ["accuracy>=0.8", "gap<0.3", "parameters<=101", "seconds<600"]
    _, report = compared(finish_folds("a", 4), finish_folds("b", 8), gates=gates)
    assert [(gate["run"], gate["value"], gate["passed"]) for gate in report["gates"][:2]] == [
        ("a", 0.75, False),
        ("b", 0.875, True),
    ]
    assert [gate["passed"] for gate in report["gates"][2:]] == [True, True, False, False, True, True]


def test_text_and_page_show_how_many_folds_there_are_and_the_deviation(finish_folds, finish, read_html):
    part = finish_folds("part")
    drop(part / "fold-0")
    _, report = compared(part, finish("single", "1", documents=40))
    rows = {" ".join(line[:20].split()): " ".join(line[20:].split()) for line in summarize(report).splitlines()}
    assert rows["folds"] == "2 of 3 –"
    assert rows["test documents"] == "80 40"
    assert rows["validation macro F1"].startswith("0.750 ± 0.000 0.9")
    assert rows["gap"] == "0.250 (moderate) –"
    assert rows["training time"] == "6 min 25 s 3 min 12 s"
    read = read_html(page(report, {"part": [], "single": []}))
    assert read.open == []
    text = "".join(read.text)
    assert "folds2 of 3–" in text
    assert "The curve of a k-fold multirun is the mean of its folds, up to the last epoch that all have." in text
