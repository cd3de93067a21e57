"""The aggregate of a k-fold multirun of readers, on fold folders whose answers are known."""

from __future__ import annotations

import json
import re

import pyarrow.parquet as pq
import pytest
from PIL import Image

from doctune.errors import ArtifactError
from doctune.reports.folds import write_folds

# Of four answers one is in the wrong place, one a word too long (F1 2/3), and two are exact.
SAID = ["Paris", "in 1889", "1889", "1889"]
NO_LABELS = "Suspect labels are looked for in the predictions of classifiers: an answer has no label."


@pytest.fixture
def make_fold(make_reader_run, answer, tmp_path, monkeypatch):
    """Write fold `number` of three with 40 questions of its own about an article of its own."""
    monkeypatch.chdir(tmp_path)

    def make(number, said=SAID, *, scores=(0.5, 0.75), ids=None, phase="finished", metric="val/f1", mode="max",
             rows=None, **environment):  # fmt: skip
        ids = [f"{number}-{row:02}" for row in range(40)] if ids is None else ids
        if rows is None:
            rows = [answer(name, said[row % 4], article=f"Tower {number}") for row, name in enumerate(ids)]
        history = [
            {"epoch": epoch, "val_loss": 2.5 - epoch / 4 + number, metric.replace("/", "_"): score}
            for epoch, score in enumerate(scores, start=1)
        ]
        config = {
            "split": {"kind": "kfold", "fold": number, "folds": 3},
            "monitor": {"metric": metric, "mode": mode},
        }
        run = make_reader_run(f"folds/fold-{number}", test=rows, history=history, config=config, **environment)
        (run / "status.json").write_text(json.dumps({"phase": phase}))
        return run

    return make


def written(directory):
    summary = write_folds(directory)
    text = summary.read_text()
    assert max(map(len, text.splitlines())) <= 100
    return json.loads((directory / "kfold/kfold_results.json").read_text()), " ".join(text.split())


def refusal(directory):
    with pytest.raises(ArtifactError) as refused:
        write_folds(directory)
    return str(refused.value)


def test_results_have_the_keys_of_a_classifier_and_the_scores_of_answers(make_fold):
    for number, best in ((0, 0.5), (1, 0.75), (2, 1.0)):
        directory = make_fold(number, scores=(0.25, best)).parent
    results, _ = written(directory)
    assert (results["task"], results["metric"], results["test_metric"]) == ("question_answering", "val/f1", "f1")
    assert [row["monitor"] for row in results["folds"]] == [0.5, 0.75, 1.0]
    assert (results["mean"], results["std"], results["min"], results["max"]) == (0.75, 0.25, 0.5, 1.0)
    assert (results["best_fold"], results["missing"], results["num_folds"]) == (2, [], 3)
    assert (results["per_class"], results["suspect_labels"]) == ([], None)
    row = results["folds"][1]
    assert (row["fold"], row["status"], row["best_val_loss"], row["final_val_loss"]) == (1, "finished", 3.0, 3.0)
    assert (row["test"]["exact_match"], row["test"]["f1"]) == (0.5, pytest.approx(2 / 3))
    assert row["test"]["questions"] == 40


def test_all_questions_are_pooled_with_intervals(make_fold):
    make_fold(0)
    make_fold(1, said=["1889"] * 4)
    directory = make_fold(2, said=["Paris"] * 4).parent
    scores = written(directory)[0]["oof"]
    assert (scores["questions"], scores["articles"]) == (120, 3)
    assert scores["exact_match"] == pytest.approx(60 / 120)
    assert scores["f1"] == pytest.approx((40 * 2 / 3 + 40) / 120)
    for metric in ("exact_match", "f1"):
        low, high = scores["ci95"][metric]
        assert scores[metric] - 0.1 < low < scores[metric] < high < scores[metric] + 0.1


def test_the_file_of_answers_has_the_columns_of_its_sources_and_the_fold(make_fold):
    for number in range(3):
        run = make_fold(number)
    written(run.parent)
    table = pq.read_table(run.parent / "kfold/oof.parquet")
    columns = pq.read_table(run / "predictions/test.parquet").column_names
    assert table.column_names == ["id", "article", "fold", *columns[2:]]
    assert table["id"].to_pylist() == [f"{fold}-{row:02}" for fold in range(3) for row in range(40)]
    assert table["fold"].to_pylist() == [0] * 40 + [1] * 40 + [2] * 40
    assert table["prediction"].to_pylist() == SAID * 30
    assert table["n_best"].to_pylist()[0][0]["text"] == "Paris"


def test_the_summary_speaks_of_questions(make_fold):
    for number in range(3):
        directory = make_fold(number).parent
    _, text = written(directory)
    assert text.startswith("doctune folds: outputs/2026-11-01/folds RESULT val/f1 0.750 ± 0.000 (mean ± standard")
    assert "fold status best val loss val/f1 test F1 test exact match 0 finished 2.000 0.750 0.667 0.500" in text
    assert re.search(
        r"POOLED Out-of-fold F1 0\.667 \(0\.\d+–0\.\d+\), exact match 0\.500 \(0\.\d+–0\.\d+\) on 120 questions, each "
        r"answered by a model that neither trained on it nor was chosen by it; 95 % intervals over questions\. The "
        r"questions are about 3 articles\. Questions of one article are not independent of each other, so the "
        r"intervals are too narrow\.",
        text,
    )
    assert f"LABELS {NO_LABELS} FILES index.html, summary.txt, kfold_results.json, oof.parquet, val_loss.png" in text
    assert "document" not in text


