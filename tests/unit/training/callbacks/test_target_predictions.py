import pyarrow.parquet as pq
import pytest
import torch

from doctune.corpus.division import LabelledDocument
from doctune.corpus.targets import LabelledText, TargetSpec
from doctune.labels import Labels
from doctune.training.callbacks.target_predictions import TargetPredictionWriter

KIND = TargetSpec("kind", "single", Labels(("x", "y")))
TAGS = TargetSpec("tags", "multi", Labels(("a", "b")))


def texts(*known):
    return [LabelledText(f"t{number}", "", each) for number, each in enumerate(known)]


def documents(found):
    return [LabelledDocument(text.id, f"f.csv:{n}", "", "", "", "", "") for n, text in enumerate(found)]


@pytest.fixture
def written(tmp_path):
    """A function: texts and logits by part -> the rows of both files, and the thresholds."""

    def write(parts):
        found = {part: rows for part, (rows, _) in parts.items()}
        remembered = []
        writer = TargetPredictionWriter(
            tmp_path,
            (KIND, TAGS),
            found,
            {part: documents(rows) for part, rows in found.items()},
            remembered.append,
        )
        for part, (_, logits) in parts.items():
            order = torch.arange(len(logits[0])).flip(0)  # batches come in any order
            writer.collect({"logits": tuple(each[order] for each in logits)}, {"index": order})
            writer.write(part)
        return {part: pq.read_table(tmp_path / f"{part}.parquet").to_pylist() for part in parts}, remembered

    return write


def test_thresholds_are_chosen_on_validation_texts_and_the_test_texts_are_judged_with_them(written):
    both, none = {"kind": ("x",), "tags": ("a", "b")}, {"kind": ("y",), "tags": ()}
    # All labels are true from logit -1 on, which 0.5 would miss: sigmoid(-1) is 0.27.
    val = torch.tensor([[-1.0, -1.0]] * 12 + [[-3.0, -3.0]] * 12)
    kinds = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    rows, (thresholds,) = written(
        {
            "val": (texts(*[both] * 12, *[none] * 12), (torch.zeros(24, 2), val)),
            "test": (texts(both, none), (kinds, torch.tensor([[-1.0, -4.0], [-5.0, -1.0]]))),
        }
    )
    middle = (torch.sigmoid(torch.tensor(-1.0)) + torch.sigmoid(torch.tensor(-3.0))).item() / 2
    assert thresholds == {"tags": pytest.approx([middle, middle])}
    assert [row["tags/prediction"] for row in rows["test"]] == [["a"], ["b"]]
    assert [row["kind/prediction"] for row in rows["test"]] == [["x"], ["y"]]
    assert [(row["id"], row["path"]) for row in rows["test"]] == [("t0", "f.csv:0"), ("t1", "f.csv:1")]
    assert rows["test"][0]["kind/probabilities"] == pytest.approx(torch.softmax(kinds[0], 0).tolist())


def test_a_missing_target_is_null_and_no_label_an_empty_list(written):
    rows, _ = written({"val": (texts({"kind": ("x",)}, {"tags": ()}), (torch.zeros(2, 2), torch.zeros(2, 2)))})
    assert [row["tags/truth"] for row in rows["val"]] == [None, []]
    assert [row["kind/truth"] for row in rows["val"]] == [["x"], None]


def test_a_target_that_no_validation_text_knows_has_no_thresholds(written):
    rows, (thresholds,) = written(
        {
            "val": (texts({"kind": ("x",)}), (torch.zeros(1, 2), torch.zeros(1, 2))),
            "test": (texts({"tags": ("a",)}), (torch.zeros(1, 2), torch.tensor([[0.1, -0.1]]))),
        }
    )
    assert thresholds == {}
    assert rows["test"][0]["tags/prediction"] == ["a"]
