"""The addresses of `doctune serve` without LitServe: what is computed is given by the test."""

import contextlib

import pytest
from starlette.testclient import TestClient

from doctune.decode.multi_task import TargetPrediction
from doctune.documents import Answer, Prediction
from doctune.inference.server_app import AskJob, Computed, FileSettings, PredictJob, make_app
from doctune.inference.server_messages import Info, Limits, TargetInfo
from doctune.text import sandbox
from doctune.text.extract import ExtractSettings

INFO = Info(
    task="classification",
    labels=["code", "invoice"],
    max_length=48,
    backend="onnx",
    temperature=1.0,
    doctune_version="0",
    limits=Limits(max_body_bytes=10_000, max_texts=3, max_chars=20, max_requests=2),
)
FILES = FileSettings(ExtractSettings(), sandbox.Limits(timeout_s=1))


@contextlib.asynccontextmanager
async def nothing(app):
    yield


async def all_code(job):
    """Every text is code; every question is answered by the beginning of its last text."""
    if isinstance(job, PredictJob):
        return Computed(1, predictions=tuple(Prediction("code", 0.75, (0.75, 0.25)) for _ in job.texts))
    last = len(job.texts) - 1
    return Computed(4, answers=(Answer(job.texts[last][:3], 0.5, 0, 3, job.texts[last], 0, str(last)),))


@pytest.fixture
def client():
    """A function: what computes, what is served -> a client."""

    def make(compute=all_code, info=INFO, is_ready=True):
        app = make_app(info, FILES, compute, lambda: is_ready, nothing)
        return TestClient(app, raise_server_exceptions=False)

    return make


SEVERAL = INFO.model_copy(
    update={
        "task": "multi_task",
        "labels": [],
        "targets": [
            TargetInfo(name="kind", kind="single", labels=["x", "y"]),
            TargetInfo(name="tags", kind="multi", labels=["a", "b", "c"]),
        ],
    }
)
READER = INFO.model_copy(update={"task": "question_answering", "labels": []})


def test_what_was_not_asked_for_is_not_in_the_answer(client):
    plain = client().post("/predict", json={"text": "x = 1"})
    assert plain.json() == {"predictions": [{"label": "code", "score": 0.75}]}
    full = client().post("/predict", json={"text": "x = 1", "top_k": 2, "probabilities": True})
    assert full.json() == {
        "predictions": [
            {
                "label": "code",
                "score": 0.75,
                "top": [{"label": "code", "score": 0.75}, {"label": "invoice", "score": 0.25}],
                "probabilities": {"code": 0.75, "invoice": 0.25},
            }
        ]
    }


async def all_tagged(job):
    """Every text is y, and tagged c before a."""
    told = (TargetPrediction("kind", ("y",), (0.25, 0.75)), TargetPrediction("tags", ("c", "a"), (0.5, 0.125, 0.625)))
    return Computed(1, predictions=(told,) * len(job.texts))


def test_several_targets_are_each_told_by_name(client):
    plain = client(all_tagged, SEVERAL).post("/predict", json={"text": "x = 1"})
    kind, tags = [{"label": "y", "score": 0.75}], [{"label": "c", "score": 0.625}, {"label": "a", "score": 0.5}]
    assert plain.json() == {"predictions": [{"targets": {"kind": {"labels": kind}, "tags": {"labels": tags}}}]}
    full = client(all_tagged, SEVERAL).post("/predict", json={"text": "x = 1", "top_k": 3, "probabilities": True})
    (told,) = full.json()["predictions"]
    assert told["targets"]["kind"]["top"] == [*kind, {"label": "x", "score": 0.25}]
    assert told["targets"]["tags"] == {
        "labels": tags,
        "top": [*tags, {"label": "b", "score": 0.125}],
        "probabilities": {"a": 0.5, "b": 0.125, "c": 0.625},
    }


def test_several_targets_of_files_are_told_in_rows(client):
    files = [("files", (name, content)) for name, content in (("a.txt", b"x = 1"), ("empty.txt", b""))]
    read, empty = client(all_tagged, SEVERAL).post("/predict_file", files=files).json()["predictions"]
    assert (read["file"], read["status"], [*read["targets"]]) == ("a.txt", "ok", ["kind", "tags"])
    assert (empty["status"], "targets" in empty) == ("empty", False)


def test_a_question_reaches_the_model_whole(client):
    asked = []

    async def compute(job):
        asked.append(job)
        return await all_code(job)

    request = {"question": "Who?", "texts": ["Ann was.", "Bob was."], "top_k": 2, "threshold": 0.25}
    response = client(compute, READER).post("/ask", json=request)
    assert asked == [AskJob("Who?", ("Ann was.", "Bob was."), 2, 0.25)]
    assert response.headers["X-Batch-Requests"] == "4"
    answer = {
        "text": "Bob",
        "score": 0.5,
        "start": 0,
        "end": 3,
        "sentence": "Bob was.",
        "sentence_start": 0,
        "index": 1,
    }
    assert response.json() == {"answers": [answer]}


def test_the_texts_of_a_question_are_limited_together(client):
    request = {"question": "Who?", "texts": ["a" * 20, "b"]}
    response = client(info=READER).post("/ask", json=request)
    assert response.status_code == 413
    assert response.json() == {"detail": "What is to be read has 21 characters; at most 20 are taken."}


def test_a_failure_is_said_without_its_reason(client):
    async def fail(job):
        raise RuntimeError("/home/someone/secret")

    response = client(fail).post("/predict", json={"text": "a"})
    assert response.status_code == 500
    assert response.json() == {"detail": "The server failed on this request; its log says why."}


def test_health_is_refused_until_all_workers_are_ready(client):
    response = client(is_ready=False).get("/health")
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert response.json() == {"detail": "The model is still being loaded."}


def test_a_refused_or_failed_request_makes_room_for_the_next(client):
    async def fail(job):
        raise RuntimeError

    failing = client(fail)
    statuses = [failing.post("/predict", json={"text": "a"}).status_code for _ in range(4)]
    assert statuses == [500] * 4
    assert [failing.post("/predict", json={}).status_code for _ in range(4)] == [422] * 4


def test_an_upload_that_takes_too_long_to_read_is_refused(client, monkeypatch, tmp_path):
    (tmp_path / "slow_reading.py").write_text("import time\n\ndef before(path):\n    time.sleep(60)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("DOCTUNE_EXTRACT_HOOK", "slow_reading")
    response = client().post("/predict_file", files=[("files", ("letter.txt", b"Dear Ann"))])
    assert response.status_code == 422
    assert response.json() == {"detail": "letter.txt gives no text (timeout): not read after 1 s."}


def test_reasons_name_no_folder_of_this_machine(client):
    rows = client().post("/predict_file", files=[("files", ("a.docx", b"PK\x03\x04broken"))] * 2).json()["predictions"]
    assert [row["status"] for row in rows] == ["damaged", "damaged"]
    assert all("doctune-" not in row["reason"] for row in rows)
