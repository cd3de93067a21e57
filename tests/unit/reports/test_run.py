from __future__ import annotations

import csv
import json
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from doctune.errors import ArtifactError
from doctune.reports.records import read_run
from doctune.reports.run import FILES, build_report, write_report

EPOCH = {"epoch": 1, "train_loss": 1.0, "val_loss": 0.9, "val_accuracy": 0.5, "val_f1_macro": 0.5}


def report_of(run):
    return build_report(read_run(run))


def empty_part(run, part):
    path = run / f"predictions/{part}.parquet"
    pq.write_table(pq.read_table(path).slice(0, 0), path)


def test_a_report_is_its_files_and_gives_its_summary(make_run):
    run = make_run()
    summary = write_report(run)
    assert summary == run / "report" / "summary.txt"
    assert sorted(path.name for path in (run / "report").iterdir()) == sorted(FILES)
    for name in ("loss_curves.png", "metric_curve.png", "confusion_matrix.png"):
        assert (run / "report" / name).read_bytes().startswith(b"\x89PNG")


def test_the_page_and_the_paragraph_are_written(make_run):
    run = make_run()
    write_report(run)
    page = (run / "report/index.html").read_text(encoding="utf-8")
    paragraph = (run / "report/methods.txt").read_text(encoding="utf-8")
    assert FILES[0] == "index.html"
    assert page.startswith("<!doctype html>")
    assert paragraph.startswith(
        "The model was mini, a classification head on a DistilBERT encoder (Sanh et al. 2019), "
    )
    assert f"<blockquote>{paragraph.strip()}</blockquote>" in page.replace("&amp;", "&")
    assert len(page) < 200_000


def test_report_json_keeps_the_agreed_keys(make_run):
    run = make_run()
    write_report(run)
    report = json.loads((run / "report/report.json").read_text())
    assert report["schema"] == 1
    assert report["test"]["f1_macro"] == pytest.approx(0.9, abs=1e-3)
    assert report["test"]["accuracy"] == 0.9
    low, high = report["test"]["ci95"]["f1_macro"]
    assert low < report["test"]["f1_macro"] < high
    assert set(report["test"]["ci95"]) >= {"f1_macro", "accuracy", "log_loss"}
    assert set(report["baselines"]) == {"majority", "tfidf_svm"}
    assert report["gap"] == {"value": None, "status": None, "onset_epoch": None}
    assert report["best_checkpoint"] == "checkpoints/best.ckpt"
    assert report["padding_share"] == pytest.approx(0.2)
    assert report["parameters"] == {"total": 4_500_000, "trainable": 1_000}
    assert (report["epochs"], report["best_epoch"], report["training_seconds"]) == (3, 2, 192.4)
    assert report["account"]["rows"] == 365
    assert report["seed"] == 0
    assert report["run"] == "outputs/2026-11-01/run"