def test_the_page_shows_scores_pictures_and_files_and_no_classes(make_fold, read_html):
    for number in range(3):
        directory = make_fold(number).parent
    written(directory)
    page = (directory / "kfold/index.html").read_text()
    read = read_html(page)
    assert read.open == []
    assert re.findall(r'<section id="(\w+)">', page) == ["result", "folds", "pooled", "curves", "labels", "files"]
    assert [svg["aria-label"] for svg in read.named("svg")] == ["Validation loss of each fold", "Scores of each fold"]
    assert "validation, F1" in page
    assert "test, F1" in page
    sections = {
        name: " ".join(re.sub(r"<[^>]+>", " ", body).split())
        for name, body in re.findall(r'<section id="(\w+)">(.*?)</section>', page, flags=re.DOTALL)
    }
    assert "F1 0.667 (" in sections["pooled"]
    assert "exact match 0.500 (" in sections["pooled"]
    assert "intervals over questions. The questions are about 3 articles." in sections["pooled"]
    assert sections["labels"] == f"Suspect labels {NO_LABELS}"
    assert "oof.parquet : every question with its out-of-fold answer" in sections["files"]
    for name in ("val_loss.png", "scores.png"):
        assert min(Image.open(directory / "kfold" / name).size) > 300


def test_questions_without_an_answer_have_their_own_line(make_fold, answer):
    for number in range(3):
        rows = [answer(f"{number}-a{row}", "1889", article=f"{row}") for row in range(30)]
        rows += [
            answer(f"{number}-n{row}", "" if row else "Paris", references=(), article=f"{row}") for row in range(10)
        ]
        directory = make_fold(number, rows=rows, version="2.0").parent
    results, text = written(directory)
    assert (results["oof"]["no_answer"]["questions"], results["oof"]["no_answer"]["f1"]) == (30, 0.9)
    assert "90 questions with an answer: F1 1.000 (1.000–1.000), exact match 1.000 (1.000–1.000)." in text
    assert "30 questions without one: F1 0.900 (" in text
    assert "articles" not in text
    assert "exact match, 30 questions without one" in (directory / "kfold/index.html").read_text()


def test_a_monitored_loss_is_shown_beside_both_scores(make_fold):
    for number in range(3):
        directory = make_fold(number, scores=(1.5, 1.0 + number), metric="val/loss", mode="min").parent
    results, text = written(directory)
    assert (results["test_metric"], results["best_fold"], results["min"]) == ("f1", 0, 1.0)
    assert "fold status best val loss val/loss test F1 test exact match" in text
    page = (directory / "kfold/index.html").read_text()
    assert "test, exact match" in page
    assert "validation, loss" not in page


def test_a_monitored_exact_match_is_compared_with_that_of_the_test_part(make_fold):
    directory = make_fold(0, metric="val/exact_match").parent
    results, text = written(directory)
    assert results["test_metric"] == "exact_match"
    assert "fold status best val loss val/exact_match test exact match test F1" in text
    assert "POOLED Out-of-fold exact match 0.500" in text


def test_missing_folds_are_told_and_one_that_never_read_its_data_changes_nothing(make_fold):
    make_fold(0)
    run = make_fold(1, phase="refused")
    environment = json.loads((run / "environment.json").read_text())
    del environment["task"]
    (run / "environment.json").write_text(json.dumps(environment))
    results, text = written(run.parent)
    assert (results["task"], results["missing"], results["oof"]["questions"]) == ("question_answering", [1, 2], 40)
    assert "2 folds without a finished run: 1 (refused), 2 (not begun)." in text
    assert "questions are about 1 article." in text


def test_before_any_fold_has_finished_no_question_has_an_answer(make_fold):
    results, text = written(make_fold(0, phase="training").parent)
    assert (results["oof"], results["per_class"], results["mean"]) == (None, [], None)
    assert "No fold has finished, so no question has an out-of-fold prediction yet." in text


def test_a_question_in_two_folds_is_refused(make_fold):
    make_fold(0)
    directory = make_fold(1, ids=["0-39", *(f"1-{row}" for row in range(39))]).parent
    assert refusal(directory) == (
        "Question '0-39' (article 'Tower 1') is in the test part of both fold-0 and fold-1: folds that overlap belong "
        "to different splits. Keep those made from the same questions and split.seed."
    )


def test_folds_of_different_tasks_are_refused(make_fold, make_run):
    directory = make_fold(0).parent
    config = {"split": {"kind": "kfold", "fold": 1, "folds": 3}, "monitor": {"metric": "val/f1_macro", "mode": "max"}}
    run = make_run("folds/fold-1", config=config)
    (run / "status.json").write_text('{"phase": "finished"}')
    assert refusal(directory) == (
        f"{directory}: fold-0 judges questions and fold-1 documents, so there is no mean of them. Keep folds made with "
        "one configuration."
    )


def test_folds_that_are_judged_by_different_rules_are_refused(make_fold):
    make_fold(0)
    directory = make_fold(1, version="2.0").parent
    assert refusal(directory) == (
        f"{directory}: fold-0 and fold-1 are judged by different rules, those of SQuAD 1.1 and 2.0 (see version in "
        "their environment.json), so their answers cannot be pooled. Make the folds from one file of questions."
    )


def test_a_finished_fold_without_questions_or_rules_is_named(make_fold):
    run = make_fold(0, rows=[], baselines={})
    assert refusal(run.parent) == (
        f"{run}/predictions/test.parquet holds no question: this fold judges nothing. Make folds with fewer "
        "split.folds=."
    )
    environment = json.loads((run / "environment.json").read_text()) | {"version": "3.0"}
    (run / "environment.json").write_text(json.dumps(environment))
    assert refusal(run.parent).startswith(f"{run}/environment.json: the version of the questions is '3.0'; known are")
