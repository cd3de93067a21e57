import csv
import json
import re
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from doctune.corpus.division import SplitSettings
from doctune.corpus.questions import article_groups, prepare_questions
from doctune.corpus.squad import Question, RejectedQuestion, SquadFile, read_squad
from doctune.errors import DataError

SPLIT = SplitSettings(val=0.2, test=0.2, seed=1)


def make(article, number, *, context=None, start=0, prefix="", **fields):
    context = context or f"{prefix}{article} has part {number // 2}."
    values = {"text": f"What is {number}?", "answers": (context[:3],), "start": start, "is_impossible": False} | fields
    return Question(f"{prefix}{article}-{number}", article, context, **values)


def articles(*names, each=4, prefix=""):
    return [make(name, number, prefix=prefix) for name in names for number in range(each)]


def file(questions, name="train.json", rejected=(), misaligned=None):
    return SquadFile(Path("/data") / name, "1.1", tuple(questions), tuple(rejected), misaligned or {})


TEN = [f"article {letter}" for letter in "ABCDEFGHIJ"]


def parts(corpus):
    return {document.id: document.part for document in corpus.documents}


def by_status(corpus):
    return Counter((row.part, row.status) for row in corpus.account)


def refused(*files, **options) -> str:
    train, judge = (*files, None)[:2]
    with pytest.raises(DataError) as caught:
        prepare_questions(train, judge, **({"split": SPLIT} | options))
    return str(caught.value)


# --- parts -------------------------------------------------------------------------------------------------------


def test_articles_stay_whole():
    corpus = prepare_questions(file(articles(*TEN)), None, split=SPLIT)
    assert {name: len(corpus.part(name)) for name in ("train", "val", "test")} == {"train": 24, "val": 8, "test": 8}
    assert Counter(Counter(d.label for d in corpus.documents).values()) == {4: 10}
    assert len({(document.label, document.part) for document in corpus.documents}) == 10


def test_the_order_of_the_file_does_not_matter_for_the_parts():
    questions = articles(*TEN)
    one = prepare_questions(file(questions), None, split=SPLIT, max_questions=7, max_judge_questions=3)
    other = prepare_questions(file(reversed(questions)), None, split=SPLIT, max_questions=7, max_judge_questions=3)
    assert parts(one) == parts(other)
    third = prepare_questions(file(questions), None, split=SplitSettings(val=0.2, test=0.2, seed=2), max_questions=7)
    assert parts(one) != parts(third)


def test_a_part_is_ordered_by_article_then_as_the_file():
    questions = articles("b", "a", "c")
    corpus = prepare_questions(file(questions), None, split=SPLIT)
    assert [q.id for q in corpus.questions] == [q.id for name in "abc" for q in questions if q.article == name]
    assert [document.id for document in corpus.documents] == [q.id for q in corpus.questions]


def test_articles_that_share_a_context_are_one_group():
    titles = ["d", "a", "b", "b", "c"]
    assert article_groups(titles, ["1", "2", "2", "3", "3"]) == ["d", "a", "a", "a", "a"]
    assert article_groups(["b", "a", "a"], ["1", "2", "1"]) == ["a", "a", "a"]


def test_contexts_that_differ_in_blanks_join_their_articles():
    shared = [make("A", 9, context="The same  text."), make("B", 9, context="The same\ntext. ")]
    for seed in range(8):
        corpus = prepare_questions(file([*articles(*"ABCD"), *shared]), None, split=SplitSettings(seed=seed))
        found = {(document.group, document.part) for document in corpus.documents if document.label in "AB"}
        assert found in [{("A", "train")}, {("A", "val")}, {("A", "test")}]


def test_every_question_is_tested_in_exactly_one_fold():
    questions = articles(*TEN)
    tested = Counter()
    for fold in range(5):
        corpus = prepare_questions(file(questions), None, split=SplitSettings(val=0.25, num_folds=5, fold=fold))
        assert {name: len(corpus.part(name)) for name in ("train", "val", "test")} == {"train": 24, "val": 8, "test": 8}
        assert all((document.part == "test") == (document.fold == fold) for document in corpus.documents)
        assert len({(document.label, document.part) for document in corpus.documents}) == 10
        tested.update(question.id for question in corpus.part("test"))
    assert tested == dict.fromkeys((question.id for question in questions), 1)


def test_too_few_articles_are_counted():
    two = file([*articles("A", "B", "C"), make("A", 9, context="Same."), make("B", 9, context="Same.")])
    advice = "Add articles, or give texts that have nothing to do with each other titles of their own."
    assert refused(two) == (
        "Questions are divided by article, and /data/train.json has 2 articles without a text in common, where "
        f"training, validation and test need 3. {advice}"
    )
    assert refused(file(articles(*"ABCD")), split=SplitSettings(num_folds=5, fold=0)) == (
        "Questions are divided by article, and /data/train.json has 4 articles without a text in common, where "
        f"5 folds (split.folds) need 5. {advice}"
    )
    assert refused(file(articles("A")), file(articles("J"), "dev.json")) == (
        "Questions are divided by article, and /data/train.json has one article without a text in common, where "
        f"training and validation need 2. {advice}"
    )


