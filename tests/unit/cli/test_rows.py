"""Rows are the same in every format, and a journal keeps them for a run that resumes."""

import contextlib
import csv
import io
import json
import os
import sys

import pyarrow.parquet as pq
import pytest

from doctune.cli.rows import Journal, journal_path, require_parquet, write_all, write_rows, write_stream
from doctune.errors import ConfigError

COLUMNS = {"path": str, "label": str, "score": float}
ROWS = [
    {"path": "a, b.txt", "label": "Grüße", "score": 0.25},
    {"path": "c.txt", "label": None, "score": None},
    {"path": "d.txt"},
]
NO_TEXT = os.fsdecode(b"caf\xe9.txt")


def test_csv_has_a_header_and_empty_cells_for_what_is_not_there(tmp_path):
    assert write_rows(ROWS, tmp_path / "x.csv", "csv", COLUMNS) == 3
    written = (tmp_path / "x.csv").read_bytes()
    assert written == 'path,label,score\n"a, b.txt",Grüße,0.25\nc.txt,,\nd.txt,,\n'.encode()


def test_json_lines_have_every_column(tmp_path):
    assert write_rows(ROWS, tmp_path / "x.jsonl", "jsonl", COLUMNS) == 3
    assert [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()] == [
        {"path": "a, b.txt", "label": "Grüße", "score": 0.25},
        {"path": "c.txt", "label": None, "score": None},
        {"path": "d.txt", "label": None, "score": None},
    ]


def test_parquet_has_the_types_of_the_columns_even_without_values(tmp_path):
    assert write_rows(ROWS[1:], tmp_path / "x.parquet", "parquet", COLUMNS) == 2
    table = pq.read_table(tmp_path / "x.parquet")
    assert [(field.name, str(field.type)) for field in table.schema] == [
        ("path", "string"), ("label", "string"), ("score", "double"),
    ]  # fmt: skip
    assert table.to_pylist()[0] == {"path": "c.txt", "label": None, "score": None}
    assert write_rows([], tmp_path / "none.parquet", "parquet", COLUMNS) == 0
    assert pq.read_table(tmp_path / "none.parquet").schema == table.schema


def test_names_that_are_no_text_are_written_as_far_as_the_format_can(tmp_path):
    rows = [{"path": NO_TEXT, "label": "a", "score": 1.0}]
    for suffix in ("csv", "jsonl", "parquet"):
        write_rows(rows, tmp_path / f"x.{suffix}", suffix, COLUMNS)
    assert b"\ncaf\xe9.txt,a,1.0\n" in (tmp_path / "x.csv").read_bytes()
    assert json.loads((tmp_path / "x.jsonl").read_text())["path"] == NO_TEXT
    assert pq.read_table(tmp_path / "x.parquet")["path"].to_pylist() == ["caf\\udce9.txt"]


def test_standard_output_takes_names_that_are_no_text(monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    rows = [{"path": NO_TEXT, "label": "Grüße", "score": 1.0}]
    assert write_all(rows, None, "csv", COLUMNS) == 1
    out.flush()
    assert out.buffer.getvalue() == b"path,label,score\ncaf\xe9.txt,Gr\xc3\xbc\xc3\x9fe,1.0\n"


def test_a_stream_is_written_as_rows_come():
    stream = io.StringIO()

    def rows():
        yield {"path": "a"}
        assert stream.getvalue().endswith("a,,\n")
        yield {"path": "b"}

    assert write_stream(rows(), stream, "csv", COLUMNS) == 2


def test_a_failed_run_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("earlier")

    def rows():
        yield ROWS[0]
        raise KeyboardInterrupt

    for suffix in ("csv", "parquet"):
        with pytest.raises(KeyboardInterrupt):
            write_rows(rows(), path, suffix, COLUMNS)
    assert [each.name for each in tmp_path.iterdir()] == ["x.csv"]
    assert path.read_text() == "earlier"


def test_parquet_without_pyarrow_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "pyarrow.parquet", raising=False)
    with pytest.raises(ConfigError, match=r"^--format parquet needs pyarrow: pip install pyarrow\.$"):
        require_parquet()


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / name for name in ("a.txt", "b.txt", NO_TEXT)]
    for path in paths:
        path.write_text("text")
    return paths


