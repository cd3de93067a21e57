from __future__ import annotations

import codecs
import csv
import json
import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from doctune.corpus.manifest import Manifest, Rejected, Row, read_manifest
from doctune.corpus.manifest_tables import ManifestColumns
from doctune.corpus.scan import ScanOptions, scan, write_manifest
from doctune.errors import ConfigError, DataError


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def refusal(source: Path, **options) -> str:
    with pytest.raises(DataError) as refused:
        read_manifest(source, **options)
    return str(refused.value)


def reasons(manifest: Manifest) -> list[str]:
    return [rejected.reason for rejected in manifest.rejected]


def database(path: Path, rows: list[tuple]) -> Path:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE documents (file, kind, sure)")
        connection.executemany("INSERT INTO documents VALUES (?, ?, ?)", rows)
    return path


# --- the kinds of source -----------------------------------------------------------------------------------------


def test_csv_rows_have_absolute_paths_and_the_line_they_start_on(tmp_path):
    source = write(tmp_path / "m.csv", "path,label,confidence\na.txt,x,0.5\nb/../c.txt,y,1\n/d.txt,x,1.0\n")
    found = read_manifest(source)
    assert found.rows == (
        Row(tmp_path / "a.txt", "x", 0.5, 2),
        Row(tmp_path / "c.txt", "y", 1.0, 3),
        Row(Path("/d.txt"), "x", 1.0, 4),
    )
    assert (found.rejected, found.source, found.holds_texts) == ((), source, False)


def test_relative_paths_are_resolved_against_the_root(tmp_path):
    source = write(tmp_path / "m.csv", "path,label\na,x\nb,y\n")
    paths = [row.path for row in read_manifest(source, root=tmp_path / "elsewhere").rows]
    assert paths == [tmp_path / "elsewhere/a", tmp_path / "elsewhere/b"]


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(("name", "separator"), [("m.csv", ","), ("m.tsv", "\t"), ("m.csv", ";"), ("m.TSV", ",")])
def test_text_tables_are_read_as_people_save_them(tmp_path, mark, end, name, separator):
    lines = ["label, path ,other", "x,ü.txt,1", "y,b.txt,2", ""]
    source = write(tmp_path / name, mark + end.join(lines).replace(",", separator).encode())
    assert read_manifest(source).rows == (
        Row(tmp_path / "ü.txt", "x", 1.0, 2),
        Row(tmp_path / "b.txt", "y", 1.0, 3),
    )


def test_quoted_line_ends_keep_the_line_numbers_right(tmp_path):
    source = write(tmp_path / "m.csv", 'path,label\n"two\nlines",x\n\n"a ""b"", c",y\n')
    assert read_manifest(source).rows == (
        Row(tmp_path / "two\nlines", "x", 1.0, 2),
        Row(tmp_path / 'a "b", c', "y", 1.0, 5),
    )


def test_fields_of_a_million_characters_are_read(tmp_path):
    source = write(tmp_path / "m.csv", f"path,label,text\na,x,{'t' * 1_000_000}\nb,y,t\n")
    assert [row.line for row in read_manifest(source).rows] == [2, 3]


def test_json_lines(tmp_path):
    lines = ['{"path": "a", "label": "x", "confidence": 0.9}', "", '{"label": 7, "path": "b"}']
    assert read_manifest(write(tmp_path / "m.jsonl", "\n".join(lines))).rows == (
        Row(tmp_path / "a", "x", 0.9, 1),
        Row(tmp_path / "b", "7", 1.0, 3),
    )


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {"path": ["a", "b", None], "label": ["x", "y", "y"], "confidence": [0.5, None, 1.0], "size": [1, 2, 3]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "m.parquet")
    manifest = read_manifest(tmp_path / "m.parquet", min_classes=1)
    assert manifest.rows == (Row(tmp_path / "a", "x", 0.5, 1),)
    assert reasons(manifest) == ["row 2: column 'confidence' is blank", "row 3: column 'path' is blank"]


def test_sqlite_by_query(tmp_path):
    source = database(tmp_path / "m.sqlite3", [("a", 1, 0.5), ("b", 2, 1), ("c", 3, 1)])
    manifest = read_manifest(source, query="SELECT file AS path, kind AS label FROM documents WHERE kind < 3")
    assert manifest.rows == (Row(tmp_path / "a", "1", 1.0, 1), Row(tmp_path / "b", "2", 1.0, 2))


