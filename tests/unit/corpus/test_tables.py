import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from doctune.corpus.tables import Record, TableLayout, read_table
from doctune.errors import ConfigError, DataError

WANTED = ("text", "label")


@pytest.fixture
def read(tmp_path):
    """A function: a file's name and content, and a layout -> its table."""

    def write_and_read(name, content, layout=None, wanted=WANTED):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_table(path, wanted, layout)

    return write_and_read


@pytest.fixture
def message(read, tmp_path):
    """A function: what `read` takes -> the sentence with which it is refused, without the folder."""

    def refused(*arguments, kind=DataError, **options):
        with pytest.raises(kind) as caught:
            read(*arguments, **options)
        return str(caught.value).replace(f"{tmp_path}/", "")

    return refused


def records(table):
    return [(record.line, *record.fields.values()) for record in table.records]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "text,label\none,x\ntwo,y\n"),
        ("a.csv", "\ufefftext;label\r\none;x\r\ntwo;y\r\n"),
        ("a.tsv", "text\tlabel\none\tx\ntwo\ty"),
        ("a.tsv", " text , label \none,x\ntwo,y\n"),
    ],
)
def test_separators_are_those_of_the_suffix_or_of_the_header(read, name, content):
    table = read(name, content)
    assert table.columns == WANTED
    assert records(table) == [(2, "one", "x"), (3, "two", "y")]


def test_columns_can_be_named_where_there_is_no_header(read):
    table = read("a.tsv", "one\tx\t17\ntwo\ty\t18\n", TableLayout(("text", "label", "id")))
    assert table.columns == ("text", "label", "id")
    assert records(table) == [(1, "one", "x", "17"), (2, "two", "y", "18")]


def test_lines_are_counted_through_quoted_fields_and_blank_lines(read):
    table = read("a.csv", 'text,label\n"one\nand ""more""",x\n\ntwo,y\n')
    assert records(table) == [(2, 'one\nand "more"', "x"), (5, "two", "y")]


def test_quotes_can_be_plain_characters(read, message):
    content = 'text\tlabel\n"he said\tx\n\nquote " here\ty\r\n'
    assert records(read("a.tsv", content, TableLayout(quoted=False))) == [
        (2, '"he said', "x"),
        (4, 'quote " here', "y"),
    ]
    assert message("a.tsv", content) == (
        "a.tsv, line 4: '\t' expected after '\"'; is a quote left open or stray? "
        "If quotes are plain characters in this file: data.quoted=false."
    )


def test_a_row_of_another_width_is_a_problem_of_that_row(read):
    (good, bad) = read("a.csv", "text,label\none,x\ntwo,y,z\n").records
    assert good == Record(2, {"text": "one", "label": "x"})
    assert bad == Record(3, {"text": "two", "label": "y"}, "it has 3 fields where 2 columns are named")


def test_json_lines_may_lack_fields_and_may_be_broken(read):
    content = '{"text": "one", "label": ["x"]}\n\n{"text": "two"}\n[1]\n{"text"\n'
    first, second, third, fourth = read("a.jsonl", content).records
    assert (first, second) == (Record(1, {"text": "one", "label": ["x"]}), Record(3, {"text": "two"}))
    assert (third.line, third.problem) == (4, "it is a list where a JSON object belongs")
    assert (fourth.line, fourth.problem) == (5, "it is not JSON: Expecting ':' delimiter: line 1 column 8 (char 7)")


def test_parquet_gives_lists_and_nulls(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["one", "two"], "label": [["x", "y"], None], "more": [1, 2]}), path)
    table = read_table(path, WANTED)
    assert table.columns == ("text", "label", "more")
    assert records(table) == [(1, "one", ["x", "y"]), (2, "two", None)]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        (
            "a.csv",
            "body,label\none,x\n",
            "a.csv has no column 'text'; it has: body, label. "
            "If its first line is no header, name its columns: data.header=[text,label,…].",
        ),
        (
            "a.jsonl",
            json.dumps({"body": "one"}),
            "a.jsonl has no column 'text' and no column 'label'; it has: body. "
            "Name the right ones with data.text_column, data.id_column and data.targets.NAME.column.",
        ),
        ("a.csv", "text,label,text\n", "a.csv has more than one column called 'text'; rename all but one."),
        ("a.csv", "text,label\n", "a.csv has the columns text, label but no rows."),
        ("a.csv", "", "a.csv is empty."),
        ("a.csv", "text,label\n".encode("utf-16"), "a.csv is UTF-16; save it as UTF-8."),
        ("a.csv", b"text,label\ncaf\xe9,x\n", "a.csv is not UTF-8 (line 2, byte 14: 0xe9); save it as UTF-8."),
        ("a.jsonl", "[1]\n[2]\n", "a.jsonl holds no JSON object; line 1: it is a list where a JSON object belongs."),
        (
            "a.txt",
            "text",
            "a.txt is no kind of table that can be read; those are .csv, .tsv, .jsonl, .ndjson, .parquet.",
        ),
    ],
)
def test_a_table_that_cannot_be_read_is_refused(message, name, content, expected):
    assert message(name, content) == expected


def test_a_header_that_lacks_a_column_is_refused(message):
    assert message("a.tsv", "one\tx\n", TableLayout(("text", "kind"))) == (
        "a.tsv has no column 'label'; it has: text, kind. data.header must name them."
    )


def test_a_header_for_a_table_that_names_its_columns_is_refused(message):
    assert message("a.jsonl", "{}", TableLayout(WANTED), kind=ConfigError) == (
        "data.header is for CSV and TSV; a.jsonl names its columns itself. Leave it out."
    )


def test_a_damaged_parquet_file_is_refused(message):
    assert message("a.parquet", b"PAR1 nothing more").startswith("a.parquet cannot be read as Parquet: ")


def test_a_missing_table_and_a_folder_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"There is no table at .*/none\.csv\."):
        read_table(tmp_path / "none.csv", WANTED)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match=r"folder\.csv is a folder; name the tables in it one by one\."):
        read_table(tmp_path / "folder.csv", WANTED)
