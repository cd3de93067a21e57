import json

import pytest

from doctune.corpus.targets import TargetSpec
from doctune.decode.answers import SpanSettings
from doctune.errors import ArtifactError
from doctune.inference.artifact import Artifact, ReadingSettings, TargetSettings, load_artifact
from doctune.labels import Labels
from doctune.text.chunks import ChunkSettings
from doctune.text.extract import ExtractSettings
from doctune.text.questions import WindowSettings


@pytest.fixture
def artifact(tmp_path):
    artifact = Artifact(tmp_path / "run" / "model", "classification", Labels(("a", "b")), 64, ExtractSettings())
    artifact.save()
    return artifact


def test_a_run_folder_and_its_model_folder_are_the_same_artifact(artifact):
    assert load_artifact(artifact.folder) == load_artifact(artifact.folder.parent) == artifact


def test_how_long_documents_are_cut_comes_back(tmp_path):
    chunks = ChunkSettings(chunk_length=64, stride=8, max_chunks=4, keep="spread")
    settings = ExtractSettings(max_chars=None)
    artifact = Artifact(
        tmp_path / "model", "hierarchical_classification", Labels(("a", "b")), 64, settings, chunks=chunks
    )
    artifact.save()
    assert load_artifact(tmp_path) == artifact


def test_a_reader_of_an_earlier_version_is_read(tmp_path):
    reading = ReadingSettings(WindowSettings(32, 8, 8), SpanSettings(6, 3), 0.5)
    Artifact(tmp_path / "model", "question_answering", Labels(()), 32, ExtractSettings(), reading).save()
    path = tmp_path / "model" / "doctune.json"
    content = json.loads(path.read_text())
    content["reading"]["spans"]["top_k"] = 20  # which limited the search once
    path.write_text(json.dumps(content))
    assert load_artifact(tmp_path).reading == reading


def test_a_missing_run_is_named(tmp_path):
    with pytest.raises(ArtifactError, match="nowhere: there is no such run folder"):
        load_artifact(tmp_path / "nowhere")


def test_a_run_that_did_not_finish_is_said(tmp_path):
    with pytest.raises(ArtifactError, match="holds no exported model"):
        load_artifact(tmp_path)


def test_a_newer_artifact_asks_for_a_newer_doctune(artifact):
    path = artifact.folder / "doctune.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 99}))
    with pytest.raises(ArtifactError, match=r"has schema 99; doctune .* knows up to 1\. Update doctune"):
        load_artifact(artifact.folder)


@pytest.mark.parametrize("content", ["{", "{}", "[]", '{"schema": "one"}'])
def test_damaged_settings_are_named(artifact, content):
    (artifact.folder / "doctune.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"doctune\.json cannot be used"):
        load_artifact(artifact.folder)


def test_targets_and_their_thresholds_come_back(tmp_path):
    targets = (
        TargetSettings(TargetSpec("kind", "single", Labels(("x", "y")))),
        TargetSettings(TargetSpec("tags", "multi", Labels(("a", "b"))), (0.25, 0.5)),
    )
    artifact = Artifact(tmp_path / "model", "multi_task", Labels(()), 64, ExtractSettings(), targets=targets)
    artifact.save()
    assert load_artifact(tmp_path) == artifact