def interrupted(out, rows, description=None, *, resume=False):
    """A journal whose run ended in the middle."""
    journal = Journal(out, description or {"top": 1}, resume=resume)
    with contextlib.suppress(KeyboardInterrupt), journal:
        for row in rows:
            journal.add(row)
        raise KeyboardInterrupt


def test_a_journal_stays_where_a_run_is_interrupted_and_goes_when_it_ends(files, tmp_path):
    out = tmp_path / "new" / "x.csv"
    interrupted(out, [{"path": str(files[0]), "score": 0.1}])
    assert journal_path(out).name == ".x.csv.journal"
    assert journal_path(out).is_file()
    with Journal(out, {"top": 1}, resume=True) as journal:
        assert [journal.has(file) for file in files] == [True, False, False]
        journal.add({"path": str(files[2]), "score": 0.1 + 0.2})
        assert [*journal.rows([files[2], files[0]])] == [
            {"path": str(files[2]), "score": 0.1 + 0.2},
            {"path": str(files[0]), "score": 0.1},
        ]
    assert not journal_path(out).exists()


def test_a_row_is_in_the_file_as_soon_as_it_is_added(files, tmp_path):
    with Journal(tmp_path / "x.csv", {"top": 1}, resume=False) as journal:
        journal.add({"path": str(files[0]), "score": 0.1})
        assert len(journal_path(tmp_path / "x.csv").read_text().splitlines()) == 2


def test_a_line_that_was_cut_off_is_not_counted_and_not_written_on(files, tmp_path):
    out = tmp_path / "x.csv"
    interrupted(out, [{"path": str(files[0])}, {"path": str(files[1])}])
    path = journal_path(out)
    path.write_bytes(path.read_bytes()[:-5])
    interrupted(out, [{"path": str(files[2])}], resume=True)
    with Journal(out, {"top": 1}, resume=True) as journal:
        assert [journal.has(file) for file in files] == [True, False, True]


def test_a_file_that_has_changed_is_not_in_the_journal(files, tmp_path):
    out = tmp_path / "x.csv"
    interrupted(out, [{"path": str(file)} for file in files])
    files[0].write_text("longer than before")
    stamp = files[1].stat()
    os.utime(files[1], ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))
    with Journal(out, {"top": 1}, resume=True) as journal:
        assert [journal.has(file) for file in files] == [False, False, True]


def test_a_journal_that_is_not_resumed_is_begun_anew(files, tmp_path):
    out = tmp_path / "x.csv"
    interrupted(out, [{"path": str(files[0])}])
    with Journal(out, {"top": 2}, resume=False) as journal:
        assert not journal.has(files[0])


def test_other_options_are_refused_and_the_journal_stays(files, tmp_path):
    out = tmp_path / "x.csv"
    interrupted(out, [{"path": str(files[0])}], {"top": 1})
    with pytest.raises(ConfigError) as refused:
        Journal(out, {"top": 2}, resume=True)
    assert str(refused.value) == (
        f"The interrupted run for {out} was begun with another model or other options: {{'top': 1}}. Use the same "
        "ones, or leave out --resume to begin anew."
    )
    with Journal(out, {"top": 1}, resume=True) as journal:
        assert journal.has(files[0])


def test_nothing_to_resume_is_said(tmp_path):
    with pytest.raises(ConfigError) as refused:
        Journal(tmp_path / "x.csv", {}, resume=True)
    assert str(refused.value) == (
        f"There is no interrupted run to go on with for {tmp_path / 'x.csv'}. Leave out --resume."
    )


def test_the_rows_of_csv_can_be_read_back(tmp_path):
    write_rows([{"path": 'a"\n.txt', "label": "b", "score": 0.1}], tmp_path / "x.csv", "csv", COLUMNS)
    with (tmp_path / "x.csv").open(newline="") as stream:
        assert [*csv.DictReader(stream)] == [{"path": 'a"\n.txt', "label": "b", "score": "0.1"}]
