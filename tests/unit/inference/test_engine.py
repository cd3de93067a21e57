"""Labels and answers in order, a bounded number of texts ahead, alike by every backend, and without torch."""

import json
import re
import shutil
import subprocess
import sys
from itertools import count, islice

import numpy as np
import pytest

import doctune
from doctune.documents import Document
from doctune.errors import ArtifactError, DataError
from doctune.inference import engine as module
from doctune.inference.engine import load

MAX_DIFFERENCE = 1e-3
CLASSIFIERS = [
    ("classification", "distilbert"),
    ("classification", "roberta"),
    ("hierarchical_classification", "distilbert"),
]
# What `doctune` alone does not install.
OF_TRAINING = ("torch", "transformers", "lightning", "hydra", "pyarrow", "sklearn")


@pytest.fixture(params=CLASSIFIERS, ids="-".join)
def exported(request, exported_model):
    return exported_model(*request.param)


def softmax(logits):
    exponentials = np.exp(logits.astype(np.float64))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 16])
def test_both_backends_give_the_same_logits_in_batches_of_any_size(exported, model_texts, batch_size):
    onnx, torch = (load(exported, backend=backend, batch_size=batch_size) for backend in ("onnx", "torch"))
    found, expected = onnx.logits(model_texts), torch.logits(model_texts)
    assert (found.shape, found.dtype) == ((len(model_texts), 3), np.float32)
    assert np.abs(found - expected).max() < MAX_DIFFERENCE
    assert [each.label for each in onnx.predict(model_texts)] == [each.label for each in torch.predict(model_texts)]


def test_a_text_alone_has_the_logits_that_it_has_among_others(exported, model_texts):
    engine = load(exported, backend="onnx")
    together = engine.logits(model_texts)
    alone = np.concatenate([engine.logits([text]) for text in model_texts])
    assert np.abs(alone - together).max() < MAX_DIFFERENCE
    assert len({tuple(row) for row in alone.round(3).tolist()}) == len(model_texts)


def test_both_backends_give_the_same_answers(exported_model, model_texts):
    folder = exported_model("question_answering", "bert")
    onnx, torch = (load(folder, backend=backend, batch_size=3) for backend in ("onnx", "torch"))
    for text in model_texts:
        found, expected = (engine.ask("Take two?", text, n_best=3) for engine in (onnx, torch))
        assert [(each.text, each.start) for each in found] == [(each.text, each.start) for each in expected]
        assert [each.score for each in found] == pytest.approx([each.score for each in expected], abs=1e-4)
    assert len(onnx.ask("Take two?", model_texts[-1], n_best=3)) == 3


def test_what_is_exported_is_taken_first(exported_model, tiny_model):
    assert load(exported_model()).backend == "int8"
    assert load(tiny_model()).backend == "torch"
    assert doctune.load(str(exported_model()), backend="onnx").backend == "onnx"


def test_predictions_are_in_the_order_of_the_texts(tiny_model, model_texts):
    engine = load(tiny_model(), batch_size=2)
    backwards = [each.probabilities for each in engine.predict(model_texts[::-1])]
    expected = [each.probabilities for each in engine.predict(model_texts)]
    assert np.abs(np.array(backwards[::-1]) - np.array(expected)).max() < 1e-6


def test_a_prediction_is_the_softmax_of_its_logits(tiny_model, model_texts):
    engine = load(tiny_model())
    expected = softmax(engine.logits(model_texts))
    for prediction, row in zip(engine.predict(model_texts), expected, strict=True):
        assert prediction.probabilities == pytest.approx(tuple(row), abs=1e-6)
        assert prediction.label == engine.labels.names[row.argmax()]
        assert prediction.score == max(prediction.probabilities)


def test_the_temperature_divides_the_logits_and_changes_no_label(tiny_model, model_texts, tmp_path):
    folder = shutil.copytree(tiny_model(), tmp_path / "model")
    settings = json.loads((folder / "doctune.json").read_text())
    (folder / "doctune.json").write_text(json.dumps(settings | {"temperature": 4.0}))
    plain, calibrated = load(tiny_model()), load(folder)
    assert np.array_equal(calibrated.logits(model_texts), plain.logits(model_texts))
    expected = softmax(plain.logits(model_texts) / 4)
    found = [*calibrated.predict(model_texts)]
    assert np.abs(np.array([each.probabilities for each in found]) - expected).max() < 1e-6
    assert [each.label for each in found] == [each.label for each in plain.predict(model_texts)]


@pytest.mark.parametrize("task", ["classification", "hierarchical_classification"])
def test_no_texts_have_no_predictions(tiny_model, task):
    engine = load(tiny_model(task))
    assert [*engine.predict([])] == []
    assert engine.logits([]).shape == (0, 3)


@pytest.mark.parametrize("task", ["classification", "hierarchical_classification"])
def test_a_text_without_words_has_a_prediction(tiny_model, task):
    (prediction,) = load(tiny_model(task)).predict([" \n"])
    assert sum(prediction.probabilities) == pytest.approx(1)


def test_of_endless_texts_a_bounded_number_is_read_ahead(tiny_model, monkeypatch):
    monkeypatch.setattr(module, "_TEXTS_AT_ONCE", 4)
    taken = []
    endless = (taken.append(number) or f"{number} eggs" for number in count())
    assert len([*islice(load(tiny_model()).predict(endless), 5)]) == 5
    assert len(taken) == 8