def test_a_folder_per_class(tmp_path):
    for name in ("x/b.txt", "x/deep/a.txt", "y/c.txt", "loose.txt", "y/.DS_Store"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("t")
    found = read_manifest(tmp_path)
    assert found.rows == (
        Row(tmp_path / "x/b.txt", "x", 1.0, 2),
        Row(tmp_path / "x/deep/a.txt", "x", 1.0, 3),
        Row(tmp_path / "y/c.txt", "y", 1.0, 5),
    )
    assert found.rejected == (
        Rejected(str(tmp_path / "loose.txt"), "", 1, "lies directly in the folder, not in one of its class folders"),
        Rejected(str(tmp_path / "y/.DS_Store"), "y", 4, "is a file of the desktop, not a document"),
    )


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_links_in_a_folder_per_class_are_rejected(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x/a").write_text("t")
    (tmp_path / "x/b").symlink_to(tmp_path / "x/a")
    assert reasons(read_manifest(tmp_path, min_classes=1)) == ["link"]


def test_other_column_names(tmp_path):
    source = write(tmp_path / "m.csv", "file,kind,p\na,x,0.5\nb,y,1\n")
    columns = ManifestColumns(path="file", label="kind", confidence="p")
    assert [row.confidence for row in read_manifest(source, columns=columns).rows] == [0.5, 1.0]


def test_what_scan_writes_reads_back(tmp_path):
    for name in ("a.py", "b.css", "carriage\rreturn.py", "ü\n.py") if os.name != "nt" else ("a.py", "b.css"):
        (tmp_path / name).write_text("x")
    result = scan([tmp_path], ScanOptions())
    write_manifest(result, tmp_path / "out/m.csv")
    manifest = read_manifest(tmp_path / "out/m.csv")
    assert [(str(row.path), row.label, row.confidence) for row in manifest.rows] == [
        (file.path, file.label, file.confidence) for file in result.files
    ]
    assert manifest.rejected == ()


# --- rows that cannot be used ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (",x,1", "row 4: column 'path' is blank"),
        ("  ,x,1", "row 4: column 'path' is blank"),
        ("c,,1", "row 4: column 'label' is blank"),
        ("c, ,1", "row 4: column 'label' is blank"),
        ("c,x,", "row 4: column 'confidence' is blank"),
        ("c,x,nan", "row 4: column 'confidence' is 'nan', which is outside 0 to 1"),
        ("c,x,NaN", "row 4: column 'confidence' is 'NaN', which is outside 0 to 1"),
        ("c,x,1.01", "row 4: column 'confidence' is '1.01', which is outside 0 to 1"),
        ("c,x,-0.1", "row 4: column 'confidence' is '-0.1', which is outside 0 to 1"),
        ("c,x,inf", "row 4: column 'confidence' is 'inf', which is outside 0 to 1"),
        ("c,x,high", "row 4: column 'confidence' is 'high', which is no number"),
        ("c,x", "row 4: has 2 fields where the header has 3"),
        ("c,x,1,2", "row 4: has 4 fields where the header has 3"),
        ("c\0d,x,1", "row 4: column 'path' holds a NUL character"),
    ],
)
def test_a_bad_row_is_rejected_with_row_and_column(tmp_path, row, reason):
    source = write(tmp_path / "m.csv", f"path,label,confidence\na,x,1\nb,y,1\n{row}\n")
    manifest = read_manifest(source)
    assert len(manifest.rows) == 2
    assert reasons(manifest) == [reason]
    assert manifest.rejected[0].line == 4


def test_a_label_loses_the_blanks_around_it(tmp_path):
    source = write(tmp_path / "m.csv", "path,label\na, x \nb,y\n")
    assert [row.label for row in read_manifest(source).rows] == ["x", "y"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "row 3: is not JSON: Expecting property name enclosed in double quotes: line 2 column 1 (char 2)"),
        ("[1]", "row 3: is a list where a JSON object belongs"),
        ('"a"', "row 3: is text where a JSON object belongs"),
        ("null", "row 3: is null where a JSON object belongs"),
        ('{"path": "c"}', "row 3: column 'label' is blank"),
        ('{"path": ["c"], "label": "x"}', "row 3: column 'path' is a list where text belongs"),
        ('{"path": "c", "label": true}', "row 3: column 'label' is true or false where text belongs"),
        ('{"path": "c", "label": 0.5}', "row 3: column 'label' is a number where text belongs"),
        (
            '{"path": "c", "label": "x", "confidence": NaN}',
            "row 3: column 'confidence' is nan, which is outside 0 to 1",
        ),
        ('{"path": "c", "label": "x", "confidence": []}', "row 3: column 'confidence' is [], which is no number"),
        (
            '{"path": "c", "label": "x", "confidence": true}',
            "row 3: column 'confidence' is True, which is outside 0 to 1",
        ),
    ],
)
def test_a_bad_json_line_is_rejected_with_its_row(tmp_path, line, reason):
    good = [json.dumps({"path": name, "label": name}) for name in "ab"]
    manifest = read_manifest(write(tmp_path / "m.ndjson", "\n".join([*good, line, ""])))
    assert (len(manifest.rows), reasons(manifest)) == (2, [reason])


