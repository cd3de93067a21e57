"""A run fits its temperature on its validation predictions, stores it with the model and says what it is."""

import json
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from doctune.inference.artifact import load_artifact
from doctune.labels import Labels
from doctune.reports.records import read_predictions
from doctune.scoring.calibration import fit_temperature
from doctune.training.record import RunRecord
from doctune.training.tasks.classification import fitted_temperature

LABELS = Labels(("a", "b"))


def stored(run, truth):
    """A run whose model gave the first label 90 % for every validation document."""
    (run / "predictions").mkdir()
    num_documents = len(truth)
    columns = {
        "id": [str(number) for number in range(num_documents)],
        "path": ["/x"] * num_documents,
        "truth": pa.array(truth, pa.string()),
        "prediction": pa.array(["a"] * num_documents, pa.string()),
        "probabilities": pa.array([[0.9, 0.1]] * num_documents, pa.list_(pa.float32())),
    }
    pq.write_table(pa.table(columns), run / "predictions" / "val.parquet")
    return RunRecord(run / "environment.json")


def test_the_temperature_is_fitted_and_recorded(tmp_path):
    record = stored(tmp_path, ["a", "a", "a", "b"])
    temperature = fitted_temperature(tmp_path, LABELS, record)
    assert temperature == pytest.approx(np.log(9) / np.log(3), abs=1e-6)  # three of four: 0.75
    kept = json.loads((tmp_path / "environment.json").read_text(encoding="utf-8"))["temperature"]
    assert kept["temperature"] == temperature
    assert kept["documents"] == 4
    assert kept["problem"] == ""


def test_where_every_validation_document_was_right_the_temperature_stays_1(tmp_path):
    record = stored(tmp_path, ["a", "a"])
    assert fitted_temperature(tmp_path, LABELS, record) == 1.0
    assert record.facts["temperature"]["problem"] == (
        "no validation document was wrong, so nothing says how unsure the model should be"
    )


def test_without_validation_documents_the_temperature_stays_1(tmp_path):
    record = stored(tmp_path, [])
    assert fitted_temperature(tmp_path, LABELS, record) == 1.0
    assert "temperature" not in record.facts


def test_a_finished_run_has_the_temperature_of_its_validation_predictions(finished_run):
    artifact = load_artifact(finished_run)
    val = read_predictions(finished_run / "predictions" / "val.parquet", artifact.labels)
    fit = fit_temperature(val.truth, val.probabilities)
    assert artifact.temperature == fit.temperature
    environment = json.loads((finished_run / "environment.json").read_text(encoding="utf-8"))
    assert environment["temperature"] == asdict(fit)
