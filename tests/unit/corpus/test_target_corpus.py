import csv
import json
from collections import Counter
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from doctune.corpus.division import SplitSettings
from doctune.corpus.labelled_rows import LabelledFile, RejectedRow, RowSettings, read_labelled_rows
from doctune.corpus.tables import TableLayout
from doctune.corpus.target_corpus import PartFiles, describe_targets, prepare_targets
from doctune.corpus.targets import DerivedTarget, LabelledText, TargetColumn, read_label_names
from doctune.errors import ConfigError, DataError

TAGS, KIND = TargetColumn("tags", "multi"), TargetColumn("kind")
SYLLABLES = ("ba", "de", "fi", "go", "ku", "la", "me", "ni", "po", "ru")


def words(number):
    """A text of its own for each number: ten words that no other number's text has."""
    return " ".join(f"{SYLLABLES[place]}{number}" for place in range(10))


def texts(count, name, start=0):
    """Texts of two kinds; every second has the tag a, every third b, and those of neither have none."""
    return tuple(
        LabelledText(
            f"{name}{n}",
            words(n),
            {"tags": tuple(tag for tag, every in (("a", 2), ("b", 3)) if n % every == 0), "kind": ("xy"[n % 2],)},
            f"{name}.csv:{n + 2}",
        )
        for n in range(start, start + count)
    )


@pytest.fixture
def table(tmp_path):
    """A function: a name, texts and rejected rows -> what was read of a table of that name."""

    def make(name, rows, rejected=()):
        return LabelledFile(tmp_path / f"{name}.csv", tuple(rows), tuple(rejected))

    return make


@pytest.fixture
def prepare(tmp_path):
    """A function: tables by part, and options -> a corpus."""

    def run(train, val=(), test=(), targets=(TAGS, KIND), split=None, **options):
        files = PartFiles(*([each] if not isinstance(each, tuple) else each for each in (train, val, test)))
        split = split or SplitSettings(val=0.2, test=0.2)
        return prepare_targets(files, targets, split=split, cache=tmp_path / "cache", **options)

    return run


@pytest.fixture
def message(prepare, tmp_path):
    """A function: what `prepare` takes -> the sentence with which it is refused, without the folder."""

    def refused(*arguments, kind=DataError, **options):
        with pytest.raises(kind) as caught:
            prepare(*arguments, **options)
        return str(caught.value).replace(f"{tmp_path}/", "")

    return refused


def parts_of(corpus):
    return {document.id: document.part for document in corpus.documents}


def reasons(corpus):
    return [(row.path, row.status, row.reason) for row in corpus.left_out()]


def test_one_table_is_divided_with_the_tags_of_all_parts_alike(table, prepare):
    corpus = prepare(table("a", texts(60, "a")))
    assert {part: len(corpus.part(part)) for part in ("train", "val", "test")} == {"train": 36, "val": 12, "test": 12}
    counts = {part: corpus.totals()["targets"]["tags"]["label_counts"][part] for part in ("train", "val", "test")}
    assert counts == {"train": {"a": 18, "b": 12}, "val": {"a": 6, "b": 4}, "test": {"a": 6, "b": 4}}


def test_a_single_label_target_can_stratify(table, prepare):
    corpus = prepare(table("a", texts(60, "a")), stratify="kind")
    assert corpus.totals()["targets"]["kind"]["label_counts"] == {
        "train": {"x": 18, "y": 18},
        "val": {"x": 6, "y": 6},
        "test": {"x": 6, "y": 6},
    }


def test_a_test_table_is_used_as_it_is_and_validation_comes_out_of_training(table, prepare):
    corpus = prepare(table("a", texts(50, "a")), test=table("b", texts(10, "b", 100)))
    parts = parts_of(corpus)
    assert [parts[f"b{n}"] for n in range(100, 110)] == ["test"] * 10
    assert Counter(parts.values()) == {"train": 40, "val": 10, "test": 10}


def test_all_parts_can_be_given_by_several_tables(table, prepare):
    corpus = prepare(
        (table("a", texts(5, "a")), table("b", texts(5, "b", 10))),
        val=table("c", texts(2, "c", 20)),
        test=table("d", texts(2, "d", 30)),
    )
    assert [text.place for text in corpus.part("train")] == [f"a.csv:{n}" for n in range(2, 7)] + [
        f"b.csv:{n}" for n in range(12, 17)
    ]
    assert [len(corpus.part(part)) for part in ("val", "test")] == [2, 2]


