"""A reader's own questions are asked again, and its thresholds are chosen on its stored validation answers."""

import json
import shutil

import pytest

from doctune.errors import ArtifactError
from doctune.inference.engine import load
from doctune.reports.evaluation_answers import ask_part, build_evaluation, stored_answers, write_evaluation


@pytest.fixture
def run(make_reader_run, answer, known_reader):
    """A run whose model answers "Paris" to everything, and said so to the first of its two test questions."""
    made = make_reader_run(test=[answer("first", "Paris"), answer("second", "1889")])
    shutil.copytree(known_reader / "model", made / "model")
    return made


def test_questions_are_asked_again_and_compared_with_what_was_stored(run):
    found = ask_part(load(run), run, "test")
    assert [each.judged.prediction for each in found.answers.given] == ["Paris", "Paris"]
    assert [each.judged.exact_match for each in found.answers.given] == [0.0, 0.0]
    assert found.answers.given[1].judged.start == 20
    assert found.agreement == 1
    report = build_evaluation(found, None, "run", 0.95)
    assert "1 of 2 answers differ from those that the run stored." in report["notes"]


def test_thresholds_are_chosen_on_the_stored_validation_answers(run):
    found = ask_part(load(run), run, "test")
    report = build_evaluation(found, stored_answers(run, "val", "1.1"), "run", 0.5)
    row = report["thresholds"][0]
    assert row["precision"] == 0.5
    assert row["threshold"] == 0.75  # all of them have it, and half are exact
    assert row["validation"] == {"documents": 40, "coverage": 1.0, "accuracy": 0.5}
    assert row["judged"]["accuracy"] == 0.0


def test_a_validation_part_is_told_to_flatter(run):
    report = build_evaluation(ask_part(load(run), run, "val"), None, "run", 0.95)
    assert report["notes"][0] == (
        "These validation questions chose the checkpoint and the thresholds: the scores flatter."
    )


def test_a_part_without_questions_is_refused(run):
    (run / "predictions" / "test.parquet").unlink()
    with pytest.raises(ArtifactError) as refused:
        ask_part(load(run), run, "test")
    assert str(refused.value) == f"{run} has no test questions. Use --manifest FILE, a SQuAD file."


def test_the_page_is_whole(run, tmp_path, read_html):
    summary = write_evaluation(ask_part(load(run), run, "test"), None, "x/y/run", 0.95, tmp_path / "out")
    report = json.loads((tmp_path / "out" / "evaluation_report.json").read_text(encoding="utf-8"))
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(report["files"])
    html = read_html((tmp_path / "out" / "index.html").read_text(encoding="utf-8").replace("<br>", " "))
    assert html.open == []
    assert max(map(len, summary.splitlines())) <= 100
    errors = (tmp_path / "out" / "errors.csv").read_text(encoding="utf-8").splitlines()
    assert errors[1].startswith("first,When was it built?,1889,Paris,0.0,0.0,")