def test_confusion_per_class_and_pairs_of_a_small_run(make_run):
    report = report_of(make_run(documents=6, wrong_every=3))
    assert report["confusion"] == [[2, 0, 0], [0, 2, 0], [2, 0, 0]]
    assert report["per_class"] == [
        {"label": "a", "precision": 0.5, "recall": 1.0, "f1": 2 / 3, "support": 2, "predicted": 4, "train": 10},
        {"label": "b", "precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 2, "predicted": 2, "train": 11},
        {"label": "c", "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 2, "predicted": 0, "train": 12},
    ]
    assert report["confused_pairs"] == [{"truth": "c", "predicted": "a", "count": 2, "support": 2}]


def test_the_worst_mistakes_are_those_that_the_model_was_surest_of(make_run):
    run = make_run(names=("a", "b"), documents=5, wrong_every=0)
    path = run / "predictions/test.parquet"
    columns = {
        "prediction": ["b", "a", "b", "b", "b"],  # the truth is a, b, a, b, a
        "probabilities": [[0.25, 0.75], [0.9375, 0.0625], [0.25, 0.75], [0.0, 1.0], [0.5, 0.5]],
    }
    pq.write_table(pa.table(pq.read_table(path).to_pydict() | columns), path)
    keys = ("path", "truth", "predicted", "probability", "truth_probability")
    rows = [
        ("/files/1.txt", "b", "a", 0.9375, 0.0625),
        ("/files/0.txt", "a", "b", 0.75, 0.25),
        ("/files/2.txt", "a", "b", 0.75, 0.25),
        ("/files/4.txt", "a", "b", 0.5, 0.5),
    ]
    assert report_of(run)["worst_mistakes"] == [dict(zip(keys, row, strict=True)) for row in rows]


def test_no_more_than_20_mistakes_are_listed(make_run):
    paths = [mistake["path"] for mistake in report_of(make_run(documents=60, wrong_every=2))["worst_mistakes"]]
    assert paths == [f"/files/{row}.txt" for row in range(1, 40, 2)]


def test_a_run_without_mistakes_has_no_worst_ones(make_run):
    assert report_of(make_run(wrong_every=0))["worst_mistakes"] == []


def test_per_class_csv_has_a_row_per_label(make_run):
    run = make_run(names=("a", 'b, "quoted"'), documents=4, wrong_every=0)
    write_report(run)
    with (run / "report/per_class.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == ["a", 'b, "quoted"']
    assert rows[1]["support"] == "2"


def test_a_report_written_twice_is_the_same(make_run):
    run = make_run(documents=30)
    write_report(run)
    first = {name: (run / "report" / name).read_bytes() for name in FILES}
    write_report(run)
    assert {name: (run / "report" / name).read_bytes() for name in FILES} == first


def test_the_gap_is_that_of_the_best_epoch(make_run):
    history = [
        EPOCH | {"gap": 0.1, "gap_status": "good"},
        EPOCH | {"epoch": 2, "val_f1_macro": 0.8, "gap": 0.5, "gap_status": "critical"},
        EPOCH | {"epoch": 3, "gap": 0.9, "gap_status": "critical"},
    ]
    assert report_of(make_run(history=history))["gap"] == {"value": 0.5, "status": "critical", "onset_epoch": 2}


def test_the_run_names_its_best_epoch_itself(make_run):
    assert report_of(make_run(best_epoch=3))["best_epoch"] == 3


def test_a_history_without_the_monitored_metric_has_no_best_epoch(make_run):
    assert report_of(make_run(history=[{"epoch": 1, "val_f1_macro": None}]))["best_epoch"] is None


def test_a_run_without_test_documents_is_judged_on_validation_and_says_so(make_run):
    run = make_run()
    empty_part(run, "test")
    report = report_of(run)
    assert (report["part"], report["test"], report["comparison"]["difference"]) == ("val", None, None)
    assert "validation macro F1 0.900" in report["verdict"]
    assert report["verdict"].endswith("these documents chose the checkpoint, so the score flatters.")
    write_report(run)


def test_a_run_without_any_prediction_is_refused(make_run):
    run = make_run()
    empty_part(run, "test")
    empty_part(run, "val")
    with pytest.raises(ArtifactError, match=r"neither predictions/test.parquet nor val.parquet has a row"):
        write_report(run)


def test_what_guards_said_is_noted_if_it_still_held_at_the_end(make_run):
    alarms = [
        {"guard": "majority", "epoch": 1, "message": "Worse.", "cleared": 3},
        {"guard": "gap", "epoch": 2, "message": "Critical gap.", "cleared": None},
    ]
    report = report_of(make_run(notes=["A note.", "Critical gap."], alarms=alarms))
    assert (report["notes"], report["alarms"]) == (["A note.", "Critical gap."], alarms)
    assert report_of(make_run("other", notes=["A note."], alarms=alarms))["notes"] == ["A note.", "Critical gap."]


def test_labels_without_test_documents_are_noted(make_run):
    report = report_of(make_run(names=("a", "b", "c", "d"), documents=2))
    assert "2 of 4 labels have no test document, so nothing is known of them." in report["notes"]


def test_a_faultless_score_is_not_taken_for_certainty(make_run):
    report = report_of(make_run(documents=60, wrong_every=0))
    assert report["test"]["ci95"]["accuracy"] == [1.0, 1.0]
    assert any("an error rate of up to 5.0% cannot be excluded (rule of three)" in note for note in report["notes"])


def test_numbers_that_are_not_finite_become_null(make_run):
    run = make_run(documents=3)
    path = run / "predictions/test.parquet"
    table = pq.read_table(path)
    broken = {"probabilities": [[float("nan")] * 3] * 3}
    pq.write_table(pa.table(table.to_pydict() | broken), path)
    report = report_of(run)
    assert report["test"]["log_loss"] is None
    assert report["test"]["ci95"]["log_loss"] == [None, None]
    write_report(run)


def test_a_bare_environment_and_audit_are_enough(make_run):
    run = make_run(history=[EPOCH])
    for name in ("environment.json", "data/audit.json"):
        (run / name).write_text("{}")
    text = write_report(run).read_text()
    assert "1 epoch, best epoch 1" in text


def test_reports_import_neither_torch_nor_lightning():
    code = "import sys, doctune.reports.run; print({'torch', 'lightning', 'hydra'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