# --- a file that judges ------------------------------------------------------------------------------------------


def test_a_file_that_judges_is_the_test_part():
    judging = articles("X", "Y", prefix="dev ")
    corpus = prepare_questions(file(articles(*TEN)), file(judging, "dev.json"), split=SPLIT)
    assert corpus.part("test") == tuple(judging)
    assert {name: len(corpus.part(name)) for name in ("train", "val")} == {"train": 32, "val": 8}
    assert {document.path for document in corpus.documents if document.part == "test"} == {
        f"dev.json#{question.id}" for question in judging
    }


def test_training_questions_whose_context_or_id_judges_are_left_out():
    judging = [make("X", 0, context="Known text."), make("X", 1)]
    learning = [*articles(*"ABC"), make("A", 8, context="Known  text."), make("X", 1, context="Another text.")]
    corpus = prepare_questions(file(learning), file(judging, "dev.json"), split=SPLIT)
    assert [(row.path, row.label, row.status, row.reason) for row in corpus.left_out()] == [
        ("train.json#A-8", "A", "in_test_file", "its context stands in dev.json, too"),
        ("train.json#X-1", "X", "in_test_file", "its id stands in dev.json, too"),
    ]
    assert len(corpus.account) == len(learning) + len(judging)


def test_articles_that_train_and_judge_are_said_and_have_two_groups(caplog):
    judging = file(articles("B", "A", prefix="dev "), "dev.json")
    corpus = prepare_questions(file(articles(*"ABCD")), judging, split=SPLIT)
    assert caplog.messages == [
        "2 articles of /data/dev.json also train, with other contexts (such as A, B): its scores may flatter."
    ]
    assert {d.group for d in corpus.documents if d.part == "test"} == {"A (dev.json)", "B (dev.json)"}


def test_files_of_one_name_are_told_apart_by_their_paths():
    corpus = prepare_questions(file(articles(*"ABC"), "a/x.json"), file(articles("X"), "b/x.json"), split=SPLIT)
    assert {row.path.split("#")[0] for row in corpus.account} == {"/data/a/x.json", "/data/b/x.json"}


def test_a_fold_beside_a_file_that_judges_is_refused():
    assert refused(file(articles(*TEN)), file(articles("X"), "dev.json"), split=SplitSettings(fold=0)) == (
        "split.fold=0 would take the test part from /data/train.json, but /data/dev.json is the test part. Leave out "
        "split.fold (split=holdout), or give the training file alone."
    )


# --- a saved split -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("judge", [None, file(articles("A", "X", prefix="dev "), "dev.json")])
def test_a_saved_split_gives_the_same_parts_and_samples(tmp_path, judge):
    first = prepare_questions(file(articles(*TEN)), judge, split=SPLIT, max_questions=9, max_judge_questions=5)
    first.write(tmp_path)
    more = file([*articles(*TEN), make("article A", 99)])
    again = prepare_questions(more, judge, split=SplitSettings(seed=7, file=tmp_path / "splits.parquet"))
    assert parts(again) == parts(first)
    assert {row.status for row in again.left_out()} == {"not_in_split"}
    assert {row.reason for row in again.left_out()} == {f"{tmp_path}/splits.parquet does not have it"}


def test_a_saved_split_that_cuts_an_article_is_refused(tmp_path):
    first = prepare_questions(file(articles(*TEN)), None, split=SPLIT)
    first.write(tmp_path)
    joined = [make(name, 8, context="A text of both.") for name in (TEN[0], first.part("test")[0].article)]
    at = {question.article: name for name in ("train", "val", "test") for question in first.part(name)}
    assert at[TEN[0]] == "train"
    saved = tmp_path / "splits.parquet"
    assert refused(file([*articles(*TEN), *joined]), split=SplitSettings(file=saved)) == (
        f"split.file={saved} leaks: articles, or articles with a text in common, stand in more than one part "
        "(1 in all), such as article A (test and train). Make a new split (leave split.file out)."
    )


def test_a_saved_split_of_other_questions_is_refused(tmp_path):
    prepare_questions(file(articles(*TEN)), None, split=SPLIT).write(tmp_path)
    saved = tmp_path / "splits.parquet"
    assert refused(file(articles(*"ABC")), split=SplitSettings(file=saved)) == (
        f"split.file={saved} leaves no question for the train and the val and the test part; left out: 12 not_in_split."
    )
    saved.write_bytes(b"no parquet")
    assert refused(file(articles(*TEN)), split=SplitSettings(file=saved)).startswith(
        f"split.file={saved} is not a splits.parquet that can be read: "
    )


# --- misaligned answers, samples ---------------------------------------------------------------------------------