def test_binary_in_a_database_is_rejected(tmp_path):
    source = database(tmp_path / "m.db", [("a", "x", 1), ("b", "y", 1), (b"c", "y", 1)])
    manifest = read_manifest(source, query="SELECT file AS path, kind AS label FROM documents")
    assert reasons(manifest) == ["row 3: column 'path' is binary data where text belongs"]


def test_a_repeated_path_is_kept_once(tmp_path):
    source = write(tmp_path / "m.csv", "path,label\na,x\nb,y\n./a,x\n")
    manifest = read_manifest(source)
    assert [row.line for row in manifest.rows] == [2, 3]
    assert manifest.rejected == (Rejected(str(tmp_path / "a"), "x", 4, "row 4: repeats row 2"),)


def test_a_path_with_two_labels_is_not_used_at_all(tmp_path):
    source = write(tmp_path / "m.csv", "path,label\na,x\nb,y\na,z\nc,x\na,x\n")
    manifest = read_manifest(source)
    assert [row.line for row in manifest.rows] == [3, 5]
    assert [(bad.line, bad.label) for bad in manifest.rejected] == [(2, "x"), (4, "z"), (6, "x")]
    assert set(reasons(manifest)) == {"the same path has different labels: 'x' in row 2, 'z' in row 4, 'x' in row 6"}


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
            st.sampled_from(["x", "y", "", " "]),
            st.sampled_from(["1", "0.5", "nan", "2", "", "?"]),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_every_row_ends_in_rows_or_rejected(tmp_path, cells):
    source = tmp_path / "m.csv"
    good = [("first of two", "x", "1"), ("second of two", "y", "1")]
    with source.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("path", "label", "confidence"), *good, *cells])
    manifest = read_manifest(source)
    assert len(manifest.rows) + len(manifest.rejected) == 2 + len(cells)


# --- sources that cannot be used ---------------------------------------------------------------------------------


def test_a_missing_manifest_shows_the_line_that_makes_one(tmp_path):
    source = tmp_path / "my data" / "m.csv"
    assert refusal(source) == (
        f"There is no manifest at {source}. Make one from a folder: doctune scan ROOT --out '{source}'"
    )


def test_a_missing_manifest_of_another_kind_shows_a_csv(tmp_path):
    assert refusal(tmp_path / "m.parquet").endswith(f"doctune scan ROOT --out {tmp_path / 'm.csv'}")


def test_missing_columns_name_those_found_and_the_knobs(tmp_path):
    source = write(tmp_path / "m.csv", "file,kind\na,x\n")
    assert refusal(source) == (
        f"{source} has no column 'path' and 'label'; it has: file, kind. "
        "Name the right one with data.path_column=NAME data.label_column=NAME, or that of the texts themselves with "
        "data.text_column=NAME."
    )


def test_a_confidence_column_that_was_asked_for_must_exist(tmp_path):
    source = write(tmp_path / "m.csv", "path,label\na,x\n")
    assert refusal(source, columns=ManifestColumns(confidence="p")) == (
        f"{source} has no column 'p'; it has: path, label. Name the right one with data.confidence_column=NAME."
    )


def test_two_columns_of_one_name_are_refused(tmp_path):
    source = write(tmp_path / "m.csv", "path,label,label\na,x,y\n")
    assert refusal(source) == f"{source} has 2 columns called 'label'; rename all but one."


@pytest.mark.parametrize("name", ["m.csv", "m.tsv", "m.jsonl", "m.parquet", "m.db"])
def test_an_empty_file_is_refused(tmp_path, name):
    source = write(tmp_path / name, "")
    assert refusal(source) == f"{source} is empty; a manifest names a path and a label in every row."


def test_a_header_without_rows_is_refused(tmp_path):
    source = write(tmp_path / "m.csv", "path,label\n\n")
    assert refusal(source) == f"{source} has the columns path, label but no rows."


def test_an_undecodable_table_names_line_and_byte(tmp_path):
    source = write(tmp_path / "m.csv", b"path,label\na,x\nb\xe9,y\n")
    assert refusal(source) == f"{source} is not UTF-8 (line 3, byte 16: 0xe9); save it as UTF-8."


def test_utf16_is_named(tmp_path):
    source = write(tmp_path / "m.csv", "path,label\na,x\n".encode("utf-16"))
    assert refusal(source) == f"{source} is UTF-16; save it as UTF-8."


def test_a_quote_left_open_is_refused_rather_than_swallowing_the_rest(tmp_path):
    source = write(tmp_path / "m.csv", 'path,label\n"a,x\nb,y\nc,x\n')
    assert refusal(source) == f"{source}, line 4: unexpected end of data; is a quote left open or stray?"