def test_training_texts_that_a_judging_table_repeats_are_left_out(table, prepare):
    learning = [*texts(40, "a"), LabelledText("near", words(100) + " more", {"kind": ("x",)}, "a.csv:50")]
    judging = [*texts(10, "b", 100), LabelledText("a7", words(110), {"kind": ("x",)}, "b.csv:99")]
    choosing = [*texts(4, "c", 200), LabelledText("copy", words(101), {"kind": ("y",)}, "c.csv:9")]
    corpus = prepare(table("a", learning), table("c", choosing), table("b", judging))
    assert reasons(corpus) == [
        ("a.csv:9", "in_test_file", "its id stands in b.csv, too"),
        ("a.csv:50", "in_test_file", "it, or a text nearly like it, stands in b.csv, too"),
        ("c.csv:9", "in_test_file", "it, or a text nearly like it, stands in b.csv, too"),
    ]
    assert Counter(parts_of(corpus).values()) == {"train": 39, "val": 4, "test": 11}


def test_copies_stay_on_one_side_and_texts_with_two_labels_only_train(table, prepare):
    rows = list(texts(60, "a"))
    rows += [LabelledText(f"copy{n}", words(n), rows[n].targets, f"a.csv:{n + 70}") for n in range(10)]
    rows += [LabelledText(f"other{n}", words(n), {"kind": ("yx"[n % 2],)}, f"a.csv:{n + 90}") for n in range(10, 14)]
    corpus = prepare(table("a", rows))
    parts = parts_of(corpus)
    assert all(parts[f"copy{n}"] == parts[f"a{n}"] for n in range(10))
    assert {parts[name] for n in range(10, 14) for name in (f"a{n}", f"other{n}")} == {"train"}
    assert [*corpus.conflicts.values()] == [("kind: x", "kind: y")] * 4
    assert corpus.totals()["duplicate_texts"] == 28
    assert len(corpus.groups.exact) == len(corpus.texts)


def test_ids_that_stand_in_two_tables_are_used_once(table, prepare):
    first, second = texts(30, "a"), [LabelledText("a3", words(99), {"kind": ("x",)}, "b.csv:2"), *texts(30, "b", 40)]
    corpus = prepare((table("a", first), table("b", second)))
    assert reasons(corpus) == [("b.csv:2", "duplicate_id", "its id 'a3' is that of a.csv:5")]


def test_without_an_id_column_ids_come_from_the_texts_and_copies_have_their_own(table, prepare):
    first, second = ([replace(text, id="") for text in texts(30, name)] for name in ("a", "b"))
    corpus = prepare((table("a", first), table("b", second)))
    assert len(corpus.texts) == 60
    ids = {text.place: text.id for text in corpus.texts}
    assert ids["b.csv:2"] == f"{ids['a.csv:2']}-2"
    assert len(set(ids.values())) == 60
    back = prepare(table("a", first[::-1]))
    assert {text.id for text in back.texts} == {ids[f"a.csv:{n + 2}"] for n in range(30)}


def test_tables_of_one_name_are_told_apart_by_their_paths(tmp_path, prepare):
    files = [
        LabelledFile(tmp_path / folder / "a.csv", texts(20, folder, 100 * place), ())
        for place, folder in enumerate(("one", "two"))
    ]
    corpus = prepare(tuple(files))
    assert [row.path for row in corpus.account][:2] == [f"{tmp_path}/one/a.csv:2", f"{tmp_path}/one/a.csv:3"]


def test_folds_cover_all_texts_and_keep_tags_alike(table, prepare):
    file = table("a", texts(60, "a"))
    tested = []
    for fold in range(3):
        corpus = prepare(file, split=SplitSettings(val=0.25, num_folds=3, fold=fold))
        tested += [text.id for text in corpus.part("test")]
        counts = corpus.totals()["targets"]["tags"]["label_counts"]
        assert counts["test"] == {"a": 10, "b": {0: 7, 1: 7, 2: 6}[fold]}
        assert {part: len(corpus.part(part)) for part in ("train", "val", "test")} == {
            "train": 30,
            "val": 10,
            "test": 20,
        }
    assert sorted(tested) == sorted(text.id for text in texts(60, "a"))


