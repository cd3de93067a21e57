from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from doctune.errors import ArtifactError
from doctune.reports.reader_records import read_reader_run
from doctune.reports.run import write_report


def refused(run):
    with pytest.raises(ArtifactError) as caught:
        read_reader_run(run)
    return str(caught.value)


def test_a_run_is_read_as_it_was_written(make_reader_run, answer):
    records = read_reader_run(make_reader_run(test=[answer("q", "in 1889"), answer("r", "")]))
    judged = records.test.given[0].judged
    assert (judged.id, judged.question, judged.references) == ("q", "When was it built?", ("1889",))
    assert judged.context[judged.start : judged.end] == "in 1889"
    assert (judged.exact_match, judged.f1) == (0.0, pytest.approx(2 / 3))  # not the zeros of the file
    assert (records.test.given[0].article, records.test.given[0].probability) == ("Towers", 0.75)
    assert records.test.given[1].judged.start is None
    assert records.version == "1.1"
    assert len(records.val) == 40


def test_baseline_answers_follow_the_order_of_the_test_questions(make_reader_run, answer):
    run = make_reader_run(test=[answer("a"), answer("b"), answer("c")])
    table = pa.table({"id": ["c", "a", "b"], "lexical": ["C", "A", None]})
    pq.write_table(table, run / "predictions/baselines_test.parquet")
    assert read_reader_run(run).baseline_answers == {"lexical": ["A", "", "C"]}


def test_a_run_without_baselines_has_none(make_reader_run):
    run = make_reader_run()
    (run / "data/baselines.json").unlink()
    (run / "predictions/baselines_test.parquet").unlink()
    records = read_reader_run(run)
    assert (records.baselines, records.baseline_answers) == ({}, {})


@pytest.mark.parametrize(
    "name", ["data/audit.json", "training_history.json", "predictions/val.parquet", "predictions/test.parquet"]
)
def test_a_missing_file_is_named(make_reader_run, name):
    run = make_reader_run()
    (run / name).unlink()
    assert refused(run) == f"{run / name} is missing: the run did not finish, or {run} is not a run folder."


def test_a_folder_that_does_not_exist_is_no_run(tmp_path):
    for read in (read_reader_run, write_report):
        with pytest.raises(ArtifactError, match=r"nowhere is not a run folder\. Give the folder that training wrote"):
            read(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data/audit.json", "[]", "audit.json must hold a JSON object"),
        ("training_history.json", "[]", "training_history.json holds no epoch: the run ended before its first"),
        ("predictions/test.parquet", "PAR", "test.parquet cannot be read as Parquet"),
    ],
)
def test_a_damaged_file_is_named(make_reader_run, name, content, message):
    run = make_reader_run()
    (run / name).write_text(content)
    assert message in refused(run)


def test_a_missing_column_is_named(make_reader_run):
    run = make_reader_run()
    path = run / "predictions/val.parquet"
    pq.write_table(pq.read_table(path).drop(["n_best", "windows"]), path)
    assert f"{path} lacks the columns windows, n_best; it has id, article, " in refused(run)


@pytest.mark.parametrize("version", [None, "3.0"])
def test_an_unknown_version_is_refused(make_reader_run, version):
    run = make_reader_run()
    text = (run / "environment.json").read_text().replace('"1.1"', f'"{version}"' if version else "null")
    (run / "environment.json").write_text(text)
    assert refused(run) == (
        f"{run / 'environment.json'}: the version of the questions is {version!r}; known are 1.1 and 2.0, which has "
        "questions without an answer."
    )


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"question": None}, " has no question."),
        ({"references": []}, ": question 'b' has no reference, but the run's version is 1.1, which knows no unanswer"),
        ({"windows": 0}, ": windows is 0, but a context takes at least 1."),
        ({"start": 3, "end": None}, ": 3 to None is no place in a context of 58 characters."),
        ({"start": 5, "end": 59}, ": 5 to 59 is no place in a context of 58 characters."),
        ({"start": 5, "end": 4}, ": 5 to 4 is no place in a context of 58 characters."),
        ({"reference_start": 59}, ": reference_start is 59, but the context has 58 characters."),
    ],
)
def test_a_row_that_is_no_answer_is_named(make_reader_run, answer, columns, message):
    run = make_reader_run()
    schema = pq.read_table(run / "predictions/test.parquet").schema
    rows = [answer("a"), answer("b") | columns]
    pq.write_table(pa.Table.from_pylist(rows, schema), run / "predictions/test.parquet")
    assert refused(run).startswith(f"{run / 'predictions/test.parquet'}, row 2{message}")


def test_a_question_that_stands_twice_is_refused(make_reader_run, answer):
    run = make_reader_run(val=[answer("a"), answer("a")])
    path = run / "predictions/val.parquet"
    assert refused(run) == f"{path} has 2 rows, but only 1 ids: some question stands twice."


def test_baselines_of_other_questions_are_refused(make_reader_run):
    run = make_reader_run()
    path = run / "predictions/baselines_test.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    message = f"{path} does not hold the same questions as test.parquet beside it: one of them is stale."
    assert refused(run) == message
