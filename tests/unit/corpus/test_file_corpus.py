"""A corpus that has been prepared before is taken from the cache, unless anything that it depends on has changed."""

import csv
import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from doctune.corpus import prepare as module
from doctune.corpus.division import SplitSettings
from doctune.corpus.manifest import read_manifest
from doctune.corpus.manifest_tables import ManifestColumns
from doctune.corpus.prepare import PrepareSettings, prepare
from doctune.corpus.saved_manifest import saved_manifest
from doctune.corpus.store import TextStore
from doctune.documents import Document
from doctune.errors import DataError

SETTINGS = PrepareSettings(0.5, 0.2, 1.0, SplitSettings(0.2, 0.2, seed=1))


@pytest.fixture
def divisions(monkeypatch):
    """One entry for each corpus that has been divided, rather than taken from the cache."""
    found = []

    def divide(documents, settings):
        found.append(len(documents))
        return module_divide(documents, settings)

    module_divide = module.divide
    monkeypatch.setattr(module, "divide", divide)
    return found


@pytest.fixture
def folder(tmp_path, make_files) -> Path:
    make_files(tmp_path / "files", per_class=10)
    return tmp_path / "files"


def read_files(paths):
    return (Document(str(path), "ok", "", "text", path.read_text()) for path in paths)


def corpus_of(folder: Path, settings=SETTINGS):
    return prepare(
        read_manifest(folder / "manifest.csv"), TextStore(folder.parent / "cache", "k"), read_files, settings
    )


def files_of(folder: Path) -> list[Path]:
    with (folder / "manifest.csv").open(newline="") as stream:
        return [Path(row["path"]) for row in csv.DictReader(stream)]


