import pytest

from doctune.corpus.targets import (
    DerivedTarget,
    LabelledText,
    TargetColumn,
    TargetSpec,
    check_targets,
    describe,
    is_known,
    label_counts,
    read_label_names,
    target_specs,
    truth,
)
from doctune.errors import ConfigError, DataError
from doctune.labels import Labels

MOODS = {"good": ("joy", "love"), "bad": ("anger", "fear"), "neutral": ("none",)}


def text(name, **targets):
    return LabelledText(name, f"text {name}", targets)


def derived(kind="single", mixed=None, groups=MOODS):
    return DerivedTarget("mood", "emotion", groups, kind, mixed)


@pytest.mark.parametrize(
    ("labels", "union", "one", "with_mixed"),
    [
        (("joy",), ("good",), ("good",), ("good",)),
        (("joy", "love"), ("good",), ("good",), ("good",)),
        (("anger", "joy", "love"), ("bad", "good"), None, ("both",)),
        ((), (), None, None),
    ],
)
def test_a_derived_target_is_the_union_of_groups_or_the_one_they_share(labels, union, one, with_mixed):
    assert derived("multi").derive(labels) == union
    assert derived("single").derive(labels) == one
    assert derived("single", "both").derive(labels) == with_mixed


def test_the_mixed_group_may_be_new_or_one_of_the_groups():
    assert derived().group_names() == ("good", "bad", "neutral")
    assert derived(mixed="both").group_names() == ("good", "bad", "neutral", "both")
    assert derived(mixed="neutral").group_names() == ("good", "bad", "neutral")


def test_a_label_without_a_group_is_refused():
    with pytest.raises(DataError) as caught:
        derived().derive(("joy", "pride"))
    assert str(caught.value) == (
        "The label 'pride' of 'emotion' belongs to no group of 'mood'. "
        "Put it into one, old or new: data.targets.mood.groups."
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: TargetColumn("a", "several"),
            "data.targets.a.kind='several' is not a choice: single (one label per text) or multi (any number of them).",
        ),
        (
            lambda: TargetColumn("a", "multi", separator=""),
            "data.targets.a.separator is empty; name what stands between labels, such as ,",
        ),
        (
            lambda: TargetColumn("a", label_names=("x", "y", "x"), names_file="labels.txt"),
            "labels.txt of data.targets.a names x more than once; each label id needs a name of its own.",
        ),
        (
            lambda: derived("both"),
            "data.targets.mood.kind='both' is not a choice: single (one label per text) or multi (any number of them).",
        ),
        (lambda: derived(groups={}), "data.targets.mood.groups is empty; name the labels of each group."),
        (
            lambda: derived(groups={"good": ("joy",), "bad": ("fear", "joy")}),
            "data.targets.mood.groups has 'joy' in both 'good' and 'bad'; a label belongs to one group.",
        ),
        (
            lambda: derived("multi", "both"),
            "data.targets.mood.mixed=both is for single-label targets; a multi-label one has all groups of a text. "
            "Leave it out.",
        ),
        (
            lambda: check_targets([]),
            "data.targets is empty; name at least one column to learn, such as +data.targets.emotion.kind=multi.",
        ),
        (
            lambda: check_targets([TargetColumn("a"), TargetColumn("b"), TargetColumn("a", "multi")]),
            "data.targets names a more than once; give each target its own name.",
        ),
        (
            lambda: check_targets([TargetColumn("feeling"), derived()]),
            "data.targets.mood.source=emotion is no target that stands in a column; those are: feeling.",
        ),
        (
            lambda: check_targets([TargetColumn("emotion", label_names=("joy", "love", "anger", "none")), derived()]),
            "data.targets.mood.groups has labels that 'emotion' has not: fear. Known: joy, love, anger, none.",
        ),
        (
            lambda: check_targets(
                [TargetColumn("emotion", label_names=("joy", "love", "anger", "fear", "none", "awe")), derived()]
            ),
            "data.targets.mood.groups lacks labels of 'emotion': awe. Put each into a group, old or new.",
        ),
    ],
)
def test_targets_that_contradict_themselves_are_refused(make, message):
    with pytest.raises(ConfigError) as caught:
        make()
    assert str(caught.value) == message


def test_specs_keep_the_order_of_names_and_groups_and_sort_what_only_occurs():
    targets = (
        TargetColumn("emotion", "multi", label_names=("joy", "anger", "none")),
        derived(groups={"good": ("joy",), "bad": ("anger",), "neutral": ("none",)}, mixed="both"),
        TargetColumn("author"),
    )
    texts = [text("1", emotion=("anger", "other"), mood=("bad",), author=("zoe",)), text("2", author=("ada",))]
    assert target_specs(targets, texts) == (
        TargetSpec("emotion", "multi", Labels(("joy", "anger", "none", "other"))),
        TargetSpec("mood", "single", Labels(("good", "bad", "neutral", "both"))),
        TargetSpec("author", "single", Labels(("ada", "zoe"))),
    )


def test_truth_tells_missing_from_no_label():
    texts = [text("1", tags=("a", "c"), kind=("y",)), text("2", tags=()), text("3", kind=("x",))]
    tags, kind = TargetSpec("tags", "multi", Labels(("a", "b", "c"))), TargetSpec("kind", "single", Labels(("x", "y")))
    assert truth(tags, texts).tolist() == [[1, 0, 1], [0, 0, 0], [-1, -1, -1]]
    assert truth(kind, texts).tolist() == [1, -1, 0]
    assert is_known(truth(tags, texts)).tolist() == [True, True, False]
    assert is_known(truth(kind, texts)).tolist() == [True, False, True]
    assert (label_counts(tags, texts), label_counts(kind, texts)) == ((1, 0, 1), (1, 1))


def test_truth_of_no_texts_has_the_shape_of_its_kind():
    assert truth(TargetSpec("tags", "multi", Labels(("a", "b"))), []).shape == (0, 2)
    assert truth(TargetSpec("kind", "single", Labels(("a", "b"))), []).shape == (0,)


def test_another_kind_of_target_is_refused():
    with pytest.raises(ValueError, match=r"kind='both' is not a choice: single, multi\."):
        TargetSpec("a", "both", Labels(("x",)))


def test_a_text_is_described_by_its_known_targets():
    assert describe(text("1", tags=("a", "c"), kind=("y",))) == "tags: a, c; kind: y"
    assert describe(text("1", tags=())) == "tags: -"


def test_label_names_are_the_lines_of_their_file(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_bytes("admiration\r\nfear of falling\nüber\n\n".encode("utf-8-sig"))
    assert read_label_names(path) == ("admiration", "fear of falling", "über")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "There is no file of label names at {path}. It names label id n in its line n, from 0."),
        (b"", "{path} is empty; it must name label id n in its line n, from 0."),
        (b"joy\n\nfear\n", "{path}, line 2 is blank, but names label id 1."),
    ],
)
def test_a_file_that_names_no_labels_is_refused(tmp_path, content, message):
    path = tmp_path / "labels.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_label_names(path)
    assert str(caught.value) == message.format(path=path)


def test_label_names_that_are_not_utf8_are_refused(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_bytes(b"caf\xe9\n")
    with pytest.raises(DataError, match=r"labels\.txt cannot be read as a file of label names: 'utf-8' codec"):
        read_label_names(path)
