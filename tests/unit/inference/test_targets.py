"""Several targets from a model folder: by torch and by ONNX Runtime, in one pass, with the thresholds that it has."""

import json
import shutil

import numpy as np
import pytest
import torch

from doctune.cli.main import main
from doctune.corpus.targets import TargetSpec
from doctune.errors import ArtifactError
from doctune.inference.engine import load
from doctune.inference.examples import TargetExamples
from doctune.inference.export import export
from doctune.labels import Labels
from doctune.nets.multi_task import MultiTaskClassifier

KIND = TargetSpec("kind", "single", Labels(("x", "y")))
TAGS = TargetSpec("tags", "multi", Labels(("a", "b", "c")))
TEXTS = ["one", "two words", "three words here", "and four of them", "five of them are enough", "the sixth"]


@pytest.fixture
def folder(tiny_model, tmp_path):
    """A model folder in which the thresholds let every `a` and no `c` through."""
    return shutil.copytree(tiny_model("multi_task"), tmp_path / "model")


def test_every_target_is_told_as_the_net_tells_it(folder):
    engine = load(folder, backend="torch", batch_size=2)
    found = [*engine.predict_targets(TEXTS)]
    net = MultiTaskClassifier.from_folder(folder)
    tokens = engine._targets._tokenizer.encode(TEXTS[2]).ids
    with torch.no_grad():
        kind, tags = net(torch.tensor([tokens]), torch.ones(1, len(tokens), dtype=torch.long)).logits
    assert [each.target for each in found[2]] == ["kind", "tags"]
    assert found[2][0].probabilities == pytest.approx(torch.softmax(kind[0], 0).tolist(), abs=1e-5)
    assert found[2][1].probabilities == pytest.approx(torch.sigmoid(tags[0]).tolist(), abs=1e-5)
    for kind, tags in found:
        assert kind.labels == (KIND.labels.names[int(np.argmax(kind.probabilities))],)
        assert set(tags.labels) == {"a"} | ({"b"} if tags.probabilities[1] >= 0.5 else set())


def test_an_exported_net_tells_all_targets_in_one_pass_as_torch_does(folder):
    truth = tuple((["x"], None if place % 2 else ["a"]) for place in range(len(TEXTS)))
    examples = TargetExamples("made", (KIND, TAGS), tuple(TEXTS), truth)
    torch_net, onnx_net = export(load(folder, backend="torch").artifact, examples).nets
    assert (onnx_net.agreement, onnx_net.score) == (1, torch_net.score)
    assert onnx_net.max_difference < 1e-4
    assert [path.name for path in (folder / "onnx").glob("*.onnx")] == ["model.onnx"]
    engine = load(folder)
    assert engine.backend == "onnx"
    for ours, theirs in zip(
        engine.predict_targets(TEXTS), load(folder, backend="torch").predict_targets(TEXTS), strict=True
    ):  # fmt: skip
        assert [each.labels for each in ours] == [each.labels for each in theirs]


def test_a_score_is_the_mean_over_targets_of_macro_f1_where_they_are_known():
    truth = ((["x"], ["a"]), (["y"], None), (["y"], []))
    examples = TargetExamples("made", (KIND, TAGS), ("1", "2", "3"), truth)
    answers = [json.dumps(each) for each in ([["x"], ["a"]], [["y"], ["c"]], [["x"], []])]
    kind = (2 / 3 + 2 / 3) / 2
    tags = (1 + 0 + 0) / 3
    assert examples.score(answers) == pytest.approx((kind + tags) / 2)
    assert TargetExamples("made", (KIND, TAGS), ("1",)).score(answers[:1]) is None


def test_a_file_has_a_column_per_target(folder, tmp_path, capsys):
    (tmp_path / "a.txt").write_text("three words here")
    (tmp_path / "empty.txt").write_text("")
    assert (
        main(["predict", str(folder), str(tmp_path / "a.txt"), str(tmp_path / "empty.txt"), "--format", "jsonl"]) == 0
    )
    read, empty = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert [*read][:5] == ["path", "status", "kind", "tags", "reason"]
    assert read["status"] == "ok"
    assert "a" in read["tags"].split("; ")
    assert (empty["kind"], empty["tags"], empty["status"]) == (None, None, "empty")


def test_the_probabilities_of_all_labels_of_all_targets_can_be_had(folder, tmp_path, capsys):
    (tmp_path / "a.txt").write_text("three words here")
    assert main(["predict", str(folder), str(tmp_path / "a.txt"), "--probabilities"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header == "path,status,kind,tags,reason,p_kind_x,p_kind_y,p_tags_a,p_tags_b,p_tags_c"
    chances = [float(value) for value in row.split(",")[-5:]]
    assert chances[0] + chances[1] == pytest.approx(1, abs=1e-5)


def test_labels_of_targets_have_no_ranks(folder, tmp_path, capsys):
    (tmp_path / "a.txt").write_text("three words here")
    assert main(["predict", str(folder), str(tmp_path / "a.txt"), "--top", "2"]) == 2
    assert capsys.readouterr().err.strip() == (
        f"doctune: {folder} tells several targets, each with thresholds of its own: leave out --top and --threshold."
    )


def test_what_is_for_one_head_says_so(folder):
    with pytest.raises(ArtifactError) as caught:
        load(folder).predict(["a text"])
    assert str(caught.value) == (
        f"{folder} tells several targets (kind, tags), where a classifier with one head is needed. What it tells: "
        "`doctune predict`, `Engine.predict_targets`."
    )


def test_a_model_with_one_head_tells_no_targets(tiny_model):
    engine = load(tiny_model("classification"))
    with pytest.raises(ArtifactError) as caught:
        engine.predict_targets(["a text"])
    assert str(caught.value) == (
        f"{engine.artifact.folder} was trained for classification; several targets need a run with data=emotions or "
        "other data of kind multi_task."
    )
