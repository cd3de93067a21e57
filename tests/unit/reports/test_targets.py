"""The report of several targets, from a folder whose numbers are written down."""

import json
import re

import pyarrow.parquet as pq
import pytest

from doctune.errors import ArtifactError
from doctune.reports.run import write_report
from doctune.reports.target_records import read_targets_run
from doctune.reports.target_summary import summarize
from doctune.reports.targets import build_report
from doctune.reports.verdict import targets_headline
from doctune.scoring import multilabel

LABELS = ["kind", "tags"]


@pytest.fixture
def run(make_targets_run):
    return make_targets_run()


def test_each_target_is_scored_over_the_texts_that_know_it(run):
    report = build_report(read_targets_run(run))
    kind, tags = report["targets"]["kind"], report["targets"]["tags"]
    assert (kind["test"]["texts"], tags["test"]["texts"]) == (36, 40)
    assert kind["val"]["f1_macro"] == 1
    # Texts 37 and 39 are wrong of 40; 39 does not know its kind.
    assert kind["test"]["accuracy"] == pytest.approx(35 / 36)
    assert (tags["test"]["f1_macro"], tags["test"]["exact_match"]) == (1, 1)
    low, high = report["test"].pop("ci95")["f1_macro"]
    mean = (kind["test"]["f1_macro"] + 1) / 2
    assert report["test"] == {"f1_macro": pytest.approx(mean), "targets": 2, "texts": 40}
    assert low < mean < high == 1
    assert report["val"] == {"f1_macro": 1, "targets": 2, "texts": 40, "ci95": {"f1_macro": [1, 1]}}


def test_each_target_has_a_verdict_beside_its_baselines(run):
    report = build_report(read_targets_run(run))
    kind, tags = (report["targets"][name] for name in LABELS)
    assert kind["verdict"].startswith(f"Better than the baseline: test macro F1 {kind['test']['f1_macro']:.3f} (95 % ")
    assert kind["verdict"].endswith(" on the same 36 texts.")
    # It says a of all texts, of which half have it, and never b: F1 2/3 and 0.
    assert re.fullmatch(
        r"Better than the baseline: test macro F1 1\.000 \(95 % interval 1\.000 to 1\.000\), TF-IDF \+ logistic "
        r"regression 0\.400; difference \+0\.667 \(\+0\.\d{3} to \+0\.\d{3}\) on the same 40 texts\.",
        tags["verdict"],
    )
    assert report["verdict"] == (
        f"Better than the baseline on 2 of 2 targets. kind: {kind['verdict']} tags: {tags['verdict']}"
    )
    assert tags["comparison"]["texts"] == 40


def test_each_label_has_its_threshold_and_each_target_its_weight(run):
    targets = build_report(read_targets_run(run))["targets"]
    assert [row["threshold"] for row in targets["tags"]["per_label"]] == [0.3, 0.6]
    assert [row["threshold"] for row in targets["kind"]["per_label"]] == [None, None]
    assert [(row["label"], row["support"], row["train"]) for row in targets["tags"]["per_label"]] == [
        ("a", 20, 7), ("b", 8, 7),
    ]  # fmt: skip
    assert (targets["kind"]["weight"], targets["tags"]["weight"]) == (0.8, 1.2)


def test_intervals_are_those_of_scoring(run):
    found = read_targets_run(run).targets[1].test
    expected = multilabel.bootstrap_intervals(found.truth, found.predicted)
    report = build_report(read_targets_run(run))
    assert report["targets"]["tags"]["test"]["ci95"] == {name: list(bounds) for name, bounds in expected.items()}


def test_a_target_that_no_test_text_knows_says_so(run, judged, save_rows):
    save_rows(run / "predictions/test.parquet", [row | {"kind/truth": None} for row in judged(36)])
    report = build_report(read_targets_run(run))
    assert report["targets"]["kind"]["verdict"] == "No text of the judged part knows it."
    assert report["test"] == {"f1_macro": 1.0, "targets": 1, "texts": 40, "ci95": {"f1_macro": [1, 1]}}
    assert report["comparison"]["baselines"] == {"tags": "tfidf_logistic"}
    assert "kind: no test text knows it." in write_report(run).read_text()


def test_the_page_keeps_to_its_size_with_many_targets_and_long_names(run):
    report = build_report(read_targets_run(run))
    long = {f"a target with quite a long name {n}": report["targets"]["tags"] for n in range(12)}
    baselines = {name: found | {"baselines": dict.fromkeys("abc", found["baselines"]["tfidf_logistic"])}
                 for name, found in long.items()}  # fmt: skip
    notes = ["a note that goes on and on " * 20] * 20
    page = summarize(report | {"targets": baselines, "notes": notes, "verdict": "words " * 200})
    assert len(page.splitlines()) <= 60
    assert max(map(len, page.splitlines())) <= 100
    assert "9 more targets in report.json" in page


