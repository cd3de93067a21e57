"""The aggregate of a k-fold multirun, on fold folders whose numbers are known."""

import csv
import importlib.util
import json
import math
import os
import platform
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from doctune.errors import ArtifactError
from doctune.files import write_json
from doctune.reports import folds as folds_module
from doctune.reports import folds_page, suspects
from doctune.reports.folds import FILES, write_folds

SCORES = {0: [0.5, 0.8], 1: [0.9, 0.7], 2: [0.6, 0.7]}
NAMES = ("a", "b", "c")


def write_test_part(run, names, ids, truth, predicted):
    chances = np.full((len(truth), len(names)), 0.02, np.float32)
    chances[np.arange(len(truth)), predicted] = 1 - 0.02 * (len(names) - 1)
    table = {
        "id": list(ids),
        "path": [f"/files/{document}.txt" for document in ids],
        "truth": [names[index] for index in truth],
        "prediction": [names[index] for index in predicted],
        "probabilities": pa.array(list(chances), pa.list_(pa.float32())),
    }
    (run / "predictions").mkdir(exist_ok=True)
    pq.write_table(pa.table(table), run / "predictions/test.parquet")


@pytest.fixture
def make_fold(tmp_path):
    """Write fold `number` with 30 documents of its own, the first `wrong` of which it takes for the next label."""

    def make(number, scores=None, *, name=None, ids=None, wrong=3, phase="finished", labels=NAMES, num_folds=3,
             metric="val/f1_macro", mode="max", status=None, flipped=()):  # fmt: skip
        run = tmp_path / "multirun/2026-11-20/12-00-00" / (name or f"fold-{number}")
        (run / "data").mkdir(parents=True)
        scores = SCORES[number] if scores is None else scores
        key = metric.replace("/", "_")
        history = [{"epoch": at, "val_loss": 1.375 + at / 8 + number, key: s} for at, s in enumerate(scores, start=1)]
        split = {"kind": "kfold", "fold": number, "folds": num_folds}
        config = {"split": split, "monitor": {"metric": metric, "mode": mode}}
        files = {"environment.json": {"config": config}}
        files["status.json"] = {"phase": phase} | (status or {})
        if history:
            files["training_history.json"] = history
        if phase == "finished":
            truth = np.arange(30) % len(labels)
            predicted = np.where(np.arange(30) < wrong, (truth + 1) % len(labels), truth)
            given = truth.copy()
            given[list(flipped)] = (given[list(flipped)] + 1) % len(labels)
            ids = [f"{number}-{row}" for row in range(30)] if ids is None else ids
            write_test_part(run, labels, ids, given, predicted)
            files["data/labels.json"] = list(labels)
        for file, value in files.items():
            (run / file).write_text(json.dumps(value))
        return run

    return make


