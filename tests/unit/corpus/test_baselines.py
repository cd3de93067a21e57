from __future__ import annotations

import json
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest

from doctune.corpus import baselines
from doctune.corpus.baselines import (
    Baseline,
    add_baselines,
    judge_baselines,
    majority,
    score_baselines,
    tfidf_svm,
    write_predictions,
)
from doctune.errors import DataError
from doctune.labels import Labels

PYTHON = ["def f(x):\n    return x", "import os\nclass A:\n    pass", "def g(self): return self.value"]
HEADERS = ["#define MAX 3\nint f(int);", "#include <stdio.h>\nvoid g();", "#ifndef H_\n#define H_\n#endif"]
TEXTS = PYTHON + HEADERS
IDS = np.array([0, 0, 0, 1, 1, 1])


def test_majority_predicts_the_most_frequent_training_label():
    baseline = majority(np.array([2, 1, 2]), 2, 3, num_labels=4)
    assert (baseline.name, baseline.val.tolist(), baseline.test.tolist()) == ("majority", [2, 2], [2, 2, 2])


def test_majority_of_equally_frequent_labels_is_the_lowest_id():
    assert majority(np.array([3, 1]), 1, 0, num_labels=4).val.tolist() == [1]


def test_svm_tells_python_from_headers():
    baseline = tfidf_svm(TEXTS, IDS, ["def h(y): return y"], ["#define MIN 1", "class B: pass"])
    assert (baseline.name, baseline.val.tolist(), baseline.test.tolist()) == ("tfidf_svm", [0], [1, 0])


def test_svm_keeps_punctuation_and_capitals():
    texts = ["a ; b", "c ; d", "a : b", "c : d", "MAX", "Max"]
    baseline = tfidf_svm(texts, np.array([0, 0, 1, 1, 2, 3]), ["e ; f", "e : f"], ["MAX", "Max"])
    assert baseline.val.tolist() == [0, 1]
    assert baseline.test.tolist() == [2, 3]


def test_svm_reads_texts_once_and_lazily():
    parts = [iter(TEXTS), iter(PYTHON), iter(HEADERS)]
    baseline = tfidf_svm(parts[0], IDS, parts[1], parts[2])
    assert (baseline.val.tolist(), baseline.test.tolist()) == ([0, 0, 0], [1, 1, 1])


def test_svm_holds_one_batch_of_texts(monkeypatch):
    monkeypatch.setattr("doctune.corpus.baselines.BATCH_DOCUMENTS", 2)
    baseline = tfidf_svm(TEXTS, IDS, PYTHON, HEADERS)
    assert (baseline.val.tolist(), baseline.test.tolist()) == ([0, 0, 0], [1, 1, 1])


def test_svm_is_deterministic():
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(list("abcdefgh"), 6)) for _ in range(60)]
    ids = rng.integers(0, 5, 60)
    first, second = (tfidf_svm(texts, ids, texts, texts[::-1]) for _ in range(2))
    assert first.val.tolist() == second.val.tolist() == second.test.tolist()[::-1]


def test_svm_reads_only_the_beginning():
    cut = tfidf_svm(TEXTS, IDS, ["def f(x): return x" + " #define MAX" * 50], [], max_chars=18)
    assert cut.val.tolist() == [0]


def test_svm_never_predicts_a_label_without_training_document():
    baseline = tfidf_svm(TEXTS, IDS * 4, TEXTS, TEXTS)
    assert set(baseline.val.tolist()) == {0, 4}


def test_svm_with_one_class_predicts_that_class():
    baseline = tfidf_svm(PYTHON, np.array([2, 2, 2]), TEXTS, [])
    assert (baseline.val.tolist(), baseline.test.tolist()) == ([2] * 6, [])


def test_svm_takes_empty_texts():
    baseline = tfidf_svm(["", *TEXTS, ""], np.array([0, *IDS, 0]), ["", "#define X"], [""])
    assert baseline.val.tolist() == [0, 1]
    assert tfidf_svm(["", ""], np.array([0, 1]), [""], []).val.shape == (1,)


@pytest.mark.parametrize(
    "call", [lambda: majority(np.array([], int), 1, 1, 2), lambda: tfidf_svm([], np.array([], int), [], [])]
)
def test_no_training_document_is_refused(call):
    with pytest.raises(DataError, match="A baseline needs training documents, and the training part is empty"):
        call()


def test_texts_and_labels_of_different_number_are_refused():
    with pytest.raises(DataError, match="The SVM baseline got 6 training texts and 2 labels"):
        tfidf_svm(TEXTS, np.array([0, 1]), [], [])


def test_scores_carry_intervals_and_null_for_an_empty_part():
    baseline = Baseline("majority", np.array([0, 0]), np.array([], int))
    scores = score_baselines([baseline], np.array([0, 1]), np.array([], int), 2)
    assert scores["majority"]["test"] is None
    val = scores["majority"]["val"]
    assert (val["documents"], val["accuracy"], val["f1_macro"]) == (2, 0.5, pytest.approx(1 / 3))
    assert val["ci95"]["accuracy"] == [0.0, 1.0]
    assert "log_loss" not in val
    json.dumps(scores, allow_nan=False)


