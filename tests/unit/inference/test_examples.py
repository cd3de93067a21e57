"""Nets are compared on real examples: those of a run's validation part, or files that somebody names."""

import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from doctune.errors import ArtifactError, DataError
from doctune.inference import examples as module
from doctune.inference.artifact import load_artifact
from doctune.inference.engine import load
from doctune.inference.examples import QuestionExamples, TextExamples, file_examples, validation_examples
from doctune.labels import Labels

LABELS = Labels(("code", "invoice", "recipe"))


def write_part(run, **columns):
    (run / "predictions").mkdir(parents=True)
    pq.write_table(pa.table(columns), run / "predictions" / "val.parquet")


@pytest.fixture
def files(tmp_path):
    """Six files that can be read, and one that is empty."""
    paths = [tmp_path / "files" / f"{number}.txt" for number in range(7)]
    paths[0].parent.mkdir()
    for number, path in enumerate(paths):
        path.write_text("egg " * number)
    return paths


def test_the_validation_part_is_read_again_from_its_files(tmp_path, files, tiny_model):
    write_part(tmp_path, path=[str(path) for path in files], truth=["code", "recipe"] * 3 + ["invoice"])
    found = validation_examples(tmp_path, load_artifact(tiny_model()))
    assert found.source == f"the val part of {tmp_path}"
    assert found.texts == tuple(("egg " * number).strip() for number in range(1, 7))
    assert found.truth == ("recipe", "code", "recipe", "code", "recipe", "invoice")


def test_questions_come_with_their_contexts_and_references(tmp_path, tiny_model):
    write_part(tmp_path, question=["Who?", "Where?"], context=["a b", "c"], references=[["a", "b"], []])
    assert validation_examples(tmp_path, load_artifact(tiny_model("question_answering"))) == QuestionExamples(
        f"the val part of {tmp_path}", ("Who?", "Where?"), ("a b", "c"), (("a", "b"), ())
    )


def test_of_a_large_part_the_same_sample_is_judged_each_time(tmp_path, files, tiny_model, monkeypatch):
    monkeypatch.setattr(module, "MAX_EXAMPLES", 5)
    write_part(tmp_path, path=[str(path) for path in files[1:]], truth=["code"] * 6)
    first, second = (validation_examples(tmp_path, load_artifact(tiny_model())) for _ in range(2))
    assert len(first) == 5
    assert first == second


def test_a_folder_without_a_run_asks_for_documents(tmp_path, tiny_model):
    sentence = (
        f"{tmp_path / 'predictions' / 'val.parquet'} is not there: without a run there are no real documents to "
        "compare on. Name some with --documents PATH…."
    )
    with pytest.raises(ArtifactError, match=f"^{re.escape(sentence)}$"):
        validation_examples(tmp_path, load_artifact(tiny_model()))


def test_too_few_documents_are_said(tmp_path, files, tiny_model):
    with pytest.raises(
        DataError,
        match=r"^Of 3 files of the documents named 2 can be read; at least 5 real documents are needed to compare on\. "
        r"Name some with --documents PATH…\.$",
    ):
        file_examples(files[:3], load_artifact(tiny_model()))
    write_part(tmp_path, path=[str(tmp_path / "gone" / str(number)) for number in range(9)], truth=["code"] * 9)
    sentence = f"Of 9 files of the val part of {tmp_path} 0 can be read; at least 5 real documents are needed"
    with pytest.raises(DataError, match=f"^{re.escape(sentence)}"):
        validation_examples(tmp_path, load_artifact(tiny_model()))


def test_named_files_and_folders_have_no_truth(files, tiny_model):
    found = file_examples([files[0].parent], load_artifact(tiny_model()))
    assert (len(found), found.source, found.truth) == (6, "the documents named", None)
    assert found.score(["code"] * 6) is None


def test_a_reader_is_not_compared_on_documents(files, tiny_model):
    with pytest.raises(
        ArtifactError, match=r"^A reader is compared on the questions of its run: leave out --documents"
    ):
        file_examples(files, load_artifact(tiny_model("question_answering")))


def test_the_score_of_labels_is_macro_f1():
    found = TextExamples("", LABELS, ("a", "b", "c", "d"), ("code", "code", "invoice", "recipe"))
    assert found.score(["code", "code", "invoice", "recipe"]) == 1.0
    # code 2/3, invoice 2/3, recipe 0
    assert found.score(["code", "invoice", "invoice", "code"]) == pytest.approx((0.5 + 2 / 3 + 0) / 3)


def test_the_score_of_answers_is_that_of_squad():
    answered = QuestionExamples("", ("a", "b"), ("c", "d"), (("Maria Keller", "Keller"), ("Paris",)))
    assert answered.score(["Maria Keller", "Lyon"]) == 0.5
    silent = QuestionExamples("", ("a", "b"), ("c", "d"), (("Maria Keller",), ()))
    assert silent.score(["Keller", ""]) == pytest.approx((2 / 3 + 1) / 2)


def test_a_spread_goes_from_the_shortest_to_the_longest_with_its_truth():
    texts = tuple("x" * length for length in (5, 1, 4, 2, 3))
    found = TextExamples("", LABELS, texts, ("recipe", "code", "recipe", "code", "invoice")).spread(3)
    assert (found.texts, found.truth) == (("x", "xxx", "xxxxx"), ("code", "invoice", "recipe"))
    questions = QuestionExamples("", ("a", "b", "c"), ("333", "1", "22"), (("3",), ("1",), ("2",))).spread(2)
    assert (questions.questions, questions.contexts, questions.references) == (
        ("b", "a"),
        ("1", "333"),
        (("1",), ("3",)),
    )


def test_a_spread_over_fewer_is_all_of_them():
    assert TextExamples("", LABELS, ("bb", "a")).spread(9).texts == ("a", "bb")


def test_answers_are_those_of_the_engine(tiny_model, model_texts, known_reader, doubting_reader):
    engine = load(tiny_model())
    found = TextExamples("", engine.artifact.labels, model_texts).answers(engine)
    assert found == [prediction.label for prediction in engine.predict(model_texts)]
    questions = QuestionExamples("", ("Who?",) * 2, ("We met Maria Keller.", "In Lyon."), ((), ()))
    assert questions.answers(load(known_reader)) == ["Maria Keller", "Lyon"]
    assert questions.answers(load(doubting_reader)) == ["Maria Keller", ""]