@pytest.fixture
def multirun(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "multirun/2026-11-20/12-00-00"


def written(directory):
    summary = write_folds(directory)
    assert summary == directory / "kfold/summary.txt"
    text = summary.read_text()
    assert max(map(len, text.splitlines())) <= 100
    return json.loads((directory / "kfold/kfold_results.json").read_text()), text


def test_mean_deviation_and_bounds_are_those_of_the_best_monitored_values(make_fold, multirun):
    for number in (0, 1, 2):
        make_fold(number)
    results, text = written(multirun)
    assert [row["monitor"] for row in results["folds"]] == [0.8, 0.9, 0.7]
    assert results["mean"] == pytest.approx(0.8)
    assert results["std"] == pytest.approx(0.1)
    assert (results["min"], results["max"], results["best_fold"], results["missing"]) == (0.7, 0.9, 1, [])
    assert (results["metric"], results["mode"], results["num_folds"]) == ("val/f1_macro", "max", 3)
    assert "val/f1_macro 0.800 ± 0.100" in text
    assert "Best fold: 1 (fold-1)." in " ".join(text.split())
    assert "MISSING" not in text


def test_each_fold_has_its_losses_best_epoch_and_test_scores(make_fold, multirun):
    make_fold(1, num_folds=2)
    row = written(multirun)[0]["folds"][0]
    assert (row["fold"], row["status"], row["path"]) == (1, "finished", "fold-1")
    assert (row["best_val_loss"], row["final_val_loss"], row["monitor"], row["best_epoch"]) == (2.5, 2.625, 0.9, 1)
    assert row["test"]["accuracy"] == pytest.approx(0.9)


def test_the_best_of_a_loss_is_its_smallest(make_fold, multirun):
    make_fold(0, [], num_folds=2, metric="val/loss", mode="min", phase="failed")
    run = make_fold(1, [0.7, 0.4, 0.6], num_folds=2, metric="val/loss", mode="min")
    results, _ = written(multirun)
    assert (results["max"], results["best_fold"], results["test_metric"]) == (0.4, 1, "log_loss")
    assert results["folds"][1]["final_val_loss"] == 0.6
    assert run.name == results["folds"][1]["path"]


def test_out_of_fold_predictions_hold_each_document_once_with_its_fold(make_fold, multirun):
    for number, wrong in ((0, 0), (1, 3), (2, 6)):
        make_fold(number, wrong=wrong)
    results, text = written(multirun)
    table = pq.read_table(multirun / "kfold/oof.parquet")
    assert table.column_names == ["id", "path", "fold", "truth", "prediction", "probabilities"]
    assert table["id"].to_pylist() == [f"{fold}-{row}" for fold in range(3) for row in range(30)]
    assert table["fold"].to_pylist() == [0] * 30 + [1] * 30 + [2] * 30
    truth, prediction = (np.array(table[name].to_pylist()) for name in ("truth", "prediction"))
    assert results["oof"]["documents"] == 90
    assert results["oof"]["accuracy"] == pytest.approx((truth == prediction).mean()) == pytest.approx(0.9)
    low, high = results["oof"]["ci95"]["f1_macro"]
    assert low < results["oof"]["f1_macro"] < high
    assert "accuracy 0.900" in " ".join(text.split())


def test_every_class_has_its_out_of_fold_scores(make_fold, multirun):
    for number, wrong in ((0, 0), (1, 3), (2, 6)):  # wrong ones are taken for the next label
        make_fold(number, wrong=wrong)
    first, *others = written(multirun)[0]["per_class"]
    assert first == {
        "label": "a",
        "precision": pytest.approx(0.9),
        "recall": pytest.approx(0.9),
        "f1": pytest.approx(0.9),
        "support": 30,
        "predicted": 30,
    }
    assert [row["label"] for row in others] == ["b", "c"]


def test_missing_and_failed_folds_are_told_and_do_not_count(make_fold, multirun):
    make_fold(0)
    make_fold(1, [0.99], phase="failed")
    results, text = written(multirun)
    assert results["missing"] == [1, 2]
    assert (results["mean"], results["std"], results["best_fold"]) == (0.8, None, 0)
    assert [(row["fold"], row["status"]) for row in results["folds"]] == [(0, "finished"), (1, "failed")]
    assert results["folds"][1]["monitor"] == 0.99
    assert results["oof"]["documents"] == 30
    assert "2 folds without a finished run: 1 (failed), 2 (not begun)." in text
    assert "Start the same multirun again with: hydra.sweep.dir=multirun/2026-11-20/12-00-00\n" in text
    assert results["suspect_labels"] is None
    assert "Suspect labels are looked for when all folds have finished." in text


def test_no_finished_fold_has_no_scores_and_no_pool(make_fold, multirun):
    make_fold(2, [], phase="refused")
    results, text = written(multirun)
    assert (results["mean"], results["min"], results["oof"], results["best_fold"]) == (None, None, None, None)
    assert results["folds"][0]["best_val_loss"] is None
    assert results["missing"] == [0, 1, 2]
    names = sorted(path.name for path in (multirun / "kfold").iterdir())
    assert names == ["index.html", "kfold_results.json", "summary.txt"]
    assert "there is no score of val/f1_macro yet" in text


def test_a_fold_whose_process_is_gone_has_died(make_fold, multirun):
    make_fold(0, phase="training", status={"pid": 2**22 + 1, "host": platform.node()})
    make_fold(1, phase="training", status={"pid": os.getpid(), "host": platform.node()})
    assert [row["status"] for row in written(multirun)[0]["folds"]] == ["died", "training"]


def test_a_loss_that_is_no_number_is_null(make_fold, multirun):
    run = make_fold(0)
    (run / "training_history.json").write_text('[{"epoch": 1, "val_loss": NaN, "val_f1_macro": NaN}]')
    row = written(multirun)[0]["folds"][0]
    assert (row["best_val_loss"], row["final_val_loss"], row["monitor"]) == (None, None, None)


def test_folds_are_found_by_their_configuration_not_by_their_name(make_fold, multirun):
    make_fold(2, name="0")
    make_fold(0, name="1")
    (multirun / "other").mkdir()
    (multirun / "other/environment.json").write_text('{"config": {"split": {"kind": "holdout", "fold": null}}}')
    assert [(row["fold"], row["path"]) for row in written(multirun)[0]["folds"]] == [(0, "1"), (2, "0")]


def test_files_that_no_longer_hold_are_removed(make_fold, multirun):
    runs = [make_fold(number) for number in range(3)]
    write_folds(multirun)
    names = {path.name for path in (multirun / "kfold").iterdir()}
    assert set(FILES) - {"suspect_labels.csv"} <= names
    for run in runs:
        (run / "status.json").write_text('{"phase": "failed"}')
    write_folds(multirun)
    left = {path.name for path in (multirun / "kfold").iterdir()}
    assert left == {"index.html", "kfold_results.json", "summary.txt", "val_loss.png"}
    assert (
        "FILES      index.html, summary.txt, kfold_results.json, val_loss.png\n"
        in (multirun / "kfold/summary.txt").read_text()
    )


def test_folds_that_end_together_leave_the_results_of_all(make_fold, multirun):
    runs = [make_fold(number, status={"phase": "testing"}) for number in range(3)]

    def end(run):
        write_json(run / "status.json", {"phase": "finished"})  # whole at once, as runs do: others read it meanwhile
        write_folds(multirun)

    with ThreadPoolExecutor() as pool:
        list(pool.map(end, runs))
    assert json.loads((multirun / "kfold/kfold_results.json").read_text())["missing"] == []


def test_the_results_do_not_depend_on_the_folder(make_fold, multirun):
    for number in range(3):
        make_fold(number)
    first, _ = written(multirun)
    moved = multirun.rename(multirun.with_name("other"))
    assert written(moved)[0] == first


def test_the_plots_are_pictures(make_fold, multirun):
    for number in range(3):
        make_fold(number)
    write_folds(multirun)
    for name in ("val_loss.png", "scores.png"):
        assert min(Image.open(multirun / "kfold" / name).size) > 300


def refusal(directory):
    with pytest.raises(ArtifactError) as refused:
        write_folds(directory)
    return str(refused.value)


def test_folds_that_overlap_are_refused(make_fold, multirun):
    make_fold(0)
    make_fold(1, ids=["0-29", *(f"1-{row}" for row in range(29))])
    assert refusal(multirun) == (
        "/files/0-29.txt is in the test part of both fold-0 and fold-1: folds that overlap belong to different splits. "
        "Keep those made from the same documents and split.seed."
    )


def test_two_runs_of_one_fold_are_refused(make_fold, multirun):
    make_fold(0, name="x")
    make_fold(0, name="y")
    assert "holds fold 0 twice, in x and y: one k-fold multirun has each fold once." in refusal(multirun)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"metric": "val/accuracy"}, "the folds differ in monitor.metric, val/f1_macro in fold-0 and val/accuracy in"),
        ({"num_folds": 5}, "the folds differ in split.folds, 3 in fold-0 and 5 in fold-1"),
        ({"labels": ("a", "b")}, "fold-0 and fold-1 have different labels (see their data/labels.json)"),
    ],
)
def test_folds_of_different_making_are_refused(make_fold, multirun, change, sentence):
    make_fold(0)
    make_fold(1, **change)
    assert sentence in refusal(multirun)