def test_predictions_are_written_as_label_names(tmp_path):
    path = tmp_path / "baselines_test.parquet"
    found = [
        Baseline("majority", np.array([]), np.array([1, 1])),
        Baseline("tfidf_svm", np.array([]), np.array([0, 1])),
    ]
    write_predictions(found, ["x", "y"], Labels(("a", "b")), path)
    assert pq.read_table(path).to_pydict() == {"id": ["x", "y"], "majority": ["b", "b"], "tfidf_svm": ["a", "b"]}


def test_further_predictions_stand_beside_those_that_are_there(tmp_path):
    path, labels = tmp_path / "baselines_test.parquet", Labels(("a", "b"))
    write_predictions([Baseline("majority", np.array([]), np.array([1, 1]))], ["x", "y"], labels, path)
    write_predictions([Baseline("first_chunk", np.array([]), np.array([0, 1]))], ["x", "y"], labels, path)
    assert pq.read_table(path).to_pydict() == {"id": ["x", "y"], "majority": ["b", "b"], "first_chunk": ["a", "b"]}


def test_the_whole_text_is_read_where_there_is_no_bound():
    filler = "the same words again and again " * 400  # 12,000 characters
    texts, ids = [filler + word for word in ("alpha", "beta") * 4], np.array([0, 1] * 4)
    bounded = tfidf_svm(texts, ids, [], texts)
    whole = tfidf_svm(texts, ids, [], texts, max_chars=None)
    assert len(set(bounded.test.tolist())) == 1
    assert whole.test.tolist() == ids.tolist()


def test_batches_hold_a_bounded_number_of_characters(monkeypatch):
    monkeypatch.setattr(baselines, "BATCH_CHARS", 10)
    batches = baselines.count_batches(["a" * 6, "b" * 6, "c" * 30, "d"], max_chars=None)
    assert [len(batch.toarray()) for batch in batches] == [2, 1, 1]
    assert [*baselines.count_batches([], max_chars=None)] == []


def test_baselines_are_added_to_those_of_the_run(tmp_path):
    judge_baselines(FakeCorpus(tmp_path), tmp_path)
    add_baselines(FakeCorpus(tmp_path), tmp_path, [Baseline("first_chunk", np.array([1, 1, 0]), np.array([1, 1, 0]))])
    scores = json.loads((tmp_path / "data/baselines.json").read_text())
    assert list(scores) == ["majority", "tfidf_svm", "first_chunk"]
    assert scores["first_chunk"]["val"]["accuracy"] == 1.0
    assert pq.read_table(tmp_path / "predictions/baselines_test.parquet").column_names == [
        "id", "majority", "tfidf_svm", "first_chunk",
    ]  # fmt: skip


@dataclass
class FakeDocument:
    id: str
    text: str
    label: str


class FakeCorpus:
    """What `judge_baselines` uses of a corpus."""

    labels = Labels(("header", "python"))
    fingerprint = "f1"

    def __init__(self, folder):
        self.store = SimpleNamespace(cache=folder / "cache", folder=folder / "cache/texts/one")
        self.num_read = 0

    @property
    def documents(self):
        return [document for name in ("train", "val", "test") for document in self.part(name)]

    def part(self, name):
        documents = [
            FakeDocument(f"{name}-{row}", text, "python" if row < 3 else "header") for row, text in enumerate(TEXTS)
        ]
        return documents if name == "train" else documents[1:4]

    def texts(self, documents):
        for document in documents:
            self.num_read += 1
            yield document.text

    def label_ids(self, documents):
        return np.array(self.labels.encode([document.label for document in documents]))


def test_judge_baselines_writes_scores_and_predictions(tmp_path):
    judge_baselines(FakeCorpus(tmp_path), tmp_path)
    scores = json.loads((tmp_path / "data/baselines.json").read_text())
    assert list(scores) == ["majority", "tfidf_svm"]
    assert scores["tfidf_svm"]["test"]["accuracy"] == 1.0
    assert scores["majority"]["val"]["accuracy"] == pytest.approx(1 / 3)
    assert pq.read_table(tmp_path / "predictions/baselines_test.parquet").to_pydict() == {
        "id": ["test-1", "test-2", "test-3"],
        "majority": ["header", "header", "header"],
        "tfidf_svm": ["python", "python", "header"],
    }


def test_the_svm_is_fitted_once_for_the_same_documents(tmp_path):
    files = ("data/baselines.json", "predictions/baselines_test.parquet")
    first, second, whole = FakeCorpus(tmp_path), FakeCorpus(tmp_path), FakeCorpus(tmp_path)
    judge_baselines(first, tmp_path / "first")
    assert first.num_read == len(first.documents)
    judge_baselines(second, tmp_path / "second")
    assert second.num_read == 0
    for name in files:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    judge_baselines(whole, tmp_path / "whole", max_chars=None)
    assert whole.num_read == len(whole.documents)