def test_misaligned_answers_judge_but_do_not_train():
    learning = [make(name, number, start=None if number == 1 else 0) for name in TEN for number in range(4)]
    misaligned = {f"{name}-1": "something else stands there" for name in TEN}
    corpus = prepare_questions(file(learning, misaligned=misaligned), None, split=SPLIT)
    assert by_status(corpus) == {
        ("train", "ok"): 18,
        ("val", "ok"): 8,
        ("test", "ok"): 8,
        ("left_out", "misaligned_answer"): 6,
    }
    assert {row.reason for row in corpus.left_out()} == {"something else stands there"}
    assert Counter(row.reason for row in corpus.account if row.part == "test") == {
        "": 6,
        "judged by its text: its answer is not where the file says": 2,
    }
    assert corpus.totals()["misaligned"] == 10


def test_without_a_trainable_question_there_is_no_run():
    questions = [make(name, 0, start=None) for name in TEN]
    assert refused(file(questions, misaligned={q.id: "no" for q in questions})) == (
        "/data/train.json leaves no question for the train part; left out: 6 misaligned_answer."
    )


def test_a_sample_caps_each_part_and_is_in_the_account():
    corpus = prepare_questions(file(articles(*TEN)), None, split=SPLIT, max_questions=10, max_judge_questions=100)
    assert by_status(corpus) == {
        ("train", "ok"): 10,
        ("val", "ok"): 8,
        ("test", "ok"): 8,
        ("left_out", "sampled_out"): 14,
    }
    assert {row.reason for row in corpus.left_out()} == {"not in a sample of 10 of the 24 questions of the train part"}
    smaller = prepare_questions(file(articles(*TEN)), None, split=SPLIT, max_questions=5, max_judge_questions=2)
    assert set(smaller.part("train")) < set(corpus.part("train"))
    assert {name: len(smaller.part(name)) for name in ("train", "val", "test")} == {"train": 5, "val": 2, "test": 2}


# --- the account and the files -----------------------------------------------------------------------------------


def test_the_folder_has_every_row_once_and_its_totals(tmp_path):
    impossible = make("article A", 9, answers=(), start=None, is_impossible=True)
    rejected = [RejectedQuestion("article A-1", "article A", "duplicate_id", "it is there already")]
    corpus = prepare_questions(file([*articles(*TEN), impossible], rejected=rejected), None, split=SPLIT)
    corpus.write(tmp_path)
    with (tmp_path / "account.csv").open(newline="") as stream:
        header, *rows = csv.reader(stream)
    assert header == ["path", "label", "part", "status", "reason", "group"]
    assert len(rows) == 42
    assert [row for row in rows if row[0] == "train.json#article A-1"] == [
        ["train.json#article A-1", "article A", "train", "ok", "", "article A"],
        ["train.json#article A-1", "article A", "left_out", "duplicate_id", "it is there already", ""],
    ]
    assert json.loads((tmp_path / "audit.json").read_text()) == {
        "rows": 42,
        "parts": {"train": 25, "val": 8, "test": 8, "left_out": 1},
        "left_out_reasons": {"duplicate_id": 1},
        "articles": {"train": 6, "val": 2, "test": 2},
        "contexts": {"train": 13, "val": 4, "test": 4},
        "questions": {"train": 25, "val": 8, "test": 8},
        "impossible": {"train": 1, "val": 0, "test": 0},
        "misaligned": 0,
    }
    table = pq.read_table(tmp_path / "splits.parquet")
    assert table.column_names == ["id", "path", "label", "group", "part", "fold"]
    assert table.to_pylist()[0] == {
        "id": "article A-0",
        "path": "train.json#article A-0",
        "label": "article A",
        "group": "article A",
        "part": "train",
        "fold": None,
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["account.csv", "audit.json", "splits.parquet"]


def test_documents_carry_what_a_fingerprint_needs():
    corpus = prepare_questions(file(articles(*TEN)), None, split=SPLIT)
    document, question = corpus.documents[0], corpus.questions[0]
    assert (document.id, document.label, document.content) == (question.id, question.article, question.content)
    assert (corpus.source, corpus.is_v2) == (Path("/data/train.json"), False)
    impossible = make("A", 9, answers=(), start=None, is_impossible=True)
    assert prepare_questions(file([*articles(*"ABC"), impossible]), None, split=SPLIT).is_v2


# --- real questions ----------------------------------------------------------------------------------------------


def test_real_questions_are_divided_without_a_rest(real_data):
    paths = [real_data / "squad" / f"{name}.json" for name in ("train", "dev")]
    if not all(path.is_file() for path in paths):
        pytest.skip("no SQuAD among the real data")
    train, dev = map(read_squad, paths)
    alone = prepare_questions(train, None, split=SplitSettings(), max_questions=1000, max_judge_questions=200)
    assert {name: len(alone.part(name)) for name in ("train", "val", "test")} == {
        "train": 1000,
        "val": 200,
        "test": 200,
    }
    assert (len(alone.account), {row.status for row in alone.left_out()}) == (6603, {"sampled_out"})
    judged = prepare_questions(train, dev, split=SplitSettings())
    assert (len(judged.part("test")), len(judged.documents), judged.left_out()) == (2080, 8683, [])
    assert re.fullmatch("[0-9a-f]{64}", judged.documents[0].content)
    contexts = [{question.context for question in judged.part(name)} for name in ("train", "val", "test")]
    assert len(set.union(*contexts)) == sum(map(len, contexts)) == 1682