def test_a_folder_without_folds_is_refused_and_a_fold_names_the_folder_above(make_fold, multirun, tmp_path):
    assert "there is no such folder" in refusal(multirun)
    run = make_fold(0)
    assert "holds no fold" in refusal(tmp_path)
    assert "It is one fold itself: give 12-00-00, the folder above." in refusal(run)


def test_a_finished_fold_without_predictions_is_named(make_fold, multirun):
    run = make_fold(0)
    (run / "predictions/test.parquet").unlink()
    assert refusal(multirun) == (
        f"{run} is finished, but its predictions/test.parquet is missing: make the fold again."
    )


def test_the_page_holds_what_the_summary_says_and_both_pictures(make_fold, multirun, read_html):
    for number in range(3):
        make_fold(number)
    write_folds(multirun)
    page = read_html((multirun / "kfold/index.html").read_text())
    assert page.open == []
    assert [svg["aria-label"] for svg in page.named("svg")] == ["Validation loss of each fold", "Scores of each fold"]
    text = "".join(page.text)
    assert "val/f1_macro 0.800 ± 0.100 (mean ± standard deviation of the folds" in text
    files = [link["href"] for link in page.named("a") if not link["href"].startswith("#")]
    assert set(files) == {path.name for path in (multirun / "kfold").iterdir()}


