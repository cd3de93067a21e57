import numpy as np
import pytest

from doctune.corpus.targets import TargetSpec
from doctune.labels import Labels
from doctune.reports.target_mistakes import MAX_CHARS, cardinality, describe_mistakes, shortened, worst_mistakes
from doctune.reports.target_records import TargetPart

LABELS = Labels(("a", "b", "c"))


def part(truth, said, probabilities):
    names = [f"t{number}" for number in range(len(truth))]
    truth, said = (np.array([[letter == "1" for letter in row] for row in rows]) for rows in (truth, said))
    places = [f"f.csv:{name}" for name in names]
    return TargetPart(tuple(names), tuple(places), tuple(names), truth, said, np.array(probabilities, np.float32))


def test_texts_come_by_the_probability_of_a_label_that_does_not_apply():
    found = part(
        ["100", "100", "010", "001"],
        ["110", "100", "101", "000"],
        [[0.9, 0.5, 0.1], [0.9, 0.1, 0.1], [0.75, 0.25, 0.625], [0.1, 0.2, 0.3]],
    )
    worst = worst_mistakes(TargetSpec("tags", "multi", LABELS), found)
    assert [(each["id"], each["probability"]) for each in worst] == [("t2", 0.75), ("t0", 0.5)]
    assert worst[0] == {
        "id": "t2",
        "path": "f.csv:t2",
        "text": "t2",
        "probability": 0.75,
        "said": [{"label": "a", "probability": 0.75}, {"label": "c", "probability": 0.625}],
        "truth": [{"label": "b", "probability": 0.25}],
    }


def test_the_number_of_labels_is_counted_on_both_sides():
    found = part(["100", "110", "000"], ["111", "100", "000"], np.zeros((3, 3)))
    assert cardinality(found, trained=15, known=10) == {
        "train": 1.5,
        "true": 1.0,
        "said": pytest.approx(4 / 3),
        "texts": {
            "0": {"true": 1, "said": 1},
            "1": {"true": 1, "said": 1},
            "2": {"true": 1, "said": 0},
            "3": {"true": 0, "said": 1},
            "4": {"true": 0, "said": 0},
        },
    }
    assert cardinality(found, trained=0, known=0)["train"] is None


def test_one_label_per_text_has_a_confusion_matrix_and_sets_have_their_cardinality():
    found = part(["100", "010"], ["010", "010"], [[0.25, 0.75, 0], [0, 1, 0]])
    single = describe_mistakes(TargetSpec("kind", "single", LABELS), found, {"a": 1}, 1)
    assert single["confusion"] == [[0, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert single["confused_pairs"] == [{"truth": "a", "predicted": "b", "count": 1, "support": 1}]
    assert "cardinality" not in single
    multi = describe_mistakes(TargetSpec("tags", "multi", LABELS), found, {"a": 1}, 1)
    assert (multi["confused_pairs"], "confusion" in multi) == (single["confused_pairs"], False)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("two\n lines ", "two lines"),
        ("x" * MAX_CHARS, "x" * MAX_CHARS),
        ("word " * 100, "word " * 79 + "word …"),
        ("x" * 500, "x" * MAX_CHARS + " …"),
    ],
)
def test_a_long_text_is_cut_behind_a_word(text, shown):
    assert shortened(text) == shown
