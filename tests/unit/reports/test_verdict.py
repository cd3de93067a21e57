from __future__ import annotations

import json

import pytest

from doctune.reports.records import read_run
from doctune.reports.run import build_report
from doctune.reports.verdict import judged_metric, strongest_baseline


def report_of(run):
    return build_report(read_run(run))


def unpaired(run):
    (run / "predictions/baselines_test.parquet").unlink()
    return report_of(run)


def test_better_than_the_baseline(make_run):
    report = report_of(make_run(wrong_every=10, svm_wrong_every=4))
    assert report["verdict"].startswith("Better than the baseline: test macro F1 0.900 (95 % interval 0.8")
    assert "TF-IDF + linear SVM 0.750; difference +0.150 (+0.0" in report["verdict"]
    assert report["verdict"].endswith(" on the same 120 documents.")
    comparison = report["comparison"]
    assert (comparison["status"], comparison["baseline"], comparison["metric"]) == ("better", "tfidf_svm", "f1_macro")
    assert comparison["difference"] == pytest.approx(0.15, abs=1e-3)
    assert 0 < comparison["low"] < comparison["difference"] < comparison["high"]


def test_worse_than_the_baseline_is_said_out_loud(make_run):
    report = report_of(make_run(wrong_every=3, svm_wrong_every=10))
    assert report["verdict"].startswith("Worse than the baseline: test macro F1 0.556")
    assert report["comparison"]["status"] == "worse"


def test_a_small_difference_cannot_be_told_apart(make_run):
    report = report_of(make_run(wrong_every=9, svm_wrong_every=8))
    assert report["verdict"].startswith("Cannot be told apart from the TF-IDF baseline: test macro F1 0.889")
    assert report["comparison"]["low"] < 0 < report["comparison"]["high"]


def test_the_verdict_is_one_line(make_run):
    assert "\n" not in report_of(make_run())["verdict"]


def test_the_majority_class_is_the_baseline_where_it_is_the_stronger_one(make_run):
    truth_is_all_one_label = {"names": ("a", "b"), "documents": 40, "wrong_every": 2, "svm_wrong_every": 1}
    report = report_of(make_run(**truth_is_all_one_label))
    assert report["comparison"]["baseline"] == "majority"
    assert "majority class 0.333" in report["verdict"]


def test_few_documents_give_no_verdict(make_run):
    report = report_of(make_run(documents=12, wrong_every=0, svm_wrong_every=2))
    assert report["verdict"].startswith("Too few documents to judge (12 of at least 30): test macro F1 1.000")
    assert report["comparison"]["status"] == "too_few"


def test_without_paired_documents_the_intervals_must_not_overlap(make_run):
    report = unpaired(make_run("far", wrong_every=10, svm_wrong_every=2))
    assert report["verdict"].startswith("Better than the baseline: ")
    assert "judged by whether the intervals overlap (the baseline's: 0.4" in report["verdict"]
    assert report["comparison"]["difference"] is None
    assert unpaired(make_run("near", wrong_every=6, svm_wrong_every=5))["comparison"]["status"] == "unclear"
    assert unpaired(make_run("below", wrong_every=2, svm_wrong_every=0))["comparison"]["status"] == "worse"


def test_without_baselines_the_verdict_says_so(make_run):
    run = make_run()
    (run / "data/baselines.json").unlink()
    report = report_of(run)
    assert report["verdict"].startswith("No baseline stands beside this score: test macro F1 0.900")
    assert report["comparison"]["status"] == "no_baseline"


def test_worse_is_judged_on_the_monitored_metric(make_run):
    report = report_of(make_run(monitor={"metric": "val/accuracy", "mode": "max"}))
    assert report["comparison"]["metric"] == "accuracy"
    assert "test accuracy 0.900" in report["verdict"]


def test_a_monitored_metric_that_no_baseline_has_falls_back_to_macro_f1_and_says_so(make_run):
    report = report_of(make_run(monitor={"metric": "val/loss", "mode": "min"}))
    assert report["comparison"]["metric"] == "f1_macro"
    assert "No baseline has the monitored val/loss: the verdict is on macro F1." in report["notes"]
    assert report["best_epoch"] == 2


def test_judged_metric_is_a_statistic_or_none():
    assert [judged_metric(name) for name in ("val/f1_macro", "accuracy", "val/loss", "")] == [
        "f1_macro",
        "accuracy",
        None,
        None,
    ]


def test_the_strongest_baseline_is_chosen_on_validation():
    baselines = {
        "majority": {"val": {"f1_macro": 0.6}, "test": {"f1_macro": 0.1}},
        "tfidf_svm": {"val": {"f1_macro": 0.5}, "test": {"f1_macro": 0.9}},
        "unscored": {"val": {"f1_macro": 0.9}, "test": None},
    }
    assert strongest_baseline(baselines, "f1_macro", "test") == "majority"
    assert strongest_baseline(baselines, "accuracy", "test") is None


def test_baselines_without_intervals_are_judged_by_their_score(make_run):
    run = make_run(wrong_every=10, svm_wrong_every=4)
    path = run / "data/baselines.json"
    bare = {"tfidf_svm": {part: {"accuracy": 0.75, "f1_macro": 0.75} for part in ("val", "test")}}
    path.write_text(json.dumps(bare))
    assert unpaired(run)["comparison"]["status"] == "better"