def test_labels_too_small_for_all_parts_fail_or_are_dropped_or_merged(table, prepare, message):
    rows = list(texts(60, "a"))
    for n, tag in ((0, "c"), (1, "c"), (2, "d"), (3, "d")):
        rows[n] = LabelledText(rows[n].id, rows[n].text, {"tags": (tag,)}, rows[n].place)
    assert message(table("a", rows)) == (
        "Every label must reach all parts, so it needs 3 texts that are not copies of each other. Too small: tags: c "
        "(2), d (2). Add texts, take such labels away with split.small_classes=drop, or put those of a target together "
        "as 'other' with split.small_classes=merge."
    )
    dropped = prepare(table("a", rows), split=SplitSettings(0.2, 0.2, small_classes="drop"))
    assert dropped.targets[0].labels.names == ("a", "b")
    assert reasons(dropped) == [
        (f"a.csv:{line}", "small_class", "all of its labels have fewer than 3 different texts") for line in range(2, 6)
    ]
    merged = prepare(table("a", rows), split=SplitSettings(0.2, 0.2, small_classes="merge"))
    assert merged.targets[0].labels.names == ("a", "b", "other")
    counts = merged.totals()["targets"]["tags"]["label_counts"]
    assert sum(counts[part]["other"] for part in counts) == 4
    assert all(counts[part]["other"] for part in counts)


def test_small_labels_that_are_too_few_even_together_are_refused(table, message):
    rows = list(texts(60, "a"))
    rows[0] = LabelledText("a0", rows[0].text, {"tags": ("c",)}, rows[0].place)
    assert message(table("a", rows), split=SplitSettings(0.2, 0.2, small_classes="merge")) == (
        "Even together the small labels of 'tags' have only 1 different texts of 3. "
        "Take them away with split.small_classes=drop."
    )


def test_only_judging_texts_count_when_labels_are_called_small(table, message):
    rows = list(texts(60, "a"))
    rare = [LabelledText(f"r{n}", words(200 + n), {"tags": ("c",)}, f"a.csv:{200 + n}") for n in range(3)]
    twice = LabelledText("again", words(200), {"tags": ("a",)}, "a.csv:300")
    assert "Too small: tags: c (2)." in message(table("a", [*rows, *rare, twice]))


def test_a_sample_of_training_texts_does_not_depend_on_their_order(table, prepare):
    rows = texts(60, "a")
    there, back = (prepare(table("a", each), max_train=10) for each in (rows, rows[::-1]))
    assert {text.id for text in there.part("train")} == {text.id for text in back.part("train")}
    assert len(there.part("train")) == 10
    assert Counter(row.status for row in there.left_out()) == {"not_sampled": 26}
    assert there.left_out()[0].reason == "not in a sample of 10 of the 36 texts of the training part"


