"""The report of several targets, from a folder whose numbers are written down."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from doctune.errors import ArtifactError
from doctune.reports.run import write_report
from doctune.reports.target_records import read_targets_run
from doctune.reports.target_summary import summarize
from doctune.reports.targets import build_report
from doctune.scoring import multilabel

LABELS = {"kind": ["x", "y"], "tags": ["a", "b"]}
KINDS = {"kind": "single", "tags": "multi"}
NUM_TEXTS = 40


def predictions(right):
    """40 texts: of `kind` every tenth is missing, of the others a share is right; of `tags` all are."""
    rows = []
    for number in range(NUM_TEXTS):
        kind, tags = "xy"[number % 2], [tag for tag, every in (("a", 2), ("b", 5)) if number % every == 0]
        said = kind if number < right else "x"
        rows.append(
            {
                "id": f"t{number}",
                "path": f"f.csv:{number}",
                "kind/truth": None if number % 10 == 9 else [kind],
                "kind/prediction": [said],
                "kind/probabilities": [0.7, 0.3] if said == "x" else [0.2, 0.8],
                "tags/truth": tags,
                "tags/prediction": tags,
                "tags/probabilities": [0.9 if tag in tags else 0.1 for tag in "ab"],
            }
        )
    return rows


def save_rows(rows, path):
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    types = {name: pa.list_(pa.string()) for name in columns if name.endswith(("truth", "prediction"))}
    pq.write_table(pa.table({name: pa.array(values, types.get(name)) for name, values in columns.items()}), path)


def scores(f1):
    return {"f1_macro": f1, "f1_micro": f1, "accuracy": f1, "ci95": {"f1_macro": [f1 - 0.05, f1 + 0.05]}}


@pytest.fixture
def run(tmp_path):
    for folder in ("data", "predictions"):
        (tmp_path / folder).mkdir()
    counts = {name: {part: dict.fromkeys(labels, 7) for part in ("train",)} for name, labels in LABELS.items()}
    audit = {
        "rows": 120,
        "parts": {"train": 40, "val": 40, "test": 40, "left_out": 0},
        "targets": {name: {"kind": KINDS[name], "label_counts": counts[name]} for name in LABELS},
    }
    baselines = {
        "kind": {"majority": {part: scores(0.3) for part in ("val", "test")}},
        "tags": {"tfidf_logistic": {part: scores(0.4) for part in ("val", "test")}},
    }
    environment = {
        "task": "multi_task",
        "hardware": {"processor": "Processor X", "cores": 2, "gpus": []},
        "git": {"commit": "0123456789abcdef0123", "dirty": True},
        "model": {"name": "mini", "architecture": "distilbert", "total": 4_500_000, "trainable": 1_000},
        "monitor": {"metric": "val/f1_macro", "mode": "max"},
        "seed": 0,
        "precision": "32-true",
        "training_seconds": 192.4,
        "stopped": "early_stopping",
        "thresholds": {"tags": [0.3, 0.6]},
        "target_weights": {"kind": 0.8, "tags": 1.2},
    }
    history = [
        {"epoch": epoch, "train_loss": 2.0, "val_loss": 1.5, "train_eval_loss": 1.4, "gap": 0.1, "gap_status": "good"}
        | {"val_f1_macro": 0.6, "val_kind_f1_macro": 0.5, "val_tags_f1_macro": 0.7}
        for epoch in (1, 2)
    ]
    for name, content in {
        "data/labels.json": LABELS, "data/audit.json": audit, "data/baselines.json": baselines,
        "environment.json": environment, "training_history.json": history,
    }.items():  # fmt: skip
        (tmp_path / name).write_text(json.dumps(content))
    for part, right in (("val", 40), ("test", 36)):
        save_rows(predictions(right), tmp_path / f"predictions/{part}.parquet")
    said = {"id": [f"t{n}" for n in reversed(range(NUM_TEXTS))], "kind/majority": [["x"]] * NUM_TEXTS}
    said["tags/tfidf_logistic"] = [["a"]] * NUM_TEXTS
    pq.write_table(pa.table(said), tmp_path / "predictions/baselines_test.parquet")
    return tmp_path


def test_each_target_is_scored_over_the_texts_that_know_it(run):
    report = build_report(read_targets_run(run))
    kind, tags = report["targets"]["kind"], report["targets"]["tags"]
    assert (kind["test"]["texts"], tags["test"]["texts"]) == (36, 40)
    assert kind["val"]["f1_macro"] == 1
    # Texts 37 and 39 are wrong of 40; 39 does not know its kind.
    assert kind["test"]["accuracy"] == pytest.approx(35 / 36)
    assert (tags["test"]["f1_macro"], tags["test"]["exact_match"]) == (1, 1)
    assert report["test"] == {"f1_macro": pytest.approx((kind["test"]["f1_macro"] + 1) / 2), "targets": 2}


def test_each_target_has_a_verdict_beside_its_baselines(run):
    report = build_report(read_targets_run(run))
    kind, tags = (report["targets"][name] for name in LABELS)
    assert kind["verdict"].startswith(f"Better than the baseline: test macro F1 {kind['test']['f1_macro']:.3f} (95 % ")
    assert kind["verdict"].endswith(" on the same 36 texts.")
    assert tags["verdict"] == (
        "Better than the baseline: test macro F1 1.000 (95 % interval 1.000 to 1.000), TF-IDF + logistic regression "
        "0.400; judged by whether the intervals overlap (the baseline's: 0.350 to 0.450)."
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


def test_a_target_that_no_test_text_knows_says_so(run):
    rows = [row | {"kind/truth": None} for row in predictions(36)]
    save_rows(rows, run / "predictions/test.parquet")
    report = build_report(read_targets_run(run))
    assert report["targets"]["kind"]["verdict"] == "No text of the judged part knows it."
    assert report["test"] == {"f1_macro": 1.0, "targets": 1}
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
        "loss_curves.png", "metric_curve.png", "report.json", "summary.txt",
    ]  # fmt: skip


def rewrite(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_a_target_of_no_known_kind_is_named(run):
    rewrite(run / "data/audit.json", lambda audit: audit["targets"]["kind"].pop("kind"))
    with pytest.raises(ArtifactError) as caught:
        read_targets_run(run)
    assert str(caught.value) == f"{run / 'data/audit.json'} does not say of which kind the target 'kind' is."


def test_a_label_that_the_run_does_not_know_is_named(run):
    rows = predictions(36)
    rows[2]["tags/prediction"] = ["z"]
    save_rows(rows, run / "predictions/test.parquet")
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


def test_no_prediction_of_any_target_is_said(run):
    for part in ("val", "test"):
        rows = [row | {"kind/truth": None, "tags/truth": None} for row in predictions(0)]
        save_rows(rows, run / f"predictions/{part}.parquet")
    with pytest.raises(ArtifactError) as caught:
        build_report(read_targets_run(run))
    assert str(caught.value) == f"{run}: neither predictions/test.parquet nor val.parquet knows any target."