def test_writing_a_report_leaves_its_files(run):
    assert write_report(run) == run / "report/summary.txt"
    assert sorted(path.name for path in (run / "report").iterdir()) == [
        "confusion_matrix_1.png", "index.html", "loss_curves.png", "methods.txt", "metric_curve.png", "per_label.csv",
        "report.json", "summary.txt",
    ]  # fmt: skip
    assert sorted(json.loads((run / "report/report.json").read_text())["files"]) == sorted(
        path.name for path in (run / "report").iterdir()
    )
    assert "MEAN       mean of 2 targets, 40 texts; 95 %" in (run / "report/summary.txt").read_text()


def test_the_table_of_labels_names_their_targets(run):
    write_report(run)
    header, first, *_, last = (run / "report/per_label.csv").read_text().splitlines()
    assert header == "target,label,precision,recall,f1,support,predicted,train,threshold"
    # Of 36 texts that know their kind 20 are x; one of the 16 others is taken for x.
    assert first == f"kind,x,{20 / 21},1.0,{40 / 41},20,21,7,"
    assert last == "tags,b,1.0,1.0,1.0,8,8,7,0.6"


def test_the_mean_stands_beside_the_strongest_baseline_of_each_target(run):
    report = build_report(read_targets_run(run))
    found = report["comparison"]
    assert found["baselines"] == {"kind": "majority", "tags": "tfidf_logistic"}
    assert found["baseline"] == pytest.approx(0.35)
    # Saying x of all 36 has F1 40 / 56 and 0, saying a of all 40 has 2 / 3 and 0.
    expected = report["test"]["f1_macro"] - (40 / 56 / 2 + 1 / 3) / 2
    assert found["difference"] == pytest.approx(expected)
    assert 0 < found["low"] < expected < found["high"]


def test_a_run_without_a_baseline_of_each_target_has_no_difference(run):
    rewrite(run / "data/baselines.json", lambda baselines: baselines.pop("tags"))
    assert build_report(read_targets_run(run))["comparison"] == {
        "metric": "f1_macro", "baselines": None, "baseline": None, "difference": None, "low": None, "high": None,
    }  # fmt: skip


def test_a_target_on_which_a_run_is_worse_is_counted():
    statuses = {"a": "better", "b": "worse", "c": "unclear", "d": None}
    judged = {name: {"comparison": {"status": status} if status else {}} for name, status in statuses.items()}
    assert targets_headline(judged) == "Better than the baseline on 1 of 4 targets, worse on 1."


def rewrite(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_a_target_of_no_known_kind_is_named(run):
    rewrite(run / "data/audit.json", lambda audit: audit["targets"]["kind"].pop("kind"))
    with pytest.raises(ArtifactError) as caught:
        read_targets_run(run)
    assert str(caught.value) == f"{run / 'data/audit.json'} does not say of which kind the target 'kind' is."


def test_a_label_that_the_run_does_not_know_is_named(run, judged, save_rows):
    rows = judged(36)
    rows[2]["tags/prediction"] = ["z"]
    save_rows(run / "predictions/test.parquet", rows)
    with pytest.raises(ArtifactError) as caught:
        read_targets_run(run)
    assert str(caught.value) == (
        f"{run / 'predictions/test.parquet'}, column tags/prediction, row 3: 'z' is none of the 2 labels of the run's "
        "data/labels.json."
    )


def test_baselines_of_other_texts_are_refused(run):
    path = run / "predictions/baselines_test.parquet"
    table = pq.read_table(path)
    pq.write_table(table.slice(0, 3), path)
    with pytest.raises(ArtifactError) as caught:
        read_targets_run(run)
    assert str(caught.value) == (
        f"{path} does not hold the same texts as test.parquet beside it: one of them is stale."
    )


def test_no_prediction_of_any_target_is_said(run, judged, save_rows):
    for part in ("val", "test"):
        rows = [row | {"kind/truth": None, "tags/truth": None} for row in judged(0)]
        save_rows(run / f"predictions/{part}.parquet", rows)
    with pytest.raises(ArtifactError) as caught:
        build_report(read_targets_run(run))
    assert str(caught.value) == f"{run}: neither predictions/test.parquet nor val.parquet knows any target."