def test_one_class_is_refused(tmp_path):
    source = write(tmp_path / "m.csv", "path,label\na,x\nb,x\n")
    assert refusal(source) == (f"{source} has in column 'label' only one class (x); a classifier needs 2 or more.")


def test_a_folder_with_one_class_is_refused(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x/a").write_text("t")
    assert refusal(tmp_path) == f"{tmp_path} has files in only one class (x); a classifier needs 2 or more."


def test_an_empty_folder_is_refused(tmp_path):
    assert refusal(tmp_path) == f"The folder {tmp_path} is empty; it needs one folder of files per class."


def test_when_no_row_can_be_used_the_first_reason_is_shown(tmp_path):
    source = write(tmp_path / "m.csv", "path,label\na,\n,x\n")
    assert refusal(source) == f"None of the 2 rows of {source} can be used; the first: row 2: column 'label' is blank."


def test_json_lines_without_an_object_are_refused(tmp_path):
    source = write(tmp_path / "m.jsonl", "[1]\n[2]\n")
    assert refusal(source) == f"{source} holds no JSON object; line 1 is a list where a JSON object belongs."


def test_an_unknown_kind_lists_the_known_ones(tmp_path):
    source = write(tmp_path / "m.xlsx", "x")
    assert refusal(source) == (
        f"{source} is no kind of manifest; those are .csv, .tsv, .jsonl, .ndjson, .parquet, .db, .sqlite, .sqlite3, "
        "or a folder with a folder per class."
    )


@pytest.mark.skipif(os.name == "nt", reason="no pipes in the file system")
def test_a_pipe_is_refused_without_opening_it(tmp_path):
    os.mkfifo(tmp_path / "m.csv")
    assert refusal(tmp_path / "m.csv") == f"{tmp_path / 'm.csv'} is neither a file nor a folder."


def test_a_file_that_may_not_be_read_is_refused(tmp_path, monkeypatch):
    source = write(tmp_path / "m.csv", "path,label\n")

    def locked(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", locked)
    assert refusal(source) == f"{source} cannot be read: Permission denied."


def test_a_file_that_is_no_parquet_is_refused(tmp_path):
    pytest.importorskip("pyarrow")
    source = write(tmp_path / "m.parquet", "path,label\n" * 9)
    assert refusal(source).startswith(f"{source} cannot be read as Parquet: Parquet magic bytes not found")


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    source = write(tmp_path / "m.parquet", "x")
    with pytest.raises(ConfigError) as refused:
        read_manifest(source)
    assert str(refused.value) == f"{source} needs pyarrow, which `pip install 'doctune[train]'` brings."


def test_a_database_needs_a_query(tmp_path):
    source = database(tmp_path / "m.db", [])
    assert refusal(source) == (
        f"{source} needs a query, such as data.query='SELECT path, label FROM documents'. Its tables: documents."
    )


def test_a_query_for_anything_else_is_refused(tmp_path):
    source = write(tmp_path / "m.csv", "path,label\na,x\nb,y\n")
    with pytest.raises(ConfigError) as refused:
        read_manifest(source, query="SELECT 1")
    assert str(refused.value) == f"data.query is for SQLite files, and {source} is none; leave it out."


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM documents",
        "INSERT INTO documents VALUES (1, 2, 3)",
        "DROP TABLE documents",
        "ATTACH 'other.db' AS other",
        "PRAGMA journal_mode=WAL",
        "SELECT 1; SELECT 2",
        "-- nothing",
    ],
)
def test_anything_but_one_select_is_refused_and_changes_nothing(tmp_path, monkeypatch, query):
    monkeypatch.chdir(tmp_path)
    source = database(tmp_path / "m.db", [("a", "x", 1)])
    before = source.read_bytes()
    assert refusal(source, query=query) == (
        f"data.query must be one SELECT, such as data.query='SELECT path, label FROM documents'; found: {query!r}."
    )
    assert source.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["m.db"]


def test_a_query_that_fails_shows_why_and_itself(tmp_path):
    source = database(tmp_path / "m.db", [])
    assert refusal(source, query="SELECT path FROM nope") == (
        f"data.query fails on {source}: no such table: nope. The query: 'SELECT path FROM nope'."
    )


def test_a_query_without_the_columns_is_refused(tmp_path):
    source = database(tmp_path / "m.db", [("a", "x", 1)])
    assert refusal(source, query="SELECT file AS path, kind FROM documents").startswith(
        f"{source} has no column 'label'; it has: path, kind."
    )


@pytest.mark.parametrize("query", [None, "SELECT path, label FROM t"])
def test_a_file_that_is_no_database_is_refused(tmp_path, query):
    source = write(tmp_path / "m.db", "path,label\n" * 99)
    assert refusal(source, query=query) == f"{source} cannot be read as an SQLite database: file is not a database."
