"""A table of texts trains as a table of files does: each text becomes a file, written once."""

import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from doctune.corpus.manifest import read_manifest
from doctune.corpus.manifest_tables import ManifestColumns
from doctune.errors import DataError

STORIES = [("A dragon,\nand a knight.", "tale"), ("Take two eggs.", "recipe"), ("Once \u201cupon\u201d a time", "tale")]


def save(path, rows, text="text"):
    """The rows in the form that the suffix says."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({text: story, "label": label}) + "\n" for story, label in rows))
    elif path.suffix == ".parquet":
        stories, labels = zip(*rows, strict=True)
        pq.write_table(pa.table({text: stories, "label": labels}), path)
    else:
        lines = [f'"{story}";{label}\n' for story, label in rows]
        path.write_text(f"{text};label\n{''.join(lines)}", encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["stories.csv", "stories.jsonl", "stories.parquet"])
def test_the_texts_of_a_table_become_files(tmp_path, name):
    manifest = read_manifest(save(tmp_path / name, STORIES), texts=tmp_path / "rows")
    assert [(row.path.read_bytes().decode(), row.label) for row in manifest.rows] == STORIES
    (folder,) = {row.path.parent for row in manifest.rows}
    assert folder.parent == tmp_path / "rows"
    assert folder.name.startswith("stories-")
    assert [row.path.name for row in manifest.rows] == [f"{row.line}.txt" for row in manifest.rows]


def test_a_second_start_writes_only_what_has_changed(tmp_path):
    source = save(tmp_path / "stories.jsonl", STORIES)
    first = read_manifest(source, texts=tmp_path / "rows").rows
    for row in first:
        os.utime(row.path, (1, 1))
    save(source, [STORIES[0], ("Take three eggs.", "recipe"), STORIES[2]])
    second = read_manifest(source, texts=tmp_path / "rows").rows
    assert [row.path.stat().st_mtime == 1 for row in second] == [True, False, True]
    assert second[1].path.read_text() == "Take three eggs."


def test_two_tables_of_one_name_do_not_share_files(tmp_path):
    sources = [tmp_path / side / "stories.csv" for side in ("left", "right")]
    for source in sources:
        source.parent.mkdir()
        save(source, STORIES)
    left, right = (read_manifest(source, texts=tmp_path / "rows").rows[0].path for source in sources)
    assert left.parent != right.parent


def test_where_there_are_paths_a_column_of_texts_is_not_read(tmp_path):
    source = tmp_path / "m.jsonl"
    rows = [{"path": name, "text": "told", "label": name} for name in "ab"]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [row.path for row in read_manifest(source, texts=tmp_path / "rows").rows] == [tmp_path / "a", tmp_path / "b"]
    assert not (tmp_path / "rows").exists()


def test_the_column_of_texts_can_be_named(tmp_path):
    source = save(tmp_path / "stories.csv", STORIES, text="story")
    manifest = read_manifest(source, columns=ManifestColumns(text="story"), texts=tmp_path / "rows")
    assert [row.label for row in manifest.rows] == ["tale", "recipe", "tale"]


def test_rows_without_a_usable_text_are_rejected_with_the_reason(tmp_path):
    source = save(tmp_path / "stories.jsonl", [*STORIES, ("  ", "tale"), ("half \ud800", "tale")])
    manifest = read_manifest(source, texts=tmp_path / "rows")
    assert [bad.reason for bad in manifest.rejected] == [
        "row 4: column 'text' is blank",
        "row 5: column 'text' holds half of a surrogate pair",
    ]
    assert [os.path.basename(bad.path) for bad in manifest.rejected] == ["4.txt", "5.txt"]


def test_a_table_of_texts_is_refused_where_files_are_needed(tmp_path):
    source = save(tmp_path / "stories.csv", STORIES)
    with pytest.raises(DataError) as caught:
        read_manifest(source)
    assert str(caught.value) == f"{source} holds texts (column 'text'), and here files are needed: a column 'path'."