def test_of_long_texts_fewer_are_read_ahead(tiny_model, monkeypatch):
    monkeypatch.setattr(module, "_CHARS_AT_ONCE", 20)
    taken = []
    endless = (taken.append(number) or Document("", "ok", "", "text", "two eggs, ") for number in count())
    assert len([*islice(load(tiny_model()).predict_documents(endless), 3)]) == 3
    assert len(taken) == 4


def test_every_file_has_a_record_in_the_order_given(tiny_model, model_texts, tmp_path):
    names = ("b.txt", "empty.txt", "broken.docx", "a.txt", "c.txt")
    for name, text in zip(names, (*model_texts[1:2], "", "PK\x03\x04 broken", *model_texts[2:4]), strict=True):
        (tmp_path / name).write_text(text)
    engine = load(tiny_model())
    found = [*engine.predict_files([tmp_path / name for name in names])]
    assert [each.document.path for each in found] == [str(tmp_path / name) for name in names]
    assert [each.document.status for each in found] == ["ok", "empty", "damaged", "ok", "ok"]
    assert [each.prediction is None for each in found] == [False, True, True, False, False]
    assert found[1].document.reason == "the file has no bytes"
    readable = [each.prediction for each in found if each.prediction]
    assert [each.label for each in readable] == [each.label for each in engine.predict(model_texts[1:4])]
    by_name = [each.document.path for each in engine.predict_files([tmp_path])]
    assert by_name == [str(tmp_path / name) for name in sorted(names)]


def test_a_file_that_does_not_exist_is_said(tiny_model, tmp_path):
    with pytest.raises(DataError, match=r"nothing does not exist; give files or folders that do\.$"):
        [*load(tiny_model()).predict_files([tmp_path / "nothing"])]


def test_a_model_does_only_what_it_was_trained_for(tiny_model):
    classifier, reader = load(tiny_model()), load(tiny_model("question_answering", "bert"))
    no_reader = (
        f"{classifier.artifact.folder} was trained for classification; questions need a reader, which a run with "
        "data=squad trains."
    )
    no_classifier = (
        f"{reader.artifact.folder} was trained for question_answering; labels need a classifier, which a run with "
        "data=ifmos or data=chunks trains."
    )
    with pytest.raises(ArtifactError, match=f"^{re.escape(no_reader)}$"):
        classifier.ask("Who?", "text")
    for use in (
        lambda: reader.logits(["text"]),
        lambda: [*reader.predict(["text"])],
        lambda: reader.predict_files(["."]),
        lambda: reader.labels,
    ):
        with pytest.raises(ArtifactError, match=f"^{re.escape(no_classifier)}$"):
            use()


def in_a_clean_interpreter(program, *arguments):
    """Run a program where nothing that training needs can be imported."""
    without = f"import sys\nfor name in {OF_TRAINING!r}: sys.modules[name] = None\n"
    return subprocess.run(
        [sys.executable, "-c", without + program, *map(str, arguments)], capture_output=True, text=True, check=False
    )


PREDICT = """
import doctune, json
engine = doctune.load(sys.argv[1], backend="onnx")
texts = json.loads(sys.argv[2])
found = engine.predict_files(sys.argv[3:])
files = [(each.document.status, each.prediction and each.prediction.label) for each in found]
print(json.dumps([engine.logits(texts).tolist(), [each.label for each in engine.predict(texts)], files]))
"""
ASK = """
import doctune, json
engine = doctune.load(sys.argv[1], backend="onnx")
print(json.dumps([each.text for each in engine.ask("Take two?", sys.argv[2], n_best=3)]))
"""


def test_labels_need_nothing_of_training(exported, model_texts, tmp_path):
    (tmp_path / "a.txt").write_text(model_texts[3])
    (tmp_path / "b.txt").write_text("")
    done = in_a_clean_interpreter(PREDICT, exported, json.dumps(model_texts), tmp_path)
    assert done.stderr == ""
    logits, labels, files = json.loads(done.stdout)
    torch = load(exported, backend="torch")
    expected = [each.label for each in torch.predict(model_texts)]
    assert np.abs(np.array(logits) - torch.logits(model_texts)).max() < MAX_DIFFERENCE
    assert labels == expected
    assert files == [["ok", expected[3]], ["empty", None]]


def test_answers_need_nothing_of_training(exported_model, model_texts):
    folder = exported_model("question_answering", "bert")
    done = in_a_clean_interpreter(ASK, folder, model_texts[-1])
    assert done.stderr == ""
    expected = [each.text for each in load(folder, backend="torch").ask("Take two?", model_texts[-1], n_best=3)]
    assert json.loads(done.stdout) == expected


def test_without_an_export_and_without_torch_it_is_said_what_to_do(tiny_model):
    folder = tiny_model()
    arguments = ["predict", str(folder), "."]
    program = f"from doctune.cli.main import main\nsys.exit(main({arguments!r}))"
    done = in_a_clean_interpreter(program)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"doctune: Without an ONNX net, {folder} needs torch: pip install 'doctune[train]', or run "
        f"`doctune export {folder}` where doctune[export] is installed.\n"
    )
