import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from doctune.corpus.squad_source import read_squad_source
from doctune.errors import DataError

CONTEXT = "The mill was built in 1802."


def row(name, texts=("1802",), starts=(22,), title="Mill", context=CONTEXT):
    answers = {"text": [*texts], "answer_start": [*starts]}
    return {"id": name, "title": title, "context": context, "question": f"When, {name}?", "answers": answers}


def write_parquet(path: Path, *rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([*rows]), path)
    return path


def write_json(path: Path, name="q1") -> Path:
    question = {"id": name, "question": "When?", "answers": [{"text": "1802", "answer_start": 22}]}
    paragraphs = [{"context": CONTEXT, "qas": [question]}]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"version": "1.1", "data": [{"title": "Mill", "paragraphs": paragraphs}]}))
    return path


@pytest.fixture
def hub_layout(tmp_path) -> Path:
    folder = tmp_path / "squad"
    write_parquet(folder / "plain_text" / "train-00000-of-00001.parquet", row("a"), row("b"))
    write_parquet(folder / "plain_text" / "validation-00000-of-00001.parquet", row("c"))
    return folder


def ids(found):
    return [question.id for question in found.questions]


def refused(source) -> str:
    with pytest.raises(DataError) as caught:
        read_squad_source(str(source))
    return str(caught.value)


def test_a_folder_in_the_layout_of_the_hub_has_a_set_that_trains_and_one_that_judges(hub_layout):
    source = read_squad_source(str(hub_layout))
    assert (ids(source.train), ids(source.judge)) == (["a", "b"], ["c"])
    first, second = source.train.questions
    assert (first.article, first.text, first.answers, first.start) == ("Mill", "When, a?", ("1802",), 22)
    assert first.context is second.context
    assert source.train.path == hub_layout / "plain_text" / "train-00000-of-00001.parquet"
    assert source.train.version == "1.1"


def test_a_question_without_answers_is_impossible_in_parquet(tmp_path):
    path = write_parquet(tmp_path / "any.parquet", row("a"), row("b", (), ()))
    source = read_squad_source(str(path))
    assert [(each.id, each.is_impossible) for each in source.train.questions] == [("a", False), ("b", True)]
    assert (source.train.version, source.judge) == ("2.0", None)


def test_rows_that_cannot_be_used_are_said_by_their_number(tmp_path):
    rows = [row("a"), row("a"), row("b", ("1802",), ()), row("c", context=""), row("d") | {"answers": None}]
    found = read_squad_source(str(write_parquet(tmp_path / "any.parquet", *rows))).train
    assert ids(found) == ["a"]
    assert [(each.id, each.status, each.reason) for each in found.rejected] == [
        ("a", "duplicate_id", "row 2: an earlier question has the same id"),
        ("b", "wrong_type", "row 3 has 1 answers, but 0 places where they start"),
        ("c", "empty_context", "row 4 has an empty 'context'"),
        ("d", "missing_field", "row 5 has no 'answers'"),
    ]


def test_rows_without_titles_are_articles_by_context(tmp_path):
    rows = [row("a"), row("b"), row("c", context=CONTEXT + " Later it burnt.")]
    path = write_parquet(tmp_path / "any.parquet", *[{k: v for k, v in r.items() if k != "title"} for r in rows])
    first, second, third = (each.article for each in read_squad_source(str(path)).train.questions)
    assert first == second != third
    assert re.fullmatch("untitled-[0-9a-f]{8}", first)


def test_shards_are_read_in_order_and_all_of_them(tmp_path):
    for number, name in ((1, "b"), (0, "a")):
        write_parquet(tmp_path / "data" / f"train-0000{number}-of-00002.parquet", row(name))
    found = read_squad_source(str(tmp_path)).train
    assert ids(found) == ["a", "b"]
    assert found.path == tmp_path / "data" / "train-*.parquet"
    (tmp_path / "data" / "train-00000-of-00002.parquet").unlink()
    assert refused(tmp_path) == (
        f"{tmp_path}/data has 1 of the 2 files of train.parquet. Fetch the missing ones; if the folder is of the hub's "
        "cache, remove it and try again."
    )