def test_every_row_ends_in_exactly_one_row_of_the_account(table, prepare, tmp_path):
    rejected = [RejectedRow("a.csv:99", "empty", "line 99: column 'text' has no text")]
    corpus = prepare(table("a", texts(60, "a"), rejected), max_train=30)
    corpus.write(tmp_path / "data")
    with (tmp_path / "data" / "account.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["path"] for row in rows] == [*(f"a.csv:{n + 2}" for n in range(60)), "a.csv:99"]
    assert rows[0]["label"] == "tags: a, b; kind: x"
    assert rows[1]["label"] == "tags: -; kind: y"
    assert rows[-1] | {"group": ""} == {
        "path": "a.csv:99",
        "label": "",
        "part": "left_out",
        "status": "empty",
        "reason": "line 99: column 'text' has no text",
        "group": "",
    }
    audit = json.loads((tmp_path / "data" / "audit.json").read_text())
    assert audit["parts"] == {"train": 30, "val": 12, "test": 12, "left_out": 7}
    assert audit["left_out_reasons"] == {"not_sampled": 6, "empty": 1}
    assert json.loads((tmp_path / "data" / "labels.json").read_text()) == {"tags": ["a", "b"], "kind": ["x", "y"]}
    assert pq.read_table(tmp_path / "data" / "splits.parquet").column_names == [
        "id",
        "path",
        "label",
        "group",
        "part",
        "fold",
    ]
    assert describe_targets(corpus) == (
        "30 train, 12 val, 12 test; left out: 6 not_sampled, 1 empty; "
        "targets: tags (2 labels, several per text), kind (2 labels, one per text)"
    )


def test_a_saved_split_gives_the_same_parts(table, prepare, tmp_path):
    file = table("a", texts(60, "a"))
    first = prepare(file)
    first.write(tmp_path)
    saved = SplitSettings(file=tmp_path / "splits.parquet")
    assert parts_of(prepare(file, split=saved)) == parts_of(first)
    more = prepare(table("a", [*texts(60, "a"), *texts(1, "new", 80)]), split=saved)
    assert reasons(more) == [("new.csv:82".replace("new", "a"), "not_in_split", f"{saved.file} does not have it")]


def test_a_saved_split_that_leaks_is_refused(table, prepare, message, tmp_path):
    rows = list(texts(60, "a"))
    prepare(table("a", rows)).write(tmp_path)
    parts = {row["id"]: row["part"] for row in pq.read_table(tmp_path / "splits.parquet").to_pylist()}
    learns, judges = (next(n for n in range(60) if parts[f"a{n}"] == part) for part in ("train", "test"))
    rows[judges] = LabelledText(f"a{judges}", words(learns), rows[judges].targets, rows[judges].place)
    places = sorted([(learns, "train"), (judges, "test")])
    assert message(table("a", rows), split=SplitSettings(file=tmp_path / "splits.parquet")) == (
        "split.file=splits.parquet leaks: 1 groups of copies stand in more than one part, such as "
        f"{' and '.join(f'a.csv:{n + 2} ({part})' for n, part in places)}. "
        "Make a new split (leave split.file out), or remove the copies."
    )


@pytest.mark.parametrize(
    ("options", "kind", "expected"),
    [
        ({"stratify": "mood"}, ConfigError, "data.stratify=mood is no target; targets: tags, kind."),
        (
            {"max_unusable": 0.01},
            DataError,
            "1 of 61 rows of a.csv cannot be used (1 empty), more than data.max_unusable=0.01 allows. The first: line "
            "99: column 'text' has no text. Mend the table, or raise data.max_unusable to go on without them.",
        ),
    ],
)
def test_what_cannot_be_divided_is_refused(table, message, options, kind, expected):
    rejected = [RejectedRow("a.csv:99", "empty", "line 99: column 'text' has no text")]
    found = message(table("a", texts(60, "a"), rejected), kind=kind, **options)
    assert found == expected


def test_a_training_table_that_the_test_table_repeats_is_refused(table, message):
    assert message(table("a", texts(20, "a")), test=table("b", texts(20, "b"))) == (
        "a.csv leaves no text for the train and the val part; left out: 20 in_test_file."
    )


def test_a_fold_beside_a_test_table_is_refused(table, message):
    split = SplitSettings(fold=0)
    assert message(table("a", texts(60, "a")), test=table("b", texts(5, "b", 100)), split=split) == (
        "split.fold=0 would take the test part from the training table, but data.test gives parts already. Leave out "
        "split.fold (split=holdout), or give the training table alone."
    )


def test_a_table_that_is_given_twice_is_refused(table, message):
    file = table("a", texts(20, "a"))
    assert message(file, test=file) == (
        "a.csv is given more than once among data.train, data.val and data.test; give it once."
    )


def test_a_target_without_a_choice_is_refused(table, message):
    rows = [LabelledText(f"a{n}", words(n), {"kind": ("x",)}, f"a.csv:{n + 2}") for n in range(30)]
    assert message(table("a", rows), targets=(KIND,)) == (
        "a.csv: the target 'kind' has only 'x' in the texts that are used; there is nothing to tell apart. "
        "Leave it out of data.targets, or add texts."
    )


def test_labels_that_a_part_lacks_are_named(table, prepare):
    named = TargetColumn("tags", "multi", label_names=("a", "b", "c"))
    corpus = prepare(table("a", texts(50, "a")), test=table("b", texts(1, "b", 102)), targets=(named, KIND))
    assert corpus.absent_labels("test") == {"tags": ["c"], "kind": ["y"]}
    assert corpus.totals()["absent_labels"] == {
        "train": {"tags": ["c"]},
        "val": {"tags": ["c"]},
        "test": {"tags": ["c"], "kind": ["y"]},
    }


def test_goemotions_is_read_without_losing_a_row(real_data, tmp_path):
    folder = real_data / "goemotions"
    if not folder.is_dir():
        pytest.skip("no GoEmotions here: DOCTUNE_DATA must name a folder that has goemotions/")
    names = read_label_names(folder / "labels.txt")
    group = {name: ("neutral" if name == "neutral" else name[0],) for name in names}
    groups = {each[0]: tuple(name for name in names if group[name] == each) for each in group.values()}
    targets = (
        TargetColumn("emotion", "multi", "ids", ",", names, "labels.txt"),
        DerivedTarget("letter", "emotion", groups),
    )
    settings = RowSettings(targets, "text", "id", TableLayout(("text", "ids", "id")))
    file = read_labelled_rows(folder / "dev.tsv", settings)
    assert (len(file.texts), file.rejected) == (5426, ())
    assert file.texts[0].targets.keys() <= {"emotion", "letter"}
    corpus = prepare_targets(
        PartFiles((file,)), targets, split=SplitSettings(), cache=tmp_path, duplicate_threshold=1.0
    )
    counts = corpus.totals()["targets"]["emotion"]["label_counts"]
    for name, count in Counter(label for text in file.texts for label in text.targets["emotion"]).items():
        assert abs(counts["test"][name] - 0.1 * count) <= 1
    assert len(corpus.account) == 5426
