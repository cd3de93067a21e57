import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from doctune.corpus.labelled_rows import RowSettings, read_labelled_rows
from doctune.corpus.tables import TableLayout
from doctune.corpus.targets import DerivedTarget, TargetColumn
from doctune.errors import ConfigError, DataError

EMOTION = TargetColumn("emotion", "multi")
NAMES = ("joy", "anger", "fear")
BY_ID = TargetColumn("emotion", "multi", "ids", ",", NAMES, "labels.txt")
MOOD = DerivedTarget("mood", "emotion", {"good": ("joy",), "bad": ("anger", "fear")})


@pytest.fixture
def read(tmp_path):
    """A function: content and targets -> what is read of the CSV file."""

    def write_and_read(content, *targets, name="a.csv", **settings):
        path = tmp_path / name
        path.write_text(content, encoding="utf-8")
        return read_labelled_rows(path, RowSettings(targets, **settings))

    return write_and_read


def labels(found):
    return [dict(text.targets) for text in found.texts]


def reasons(found):
    return [(row.place, row.status, row.reason) for row in found.rejected]


def test_goemotions_own_layout_is_read_with_derived_targets(read):
    found = read(
        "What a day\t0\tc1\nNo, no, no\t1,2\tc2\nWell\t0,1\tc3\n",
        BY_ID,
        MOOD,
        name="train.tsv",
        id_column="id",
        layout=TableLayout(("text", "ids", "id")),
    )
    assert [(text.id, text.text, text.place) for text in found.texts] == [
        ("c1", "What a day", "train.tsv:1"),
        ("c2", "No, no, no", "train.tsv:2"),
        ("c3", "Well", "train.tsv:3"),
    ]
    assert labels(found) == [
        {"emotion": ("joy",), "mood": ("good",)},
        {"emotion": ("anger", "fear"), "mood": ("bad",)},
        {"emotion": ("anger", "joy")},
    ]
    assert found.rejected == ()


def test_csv_json_lines_and_parquet_give_the_same(tmp_path):
    settings = RowSettings((TargetColumn("kind"), TargetColumn("tags", "multi", separator="|")))
    rows = [{"text": "one", "kind": "x", "tags": ["b", "a"]}, {"text": "two", "kind": None, "tags": []}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("text,kind,tags\none,x,b|a|b\ntwo,,[]\n")
    for name in ("a.jsonl", "a.parquet", "a.csv"):
        found = read_labelled_rows(tmp_path / name, settings)
        assert labels(found) == [{"kind": ("x",), "tags": ("a", "b")}, {"tags": ()}]


def test_missing_is_blank_or_absent_and_an_empty_list_is_not(read):
    found = read('text,kind,emotion\none,x,\ntwo,,joy\nthree, ," , "\nfour,x,[]\n', TargetColumn("kind"), EMOTION)
    assert labels(found) == [{"kind": ("x",)}, {"emotion": ("joy",)}, {"kind": ("x",), "emotion": ()}]
    assert reasons(found) == [("a.csv:4", "no_target", "line 4: it has no label for any target (kind, emotion)")]


def test_lists_may_stand_as_text_and_labels_may_begin_with_a_bracket(read):
    found = read('text,emotion\none,"[""joy"", ""fear""]"\ntwo,"[x], y"\n', EMOTION)
    assert labels(found) == [{"emotion": ("fear", "joy")}, {"emotion": ("[x]", "y")}]


def test_numbers_and_truth_values_are_labels(read):
    content = '{"text": "one", "kind": 3}\n{"text": "two", "kind": 3.0}\n{"text": "three", "kind": true}\n'
    assert labels(read(content, TargetColumn("kind"), name="a.jsonl")) == [
        {"kind": ("3",)},
        {"kind": ("3",)},
        {"kind": ("true",)},
    ]


def test_half_a_character_is_rejected(read):
    content = '{"text": "so \\ud83d", "kind": "x"}\n{"text": "so \\ud83d\\ude0d", "kind": "x"}\n'
    found = read(content, TargetColumn("kind"), name="a.jsonl")
    assert [text.text for text in found.texts] == ["so 😍"]
    assert reasons(found) == [
        ("a.jsonl:1", "malformed", "line 1: column 'text' holds half of a surrogate pair, which is no character")
    ]


def test_every_bad_row_is_rejected_for_a_named_reason_with_its_line(read):
    content = "text,ids,id\ngood,0,a\ngood,0,a,b\n,0,b\n  ,0,c\ngood,3,d\ngood,joy,e\ngood,1,\ngood,1,a\ngood,,f\n"
    found = read(content, BY_ID, id_column="id")
    assert [text.id for text in found.texts] == ["a"]
    assert reasons(found) == [
        ("a.csv:3", "malformed", "line 3: it has 4 fields where 3 columns are named"),
        ("a.csv:4", "empty", "line 4: column 'text' has no text"),
        ("a.csv:5", "empty", "line 5: column 'text' has no text"),
        ("a.csv:6", "unknown_label", "line 6: the label id '3' of 'emotion': labels.txt names 0 to 2"),
        ("a.csv:7", "unknown_label", "line 7: the label id 'joy' of 'emotion': labels.txt names 0 to 2"),
        ("a.csv:8", "no_id", "line 8: column 'id' has no id"),
        ("a.csv:9", "duplicate_id", "line 9: its id 'a' is that of line 2"),
        ("a.csv:10", "no_target", "line 10: it has no label for any target (emotion)"),
    ]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": ["one"]}, "column 'text' is a list where text belongs"),
        ({"id": 1.5}, "column 'id' is a number where an id belongs"),
        ({"kind": 1.5}, "column 'kind' holds a number where a label belongs"),
        ({"kind": {}}, "column 'kind' holds an object where a label belongs"),
        (
            {"kind": ["x"]},
            "column 'kind' is a list, but 'kind' has one label per text (data.targets.kind.kind=multi reads lists)",
        ),
    ],
)
def test_values_of_the_wrong_kind_are_rejected(read, row, reason):
    rows = [{"text": "one", "id": "1", "kind": "x"}, {"text": "two", "id": "2", "kind": "x"} | row]
    found = read("\n".join(map(json.dumps, rows)), TargetColumn("kind"), name="a.jsonl", id_column="id")
    assert reasons(found) == [("a.jsonl:2", "wrong_type", f"line 2: {reason}")]


def test_a_superscript_is_no_label_id(read):
    found = read("text,ids\none,0\ntwo,²\n", BY_ID)
    assert reasons(found) == [
        ("a.csv:3", "unknown_label", "line 3: the label id '²' of 'emotion': labels.txt names 0 to 2")
    ]


def test_a_table_without_a_usable_row_is_refused(read):
    with pytest.raises(
        DataError, match=r"None of the 2 rows of .*a\.csv can be used; the first: line 2: column 'text'"
    ):
        read("text,kind\n,x\n,y\n", TargetColumn("kind"))


def test_settings_check_their_targets():
    with pytest.raises(ConfigError, match=r"data\.targets\.mood\.source=emotion is no target that stands in a column"):
        RowSettings((MOOD,))
