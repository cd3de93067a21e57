import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from doctune.inference.artifact import load_artifact
from doctune.inference.forest import FOREST_FILE, load_forest
from doctune.training.forest import grow_forest
from doctune.training.run import train
from doctune.training.sources import corpus, manifest


@pytest.fixture(scope="module")
def settings(manifest_of_files, tiny, compose, tmp_path_factory):
    return compose(
        *tiny,
        f"data.manifest={manifest_of_files}",
        f"data.cache_dir={tmp_path_factory.mktemp('cache')}",
        "trainer.max_epochs=1",
        "split.val=0.2",
        "split.test=0.2",
        "cascade.forest=true",
        "cascade.trees=20",
        "cascade.max_features=300",
    )


@pytest.fixture(scope="module")
def run(settings, tmp_path_factory):
    """A run with a forest; never changed by a test."""
    run = tmp_path_factory.mktemp("run")
    train(settings, run)
    return run


@pytest.fixture
def prepared(settings, tmp_path):
    """The corpus of the run, and a folder in which no baseline but the majority has been judged."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/baselines.json").write_text('{"majority": {}}')
    return corpus(settings.data, settings.split, manifest(settings.data)), tmp_path


def test_a_run_has_its_forest_beside_the_model_and_judges_it_among_the_baselines(run):
    judged = json.loads((run / "data/baselines.json").read_text())
    assert list(judged) == ["majority", "tfidf_svm", "forest"]
    assert judged["forest"]["val"]["accuracy"] == judged["forest"]["test"]["accuracy"] == 1.0
    assert judged["forest"]["test"]["documents"] == 12
    assert "TF-IDF + random forest" in (run / "report/summary.txt").read_text()


def test_the_stored_forest_is_the_one_that_was_judged(run):
    forest = load_forest(run / "model", load_artifact(run).labels)
    judged = pq.read_table(run / "predictions/baselines_test.parquet").to_pylist()
    paths = {row["id"]: row["path"] for row in pq.read_table(run / "predictions/test.parquet").to_pylist()}
    texts = [Path(paths[row["id"]]).read_text() for row in judged]
    assert [answer.label for answer in forest.predict(texts)] == [row["forest"] for row in judged]
    assert len(forest._columns) == 300
    assert len(forest._forest.estimators_) == 20


def test_it_is_grown_once(settings, prepared):
    documents, folder = prepared
    grow_forest(settings, documents, folder, 4000)
    path = folder / "model" / FOREST_FILE
    path.write_bytes(b"as it was")
    grow_forest(settings, documents, folder, 4000)
    assert path.read_bytes() == b"as it was"


def test_it_is_grown_again_where_its_file_or_its_scores_are_missing(settings, prepared):
    documents, folder = prepared
    path = folder / "model" / FOREST_FILE
    path.parent.mkdir()
    path.write_bytes(b"from a run that was killed before it wrote the scores")
    grow_forest(settings, documents, folder, 4000)
    whole = load_forest(path.parent, documents.labels).probabilities(["Take 3 eggs."]).tolist()
    assert list(json.loads((folder / "data/baselines.json").read_text())) == ["majority", "forest"]
    path.unlink()
    grow_forest(settings, documents, folder, 4000)
    assert load_forest(path.parent, documents.labels).probabilities(["Take 3 eggs."]).tolist() == whole


def test_a_forest_of_long_documents_reads_all_of_them(settings, prepared):
    documents, folder = prepared
    grow_forest(settings, documents, folder, None)
    assert load_forest(folder / "model", documents.labels)._max_chars is None


def test_nothing_is_grown_unless_asked_for(compose, prepared):
    documents, folder = prepared
    grow_forest(compose(), documents, folder, 4000)
    assert not (folder / "model").exists()
