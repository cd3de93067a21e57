from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from doctune.errors import ArtifactError
from doctune.labels import Labels
from doctune.reports.records import read_predictions, read_run


def rewrite(path, **columns):
    table = pq.read_table(path).to_pydict() | columns
    pq.write_table(pa.table(table), path)


def test_a_run_is_read_as_it_was_written(make_run):
    records = read_run(make_run(documents=6, wrong_every=3, svm_wrong_every=2))
    assert records.labels.names == ("a", "b", "c")
    assert records.test.ids == ("test-0", "test-1", "test-2", "test-3", "test-4", "test-5")
    assert records.test.paths[0] == "/files/0.txt"
    assert records.test.truth.tolist() == [0, 1, 2, 0, 1, 2]
    assert records.test.predicted.tolist() == [0, 1, 0, 0, 1, 0]
    assert records.test.probabilities.shape == (6, 3)
    assert records.test.probabilities[2] == pytest.approx([0.1 / 3 + 0.9, 0.1 / 3, 0.1 / 3])
    assert records.baseline_ids["majority"].tolist() == [0] * 6
    assert records.baseline_ids["tfidf_svm"].tolist() == [0, 2, 2, 1, 1, 0]


def test_baseline_predictions_follow_the_order_of_the_test_documents(make_run):
    run = make_run(documents=6, svm_wrong_every=2)
    path = run / "predictions/baselines_test.parquet"
    table = pq.read_table(path)
    pq.write_table(table.take(list(range(5, -1, -1))), path)
    assert read_run(run).baseline_ids["tfidf_svm"].tolist() == [0, 2, 2, 1, 1, 0]


def test_a_part_without_rows_is_none(tmp_path):
    path = tmp_path / "test.parquet"
    names = ("id", "path", "truth", "prediction", "probabilities")
    pq.write_table(pa.table({name: pa.array([], pa.string()) for name in names}), path)
    assert read_predictions(path, Labels(("a",))) is None


def test_a_run_without_baselines_has_none(make_run):
    run = make_run()
    (run / "data/baselines.json").unlink()
    (run / "predictions/baselines_test.parquet").unlink()
    records = read_run(run)
    assert (records.baselines, records.baseline_ids) == ({}, {})


@pytest.mark.parametrize(
    "name",
    [
        "data/labels.json",
        "data/audit.json",
        "training_history.json",
        "predictions/val.parquet",
        "predictions/test.parquet",
        "environment.json",
    ],
)
def test_a_missing_file_is_named(make_run, name):
    run = make_run(documents=6)
    (run / name).unlink()
    with pytest.raises(ArtifactError) as caught:
        read_run(run)
    assert str(caught.value) == f"{run / name} is missing: the run did not finish, or {run} is not a run folder."


def test_a_folder_that_does_not_exist_is_no_run(tmp_path):
    with pytest.raises(ArtifactError, match=r"nowhere is not a run folder\. Give the folder that training wrote"):
        read_run(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data/audit.json", "{", "audit.json cannot be read as JSON"),
        ("data/audit.json", "[]", "audit.json must hold a JSON object"),
        ("environment.json", "1", "environment.json must hold a JSON object"),
        ("training_history.json", "{}", "training_history.json must hold a JSON list"),
        ("training_history.json", "[]", "training_history.json holds no epoch: the run ended before its first"),
        ("predictions/test.parquet", "PAR", "test.parquet cannot be read as Parquet"),
    ],
)
def test_a_damaged_file_is_named(make_run, name, content, message):
    run = make_run(documents=6)
    (run / name).write_text(content)
    with pytest.raises(ArtifactError, match=message):
        read_run(run)


def test_a_missing_column_is_named(make_run):
    run = make_run(documents=6)
    path = run / "predictions/val.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["truth", "path"]), path)
    with pytest.raises(ArtifactError, match=r"lacks the columns path, truth; it has id, prediction, probabilities\."):
        read_run(run)


def test_an_unknown_label_is_named_with_its_row(make_run):
    run = make_run(documents=3)
    rewrite(run / "predictions/test.parquet", prediction=["a", "zebra", "b"])
    with pytest.raises(ArtifactError, match=r"column prediction, row 2: 'zebra' is none of the 3 labels"):
        read_run(run)


@pytest.mark.parametrize("row", [[0.5, 0.5], None])
def test_probabilities_of_other_labels_are_refused(make_run, row):
    run = make_run(documents=3)
    whole = [1 / 3] * 3
    rewrite(run / "predictions/test.parquet", probabilities=[whole, whole, row])
    with pytest.raises(ArtifactError, match=rf"row 3: {len(row or [])} probabilities, but there are 3 labels"):
        read_run(run)


def test_baselines_of_other_documents_are_refused(make_run):
    run = make_run(documents=3)
    rewrite(run / "predictions/baselines_test.parquet", id=["x", "y", "z"])
    with pytest.raises(ArtifactError, match=r"does not hold the same documents as test\.parquet beside it"):
        read_run(run)


def test_history_values_may_be_null(make_run):
    run = make_run(history=[{"epoch": 1, "train_loss": None}])
    assert json.loads((run / "training_history.json").read_text()) == read_run(run).history
    assert np.isfinite(read_run(run).test.probabilities).all()


def write_hydra(run, config, overrides="[]"):
    (run / ".hydra").mkdir()
    (run / ".hydra/config.yaml").write_text(config, encoding="utf-8")
    (run / ".hydra/overrides.yaml").write_text(overrides, encoding="utf-8")


def test_the_configuration_is_read_where_hydra_wrote_one(make_run):
    run = make_run()
    assert (read_run(run).config, read_run(run).overrides) == ({}, [])
    write_hydra(run, "optim:\n  lr: 2.0e-05\nseed: 0\n", "- optim.lr=2e-5\n")
    records = read_run(run)
    assert (records.config, records.overrides) == ({"optim": {"lr": 2e-5}, "seed": 0}, ["optim.lr=2e-5"])


def test_a_damaged_configuration_is_named(make_run):
    run = make_run()
    write_hydra(run, "a: [")
    with pytest.raises(ArtifactError, match=r"config\.yaml cannot be read as YAML: "):
        read_run(run)


def test_a_configuration_of_another_kind_is_named(make_run):
    run = make_run()
    write_hydra(run, "seed: 0", "seed: 0")
    with pytest.raises(ArtifactError, match=r"overrides\.yaml must hold a YAML list\."):
        read_run(run)