def test_the_second_time_it_is_the_same_corpus(folder, tmp_path, divisions):
    first, second = corpus_of(folder), corpus_of(folder)
    assert divisions == [30]
    assert [*second.documents] == [*first.documents]
    assert [*second.account] == [*first.account]
    assert (second.key, second.fingerprint, second.labels) == (first.key, first.fingerprint, first.labels)
    assert second.groups() == first.groups()
    for name, corpus in {"first": first, "second": second}.items():
        corpus.write(tmp_path / name, {"findings": []})
    for name in ("labels.json", "account.csv", "audit.json"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    tables = [pq.read_table(tmp_path / name / "splits.parquet") for name in ("first", "second")]
    assert tables[0].equals(tables[1])
    test = second.part("test")
    assert [*second.texts(test)] == [Path(document.path).read_text() for document in test]
    assert second.label_ids(test).tolist() == second.labels.encode([document.label for document in test])


def test_a_file_with_other_content_is_read_again(folder, divisions):
    first = corpus_of(folder)
    path = files_of(folder)[0]
    path.write_text("something new")
    second = corpus_of(folder)
    assert divisions == [30, 30]
    (changed,) = second.documents.where("path", str(path))
    assert [*second.texts([changed])] == ["something new"]
    assert first.key != second.key


def test_a_file_that_has_gone_and_come_back(folder, divisions):
    first = corpus_of(folder)
    path = files_of(folder)[0]
    content = path.read_bytes()
    path.unlink()
    without = corpus_of(folder)
    assert [(row.path, row.status) for row in without.left_out()] == [(str(path), "unreadable")]
    assert corpus_of(folder).key == without.key
    path.write_bytes(content)
    assert corpus_of(folder).key == first.key
    assert divisions == [30, 29]


@pytest.mark.parametrize(
    "settings",
    [
        replace(SETTINGS, min_confidence=0.6),
        replace(SETTINGS, max_unusable=0.3),
        replace(SETTINGS, duplicate_threshold=0.8),
        replace(SETTINGS, max_documents=15),
        replace(SETTINGS, split=replace(SETTINGS.split, seed=2)),
        replace(SETTINGS, split=replace(SETTINGS.split, fold=1)),
    ],
)
def test_other_settings_make_another_corpus(folder, divisions, settings):
    assert corpus_of(folder).key != corpus_of(folder, settings).key
    assert len(divisions) == 2


def test_a_label_that_was_changed_in_the_manifest_counts(folder):
    first = corpus_of(folder)
    manifest = folder / "manifest.csv"
    path = files_of(folder)[0]
    label = next(iter(first.documents.where("path", str(path)))).label
    other = next(name for name in first.labels.names if name != label)
    manifest.write_text(manifest.read_text().replace(f"{path},{label}", f"{path},{other}"))
    assert [document.label for document in corpus_of(folder).documents.where("path", str(path))] == [other]


def test_a_saved_split_that_has_changed_is_read_again(folder, tmp_path):
    corpus_of(folder).write(tmp_path / "run", {})
    file = tmp_path / "run/splits.parquet"
    settings = replace(SETTINGS, split=SplitSettings(file=file))
    first = corpus_of(folder, settings)
    table = pq.read_table(file)
    parts = {"train": "train", "val": "test", "test": "val"}
    column = [parts[part] for part in table.column("part").to_pylist()]
    pq.write_table(table.set_column(table.column_names.index("part"), "part", [column]), file)
    second = corpus_of(folder, settings)
    assert [*second.documents.values("part")] == [parts[part] for part in first.documents.values("part")]


def test_texts_that_the_store_has_lost_are_read_again(folder, tmp_path):
    first = corpus_of(folder)
    for part in (tmp_path / "cache/texts").rglob("part-*.arrow"):
        part.unlink()
    second = corpus_of(folder)
    assert second.key == first.key
    assert [*second.texts(second.documents)] == [Path(path).read_text() for path in second.documents.values("path")]


def test_a_file_that_was_read_in_vain_counts_once_it_can_be_read(folder, tmp_path):
    def in_vain(paths):
        for path, document in zip(paths, read_files(paths), strict=True):
            is_slow = path == slow
            yield Document(str(path), "timeout", "took too long", "text", "") if is_slow else document

    slow = files_of(folder)[0]
    manifest, cache = read_manifest(folder / "manifest.csv"), tmp_path / "cache"
    first = prepare(manifest, TextStore(cache, "k"), in_vain, SETTINGS)
    assert [row.status for row in first.left_out()] == ["timeout"]
    shutil.rmtree(cache / "texts")
    second = corpus_of(folder)
    assert len(second.documents) == 30
    assert second.key != first.key


def test_a_text_that_was_left_out_and_is_lost_is_read_again(folder, tmp_path):
    files_of(folder)[0].write_text(" ")
    empty = Document("", "empty", "nothing in it", "text", "")
    for _ in range(2):
        corpus = prepare(
            read_manifest(folder / "manifest.csv"),
            TextStore(tmp_path / "cache", "k"),
            lambda paths: (read if read.text.strip() else empty for read in read_files(paths)),
            SETTINGS,
        )
        assert len(corpus.documents) == 29
        for part in (tmp_path / "cache/texts").rglob("part-*.arrow"):
            part.unlink()
    assert len(corpus_of(folder).documents) == 30


def test_a_saved_split_must_be_a_file_that_stays_as_it_is(folder, tmp_path, monkeypatch):
    corpus_of(folder).write(tmp_path / "run", {})
    with pytest.raises(DataError, match=r"run is a folder; name the splits\.parquet in it"):
        corpus_of(folder, replace(SETTINGS, split=SplitSettings(file=tmp_path / "run")))

    file, divide = tmp_path / "run/splits.parquet", module.divide

    def divide_and_change(documents, settings):
        found = divide(documents, settings)
        file.write_bytes(file.read_bytes() + b" ")
        return found

    monkeypatch.setattr(module, "divide", divide_and_change)
    with pytest.raises(DataError, match=r"split\.file=.*splits\.parquet changed while it was read\. Start again\."):
        corpus_of(folder, replace(SETTINGS, split=SplitSettings(file=file)))


@pytest.mark.parametrize("name", ["documents.arrow", "account.arrow", "links.arrow", "corpus.json"])
@pytest.mark.parametrize("damage", [lambda file: file.unlink(), lambda file: file.write_bytes(b"")])
def test_what_is_gone_or_damaged_is_made_again(folder, tmp_path, name, divisions, damage):
    corpus_of(folder)
    (file,) = (tmp_path / "cache/corpora").rglob(name)
    damage(file)
    assert len(corpus_of(folder).documents) == 30
    assert divisions == [30, 30]


def test_classes_that_were_merged_are_named_every_time(folder, caplog):
    manifest = folder / "manifest.csv"
    header, *lines = manifest.read_text().splitlines()
    rare = [line.replace("recipe", f"rare{number % 2}") for number, line in enumerate(lines[:4])]
    manifest.write_text("\n".join([header, *rare, *lines[4:]]) + "\n")
    settings = replace(SETTINGS, split=replace(SETTINGS.split, small_classes="merge"))
    for _ in range(2):
        caplog.clear()
        with caplog.at_level("INFO"):
            corpus_of(folder, settings)
        assert "Too small, now part of 'other': rare0, rare1." in caplog.messages


def test_the_memory_of_a_second_start_does_not_grow_with_the_files(tmp_path):
    """Of a document remain its places in the part and in the store, which are numbers."""

    def own_bytes(number: int) -> int:
        folder = tmp_path / str(number)
        folder.mkdir()
        lines = ["path,label"]
        for place in range(number):
            (folder / f"{place}.txt").write_text(f"text {place}")
            lines.append(f"{folder / f'{place}.txt'},{'ab'[place % 2]}")
        (folder / "manifest.csv").write_text("\n".join(lines) + "\n")

        def start():
            manifest = saved_manifest(folder / "cache", folder / "manifest.csv", columns=ManifestColumns())
            corpus = prepare(manifest, TextStore(folder / "cache", "k"), read_files, SETTINGS)
            train = corpus.part("train")
            return manifest, corpus, train, corpus.label_ids(train), corpus.texts(train)

        start()
        tracemalloc.start()
        kept = start()
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(kept[2]) == round(0.6 * number)
        return size

    few, many = own_bytes(200), own_bytes(2200)
    assert (many - few) / 2000 < 50