def test_a_flipped_label_is_the_suspect(make_fold, multirun):
    pytest.importorskip("cleanlab")
    make_fold(0, wrong=0)
    make_fold(1, wrong=0, flipped=[7])
    make_fold(2, wrong=0)
    results, text = written(multirun)
    with (multirun / "kfold/suspect_labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert results["suspect_labels"] == 1
    assert [(row["rank"], row["path"], row["label"], row["suggested_label"]) for row in rows] == [
        ("1", "/files/1-7.txt", "c", "b")
    ]
    assert math.isclose(float(rows[0]["label_probability"]), 0.02, abs_tol=1e-6)
    assert math.isclose(float(rows[0]["suggested_probability"]), 0.96, abs_tol=1e-6)
    assert "1 label looks wrong" in text
    assert "c -> b  0.020 -> 0.960  /files/1-7.txt" in text


def test_models_that_are_wrong_about_most_documents_call_no_label_wrong(make_fold, multirun):
    pytest.importorskip("cleanlab")
    for number in range(3):
        make_fold(number, wrong=20)
    results, text = written(multirun)
    assert results["oof"]["accuracy"] < 0.5
    assert results["suspect_labels"] is None
    assert not (multirun / "kfold/suspect_labels.csv").exists()
    assert (
        f"Suspect labels were not looked for: the models are right about {results['oof']['accuracy']:.0%} of the "
        "documents that they have not seen, and those that are wrong about most cannot tell whose label is wrong."
    ) in " ".join(text.split())


def test_without_cleanlab_the_summary_says_how_to_get_it(make_fold, multirun, monkeypatch):
    monkeypatch.setattr(folds_module, "can_find_suspects", lambda: False)
    monkeypatch.setattr(folds_page, "can_find_suspects", lambda: False)
    for number in range(3):
        make_fold(number)
    results, text = written(multirun)
    assert results["suspect_labels"] is None
    assert not (multirun / "kfold/suspect_labels.csv").exists()
    assert "pip install 'doctune[labels]'" in text


def test_whether_cleanlab_is_there_is_found_out_without_loading_it():
    assert suspects.can_find_suspects() == (importlib.util.find_spec("cleanlab") is not None)