def test_files_in_folders_named_after_the_split_are_its_shards(tmp_path):
    for name, part in (("a", "train/0000"), ("b", "train/0001"), ("c", "validation/0000")):
        write_parquet(tmp_path / "plain_text" / f"{part}.parquet", row(name))
    source = read_squad_source(str(tmp_path))
    assert (ids(source.train), ids(source.judge)) == (["a", "b"], ["c"])
    assert source.train.path == tmp_path / "plain_text" / "train"


def test_a_folder_of_the_official_files_is_read_too(tmp_path):
    write_json(tmp_path / "train-v1.1.json", "a")
    write_json(tmp_path / "dev-v1.1.json", "b")
    source = read_squad_source(str(tmp_path))
    assert (ids(source.train), ids(source.judge)) == (["a"], ["b"])


def test_a_single_file_trains_and_nothing_judges(tmp_path):
    source = read_squad_source(str(write_json(tmp_path / "questions.json")))
    assert (ids(source.train), source.judge) == (["q1"], None)


def test_two_training_sets_are_refused(tmp_path):
    write_json(tmp_path / "train-v1.1.json")
    write_json(tmp_path / "train-v2.0.json")
    assert refused(tmp_path) == (
        f"{tmp_path} has 2 training sets: train-v1.1.json, train-v2.0.json. Name one file or folder with data.path=."
    )


def test_a_folder_without_a_training_set_is_refused(tmp_path):
    write_json(tmp_path / "dev.json")
    assert refused(tmp_path) == (
        f"{tmp_path} has no training set: no .json or .parquet file in it begins with train. Name the file itself with "
        "data.path=."
    )


def test_parquet_of_other_columns_is_refused(tmp_path):
    path = write_parquet(tmp_path / "any.parquet", {"id": "a", "text": "b"})
    assert refused(path) == (
        f"{path} has no column 'context' and no column 'question' and no column 'answers'; it has: id, text. The "
        "layout is that of rajpurkar/squad on the hub: id, title, context, question, answers."
    )
    path.write_bytes(b"no parquet")
    assert refused(path).startswith(f"{path} cannot be read as Parquet: ")


@pytest.mark.parametrize("source", ["questions", "/nowhere/train.json", "data/train.json", "a/b/c"])
def test_what_is_no_path_and_no_name_of_the_hub_is_refused(source):
    assert refused(source) == (
        f"There is no file and no folder {source}. Name one with data.path=, or a data set of the hub by its owner and "
        "name (data.path=rajpurkar/squad)."
    )


# --- the hub: huggingface_hub itself, offline (tests/conftest.py sets HF_HUB_OFFLINE before it is imported) --------


@pytest.fixture
def hub_cache(tmp_path, monkeypatch) -> Path:
    """An empty cache in the place of the person's own; huggingface_hub reads the constant at every call."""
    from huggingface_hub import constants

    assert constants.HF_HUB_OFFLINE
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_a_data_set_of_the_hub_is_taken_from_the_cache(hub_cache):
    revision = "0123456789abcdef0123456789abcdef01234567"
    repository = hub_cache / "datasets--someone--mills"
    snapshot = repository / "snapshots" / revision
    write_parquet(snapshot / "plain_text" / "train-00000-of-00001.parquet", row("a"))
    write_parquet(snapshot / "plain_text" / "validation-00000-of-00001.parquet", row("b"))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    source = read_squad_source("someone/mills")
    assert (ids(source.train), ids(source.judge)) == (["a"], ["b"])
    assert source.train.path == snapshot / "plain_text" / "train-00000-of-00001.parquet"


def test_a_hub_that_cannot_be_reached_is_said_with_the_ways_on(hub_cache):
    assert re.fullmatch(
        r"The data set 'someone/mills' is no path here, and the hub was not reachable or does not have it \(.+[^.]\)\. "
        r"Two ways on: give the official JSON, or a folder of it or of Parquet files "
        r"\(data\.path=/path/to/train\.json\), or check the name and the connection and try again\.",
        refused("someone/mills"),
    )


def test_a_local_folder_goes_before_the_hub(tmp_path, monkeypatch, hub_cache):
    write_json(tmp_path / "someone" / "mills" / "train.json", "here")
    monkeypatch.chdir(tmp_path)
    assert ids(read_squad_source("someone/mills").train) == ["here"]
