from collections import Counter
from dataclasses import replace

import pytest

from doctune.corpus.division import LabelledDocument, SplitSettings, advice_on_folds, divide, write_splits
from doctune.errors import DataError


def make(label: str, count: int, start: int = 0) -> list[LabelledDocument]:
    names = [f"{label}{number}" for number in range(start, start + count)]
    return [LabelledDocument(name, f"/{name}.txt", label, name, "left_out", f"t{name}", f"g{name}") for name in names]


DOCUMENTS = [*make("a", 20), *make("b", 10)]


def parts(division) -> dict[str, str]:
    return {document.id: document.part for document in division.documents}


def test_every_document_is_tested_in_exactly_one_fold():
    tested = Counter()
    for fold in range(5):
        division = divide(DOCUMENTS, SplitSettings(val=0.2, num_folds=5, fold=fold))
        assert Counter(parts(division).values()) == {"train": 19, "val": 5, "test": 6}
        assert {d.id: d.fold for d in division.documents} == {
            d.id: d.fold for d in divide(DOCUMENTS, SplitSettings(val=0.2, num_folds=5, fold=0)).documents
        }
        assert all((document.part == "test") == (document.fold == fold) for document in division.documents)
        tested.update(name for name, part in parts(division).items() if part == "test")
    assert tested == dict.fromkeys((d.id for d in DOCUMENTS), 1)


def test_a_document_under_two_labels_is_tested_in_no_fold():
    twin = replace(make("b", 1, start=50)[0], text="ta0", group="ga0")
    for fold in range(5):
        found = parts(divide([*DOCUMENTS, twin], SplitSettings(fold=fold)))
        assert (found["a0"], found["b50"]) == ("train", "train")


def test_near_copies_under_two_labels_may_judge_together():
    pair = [replace(d, group="near") for d in (*make("a", 1, start=50), *make("b", 1, start=50))]
    judged = [parts(divide([*DOCUMENTS, *pair], SplitSettings(fold=fold))) for fold in range(5)]
    assert sorted((found["a50"], found["b50"]) for found in judged).count(("test", "test")) == 1


def test_folds_need_a_document_each():
    with pytest.raises(DataError, match=r"it needs 5 documents that are not copies.* Too small: c \(4\)"):
        divide([*DOCUMENTS, *make("c", 4)], SplitSettings(fold=0, num_folds=5))


def test_small_classes_are_merged_into_other():
    division = divide([*DOCUMENTS, *make("c", 2), *make("d", 2)], SplitSettings(small_classes="merge"))
    assert Counter(document.label for document in division.documents) == {"a": 20, "b": 10, "other": 4}
    assert division.merged == {"c": 2, "d": 2}


def test_classes_too_small_even_together_are_said():
    with pytest.raises(DataError, match="Even together the small classes have only 2 different documents of 3"):
        divide([*DOCUMENTS, *make("c", 2)], SplitSettings(small_classes="merge"))


def test_a_saved_split_is_used_as_it_is(tmp_path):
    first = divide(DOCUMENTS, SplitSettings(seed=1))
    write_splits(first.documents, tmp_path / "splits.parquet")
    again = divide(
        [*reversed(DOCUMENTS), *make("a", 1, start=99)], SplitSettings(seed=2, file=tmp_path / "splits.parquet")
    )
    assert parts(again) == parts(first)
    assert [(document.id, status) for document, status, _ in again.left_out] == [("a99", "not_in_split")]


def test_a_text_under_two_labels_judges_nothing_in_a_saved_split_either(tmp_path):
    first = divide(DOCUMENTS, SplitSettings(seed=1))
    write_splits(first.documents, tmp_path / "splits.parquet")
    judged = [d for d in DOCUMENTS if parts(first)[d.id] == "test"]
    pair = [d for d in judged if d.label == "a"][:1] + [d for d in judged if d.label == "b"][:1]
    twins = [replace(d, text="same", group="same") if d in pair else d for d in DOCUMENTS]
    settings = SplitSettings(file=tmp_path / "splits.parquet")
    division = divide(twins, settings)
    assert len(pair) == 2
    assert {d.id for d, status, _ in division.left_out if status == "two_labels"} == {d.id for d in pair}


def test_documents_that_may_only_train_do_not_make_a_class_large_enough():
    rare = make("c", 3)
    twin = replace(make("a", 1, start=60)[0], text="tc0", group="gc0")
    with pytest.raises(DataError, match=r"Too small: c \(2\)"):
        divide([*DOCUMENTS, *rare, twin], SplitSettings())


def test_a_saved_split_that_leaks_is_refused(tmp_path):
    first = divide(DOCUMENTS, SplitSettings(seed=1))
    write_splits(first.documents, tmp_path / "splits.parquet")
    by_part = {part: name for name, part in parts(first).items()}
    copies = [replace(d, group="copy") if d.id in (by_part["train"], by_part["test"]) else d for d in DOCUMENTS]
    with pytest.raises(
        DataError, match=r"leaks: 1 groups of copies stand in more than one part, such as /.*\(t\w+\) and"
    ):
        divide(copies, SplitSettings(file=tmp_path / "splits.parquet"))


def test_a_saved_split_without_a_part_or_a_class_is_refused(tmp_path):
    first = divide(DOCUMENTS, SplitSettings(seed=1))
    write_splits(first.documents, tmp_path / "splits.parquet")
    found = parts(first)
    settings = SplitSettings(file=tmp_path / "splits.parquet")
    with pytest.raises(DataError, match="gives these documents no test part"):
        divide([d for d in DOCUMENTS if found[d.id] != "test"], settings)
    with pytest.raises(DataError, match="leaves no training document of: b"):
        divide([d for d in DOCUMENTS if d.label == "a" or found[d.id] != "train"], settings)


def test_a_file_that_is_no_split_is_named(tmp_path):
    with pytest.raises(DataError, match=r"split\.file=.*missing\.parquet is not a splits\.parquet that can be read"):
        divide(DOCUMENTS, SplitSettings(file=tmp_path / "missing.parquet"))
    write_splits([replace(DOCUMENTS[0], part="dev")], tmp_path / "odd.parquet")
    with pytest.raises(DataError, match="has parts that are none: dev"):
        divide(DOCUMENTS, SplitSettings(file=tmp_path / "odd.parquet"))


def test_on_many_documents_one_split_says_nearly_as_much():
    settings = SplitSettings(test=0.1, num_folds=5, fold=0)
    assert advice_on_folds(10_000, settings) is None
    assert advice_on_folds(20_000, SplitSettings()) is None
    assert advice_on_folds(20_000, settings) == (
        "5 folds of 20,000 documents take 5 trainings. One split (split=holdout) judges 2,000 of them after one: "
        "at 90 % accuracy the 95 % interval is ±1.3%."
    )
