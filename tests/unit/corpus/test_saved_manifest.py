import os
import sqlite3
from pathlib import Path

import pytest

from doctune.corpus import saved_manifest as module
from doctune.corpus.manifest import read_manifest
from doctune.corpus.manifest_tables import ManifestColumns
from doctune.corpus.records import Records
from doctune.corpus.saved_manifest import saved_manifest
from doctune.errors import ConfigError, DataError

COLUMNS = ManifestColumns()


@pytest.fixture
def readings(monkeypatch):
    """The sources that have been read, rather than taken from the cache."""
    found = []

    def read(source, **options):
        found.append(source.name)
        return read_manifest(source, **options)

    monkeypatch.setattr(module, "read_manifest", read)
    return found


def table(path: Path, *rows: str, header="path,label,confidence") -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_a_source_that_has_not_changed_is_not_read_again(tmp_path, readings):
    source = table(tmp_path / "m.csv", "a.txt,x,0.5", "b.txt,y,1", "c.txt,,1")
    first, second = (saved_manifest(tmp_path / "cache", source, columns=COLUMNS) for _ in range(2))
    plain = read_manifest(source)
    assert readings == ["m.csv"]
    for found in (first, second):
        assert isinstance(found.rows, Records)
        assert (tuple(found.rows), tuple(found.rejected)) == (plain.rows, plain.rejected)
        assert (found.source, found.key) == (source, plain.key)


def test_one_that_has_changed_is_read_again(tmp_path, readings):
    source = table(tmp_path / "m.csv", "a.txt,x,0.5", "b.txt,y,1")
    first = saved_manifest(tmp_path / "cache", source, columns=COLUMNS)
    facts = source.stat()
    table(source, "a.txt,z,0.5", "b.txt,y,1")
    os.utime(source, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    second = saved_manifest(tmp_path / "cache", source, columns=COLUMNS)
    assert readings == ["m.csv", "m.csv"]
    assert ([row.label for row in first.rows], [row.label for row in second.rows]) == (["x", "y"], ["z", "y"])
    assert first.key != second.key


def test_other_columns_and_another_root_give_other_rows(tmp_path, readings):
    source = table(tmp_path / "m.csv", "a,b,x", "c,d,y", header="path,other,label")
    found = [
        saved_manifest(tmp_path / "cache", source, columns=columns, root=root)
        for columns, root in ((COLUMNS, None), (ManifestColumns(path="other"), None), (COLUMNS, tmp_path / "root"))
    ]
    assert len(readings) == 3
    assert [str(manifest.rows[0].path) for manifest in found] == [str(tmp_path / name) for name in ("a", "b", "root/a")]


def test_a_folder_per_class_is_read_again_when_a_file_comes(tmp_path, readings):
    folder = tmp_path / "classes"
    for name in ("x/a", "y/b"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("t")
    for _ in range(2):
        saved_manifest(tmp_path / "cache", folder, columns=COLUMNS)
    (folder / "y/c").write_text("t")
    found = saved_manifest(tmp_path / "cache", folder, columns=COLUMNS)
    assert readings == ["classes", "classes"]
    assert [row.path.name for row in found.rows] == ["a", "b", "c"]


def test_the_rows_of_a_query_are_asked_for_every_time(tmp_path, readings):
    source = tmp_path / "m.sqlite"
    with sqlite3.connect(source) as database:
        database.execute("CREATE TABLE t (path, label)")
        database.executemany("INSERT INTO t VALUES (?, ?)", [("a", "x"), ("b", "y")])
    for _ in range(2):
        found = saved_manifest(tmp_path / "cache", source, columns=COLUMNS, query="SELECT path, label FROM t")
        assert [row.label for row in found.rows] == ["x", "y"]
        assert isinstance(found.rows, Records)
    assert readings == ["m.sqlite", "m.sqlite"]


def test_texts_in_the_manifest_itself_are_those_of_now(tmp_path):
    source = tmp_path / "m.csv"
    for words in (("one", "two"), ("three", "four"), ("one", "two")):
        table(source, f"{words[0]},x", f"{words[1]},y", header="text,label")
        found = saved_manifest(tmp_path / "cache", source, columns=COLUMNS)
        assert tuple(row.path.read_text() for row in found.rows) == words


def test_a_source_that_changes_while_it_is_read_is_not_kept(tmp_path, monkeypatch):
    source = table(tmp_path / "m.csv", "a.txt,x,1", "b.txt,y,1")

    def read(path, **options):
        found = read_manifest(path, **options)
        table(source, "a.txt,x,1", "b.txt,z,1")
        return found

    monkeypatch.setattr(module, "read_manifest", read)
    saved_manifest(tmp_path / "cache", source, columns=COLUMNS)
    monkeypatch.setattr(module, "read_manifest", read_manifest)
    table(source, "a.txt,x,1", "b.txt,y,1")
    found = saved_manifest(tmp_path / "cache", source, columns=COLUMNS)
    assert [row.label for row in found.rows] == ["x", "y"]


@pytest.mark.parametrize("name", ["rows.arrow", "rejected.arrow", "key.json"])
@pytest.mark.parametrize("damage", [lambda file: file.unlink(), lambda file: file.write_bytes(b"")])
def test_what_is_gone_or_damaged_is_made_again(tmp_path, name, damage):
    source = table(tmp_path / "m.csv", "a.txt,x,1", "b.txt,y,1")
    saved_manifest(tmp_path / "cache", source, columns=COLUMNS)
    (file,) = (tmp_path / "cache").glob(f"manifests/*/{name}")
    damage(file)
    assert [row.label for row in saved_manifest(tmp_path / "cache", source, columns=COLUMNS).rows] == ["x", "y"]


@pytest.mark.parametrize("turn", ["first", "second"])
def test_mistakes_are_those_of_reading(tmp_path, turn):
    source = table(tmp_path / "m.csv", "a.txt,x,1", "b.txt,y,1")
    if turn == "second":
        saved_manifest(tmp_path / "cache", source, columns=COLUMNS)
    with pytest.raises(ConfigError, match=r"data\.query is for SQLite files"):
        saved_manifest(tmp_path / "cache", source, columns=COLUMNS, query="SELECT 1")
    with pytest.raises(DataError, match="has no column 'kind'; it has"):
        saved_manifest(tmp_path / "cache", source, columns=ManifestColumns(label="kind"))
    with pytest.raises(DataError, match="There is no manifest at"):
        saved_manifest(tmp_path / "cache", tmp_path / "gone.csv", columns=COLUMNS)
