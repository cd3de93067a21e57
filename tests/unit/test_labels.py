import pytest

from doctune.errors import ArtifactError, DataError
from doctune.labels import Labels


def test_ids_do_not_depend_on_the_order_of_the_rows():
    assert Labels.from_values(["b", "a", "b"]) == Labels.from_values(["a", "b"]) == Labels(("a", "b"))


def test_names_and_ids_are_inverse():
    labels = Labels(("x", "y", "z"))
    assert labels.encode(["z", "x"]) == [2, 0]
    assert labels.id2label == {0: "x", 1: "y", 2: "z"}
    assert len(labels) == 3


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(DataError, match=r"The label 'q' is not one of the 2 known: x, y\."):
        Labels(("x", "y")).id_of("q")


@pytest.mark.parametrize("content", ["{}", "[1]", "not json"])
def test_a_damaged_labels_file_is_named(tmp_path, content):
    path = tmp_path / "labels.json"
    path.write_text(content)
    with pytest.raises(ArtifactError, match=r"labels\.json"):
        Labels.load(path)


def test_labels_come_back_from_their_file(tmp_path):
    (tmp_path / "labels.json").write_text('["b", "a"]')
    assert Labels.load(tmp_path / "labels.json").names == ("b", "a")
