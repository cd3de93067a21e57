import csv
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from doctune.corpus.division import SplitSettings
from doctune.corpus.file_corpus import describe_account
from doctune.corpus.manifest import Row, read_manifest
from doctune.corpus.prepare import PrepareSettings, prepare, sample
from doctune.corpus.store import TextStore
from doctune.errors import DataError
from doctune.text.extract import ExtractSettings, extract


def read_all(paths):
    return (extract(path, ExtractSettings()) for path in paths)


@pytest.fixture
def folder(tmp_path, make_files) -> Path:
    make_files(tmp_path / "files", per_class=10)
    return tmp_path / "files"


def rows_of(folder: Path) -> list[list[str]]:
    with (folder / "manifest.csv").open(newline="") as stream:
        return list(csv.reader(stream))


def rewrite(folder: Path, rows) -> None:
    with (folder / "manifest.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)


def corpus_of(folder: Path, *, small_classes="fail", min_confidence=0.5, max_unusable=0.2, max_documents=None):
    return prepare(
        read_manifest(folder / "manifest.csv"),
        TextStore(folder.parent / "cache", "k"),
        read_all,
        PrepareSettings(
            min_confidence=min_confidence,
            max_unusable=max_unusable,
            duplicate_threshold=1.0,
            split=SplitSettings(0.2, 0.2, seed=1, small_classes=small_classes),
            max_documents=max_documents,
        ),
    )


def test_every_row_is_in_the_account_exactly_once(folder):
    rows = rows_of(folder)
    (folder / "empty.txt").write_text("")
    rows += [
        [str(folder / "gone.txt"), "recipe", "1"],
        [str(folder / "empty.txt"), "recipe", "1"],
        [str(folder / "unsure.txt"), "recipe", "0.2"],
        [str(folder / "strange.txt"), "recipe", "much"],
    ]
    rewrite(folder, rows)
    corpus = corpus_of(folder)
    assert sorted(row.path for row in corpus.account) == sorted(row[0] for row in rows[1:])
    assert Counter(row.status for row in corpus.account) == {
        "ok": 30,
        "unreadable": 1,
        "empty": 1,
        "low_confidence": 1,
        "rejected": 1,
    }
    assert {row.path: row.reason for row in corpus.account}[str(folder / "unsure.txt")] == "confidence 0.2 is below 0.5"
    assert describe_account(corpus) == (
        "18 train, 6 val, 6 test; left out: 1 empty, 1 unreadable, 1 rejected, 1 low_confidence"
    )


def test_copies_share_a_part_and_ids_differ(folder):
    rows = rows_of(folder)
    for copy in range(5):
        path = folder / f"copy{copy}.txt"
        path.write_text(Path(rows[1][0]).read_text() + "\n" * copy)
        rows.append([str(path), "recipe", "1"])
    rewrite(folder, rows)
    corpus = corpus_of(folder)
    copies = [d for d in corpus.documents if "copy" in d.path or d.path == rows[1][0]]
    assert len(copies) == 6
    assert len({(d.group, d.part) for d in copies}) == 1
    assert len({d.id for d in corpus.documents}) == 35


def test_a_text_under_two_labels_stays_in_training(folder):
    rows = rows_of(folder)
    path = folder / "twin.txt"
    path.write_text(Path(rows[1][0]).read_text())
    rewrite(folder, [*rows, [str(path), "ledger", "1"]])
    corpus = corpus_of(folder)
    assert [d.part for d in corpus.documents if d.path in (str(path), rows[1][0])] == ["train", "train"]
    assert [*corpus.totals["conflicting_groups"].values()] == [["ledger", "recipe"]]


def test_a_class_too_small_stops_or_is_dropped(folder):
    rows = rows_of(folder)
    for name in "ab":
        (folder / f"{name}.md").write_text(f"# {name}")
        rows.append([str(folder / f"{name}.md"), "note", "1"])
    rewrite(folder, rows)
    with pytest.raises(DataError, match=r"Too small: note \(2\)\. Add documents, leave such classes out with"):
        corpus_of(folder)
    corpus = corpus_of(folder, small_classes="drop")
    assert corpus.labels.names == ("ledger", "program", "recipe")
    assert Counter(row.status for row in corpus.account) == {"ok": 30, "small_class": 2}


def test_a_sample_with_too_small_a_class_is_named(folder):
    rows = rows_of(folder)
    for number in range(6):  # copies, of which each split has but one
        (folder / f"{number}.md").write_text("# The same note")
        rows.append([str(folder / f"{number}.md"), "note", "1"])
    rewrite(folder, rows)
    with pytest.raises(
        DataError,
        match=r"Too small: note \(1\)\. .* \(data\.max_documents=15 reads a sample, in which copies of a text count "
        r"once: raise it, or leave it out\.\)$",
    ):
        corpus_of(folder, max_documents=15)


def test_too_many_unusable_files_stop_the_run_with_the_reasons_counted(folder):
    rows = rows_of(folder)
    for row in rows[1:25:3]:
        Path(row[0]).unlink()
    with pytest.raises(
        DataError, match=r"8 of 30 files cannot be used \(8 unreadable\), more than data\.max_unusable=0\.2"
    ):
        corpus_of(folder)
    assert len(corpus_of(folder, max_unusable=0.5).documents) == 22


def test_one_class_left_is_not_a_classifier(folder):
    rows = [row for row in rows_of(folder) if row[1] in ("label", "recipe")]
    for name in "ab":
        (folder / f"{name}.md").write_text(f"# {name}")
        rows.append([str(folder / f"{name}.md"), "note", "1"])
    rewrite(folder, rows)
    with pytest.raises(DataError, match=r"at least two classes .*only 'recipe' is left"):
        corpus_of(folder, small_classes="drop")


def test_no_confident_row_is_said(folder):
    with pytest.raises(DataError, match=r"none of its 30 rows has a confidence of at least 1\.1"):
        corpus_of(folder, min_confidence=1.1)


def test_the_files_of_a_corpus_say_the_same(folder, tmp_path):
    corpus = corpus_of(folder)
    corpus.write(tmp_path / "data", {"findings": []})
    splits = pq.read_table(tmp_path / "data/splits.parquet").to_pylist()
    assert list(splits[0]) == ["id", "path", "label", "group", "part", "fold"]
    assert Counter(row["part"] for row in splits) == {"train": 18, "val": 6, "test": 6}
    account = (tmp_path / "data/account.csv").read_text().splitlines()
    assert account[0] == "path,label,part,status,reason,group"
    assert len(account) == 31


def test_a_sample_keeps_the_proportions_of_the_classes_and_does_not_depend_on_the_order():
    rows = [
        Row(Path(f"/files/{label}{number}"), label, 1.0, 1000 * place + number)
        for place, (label, count) in enumerate({"a": 80, "b": 20, "c": 4}.items())
        for number in range(count)
    ]
    chosen = [rows[place] for place in sample(rows, 52)]
    assert Counter(row.label for row in chosen) == {"a": 40, "b": 10, "c": 3}
    assert {rows[::-1][place] for place in sample(rows[::-1], 52)} == {*chosen}
    assert chosen == sorted(chosen, key=lambda row: row.line)


def test_what_is_not_in_a_sample_is_in_the_account(folder):
    corpus = prepare(
        read_manifest(folder / "manifest.csv"),
        TextStore(folder.parent / "cache", "k"),
        read_all,
        PrepareSettings(0.5, 0.2, duplicate_threshold=1, split=SplitSettings(val=0.2, test=0.2), max_documents=15),
    )
    assert describe_account(corpus) == "9 train, 3 val, 3 test; left out: 15 not_sampled"
    assert {row.reason for row in corpus.left_out()} == {"not in a sample of 15"}
