"""`doctune serve` as a process of its own, on a free port: what clients get, what is refused, and how it ends."""

import contextlib
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import docx
import httpx
import pymupdf
import pytest

import doctune
from doctune import load

START_TIMEOUT_S = 240
END_TIMEOUT_S = 60
MAX_BODY_BYTES = 1024 * 1024
TEXT_SENTENCE = (
    'Send JSON such as {"text": "…"} or {"texts": ["…", "…"]}; "top_k" (a number from 1) and "probabilities" '
    "(true or false) are optional."
)
FILE_SENTENCE = (
    "Send multipart/form-data with one or several fields named files, such as curl -F files=@report.pdf; top_k "
    "(a number from 1) and probabilities (true or false) are optional."
)
QUESTION_SENTENCE = (
    'Send JSON such as {"question": "…", "text": "…"} or {"question": "…", "texts": ["…", "…"]}; "top_k" (a number '
    'from 1) and "threshold" (a probability) are optional.'
)


class Server:
    """A running `doctune serve`, in a session of its own, so that all its processes can be found."""

    def __init__(self, run, log, *options):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.run = run
        self.url = f"http://127.0.0.1:{port}"
        self._log = log
        command = [sys.executable, "-m", "doctune.cli.main", "serve", str(run), "--backend", "torch"]
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                [*command, "--port", str(port), *options], stderr=stream, stdout=stream, start_new_session=True
            )

    def log(self):
        return self._log.read_text(encoding="utf-8")

    def wait_until_ready(self):
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/health").status_code == 200:
                    return self
            time.sleep(0.1)
        pytest.fail(f"the server did not start: {self.log()}")

    def post(self, path, json=None, **request):
        return httpx.post(f"{self.url}{path}", json=json, timeout=60, **request)

    def get(self, path):
        return httpx.get(f"{self.url}{path}")

    def processes(self):
        """The processes of its session that have not ended."""
        return [pid for pid, session, state in _all_processes() if session == self.process.pid and state != "Z"]

    def is_gone(self):
        """Whether none of its processes is left; Python's own tracker of resources ends a moment after the others."""
        deadline = time.monotonic() + 10
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.05)
        return not self.processes()

    def end(self, number):
        """Send a signal as a terminal does, to its process group; the exit status."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)
        return self.process.wait(END_TIMEOUT_S)


def _all_processes():
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            yield int(folder.name), int(fields[3]), fields[0]


@contextlib.contextmanager
def serving(run, log, *options, signal_number=signal.SIGTERM):
    """A ready server; that it ends cleanly and alone is asserted for each."""
    server = Server(run, log, *options)
    try:
        yield server.wait_until_ready()
        assert server.end(signal_number) == 0
        assert server.is_gone()
    finally:
        for pid in server.processes():
            os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def classifier(tiny_model, tmp_path_factory):
    log = tmp_path_factory.mktemp("classifier") / "log"
    limits = ("--max-body-mb", "1", "--max-texts", "5", "--max-chars", "1000", "--batch-wait-ms", "20")
    with serving(tiny_model(), log, *limits) as server:
        yield server


@pytest.fixture(scope="module")
def engine(tiny_model):
    return load(tiny_model(), backend="torch")


@pytest.fixture(scope="module")
def letter():
    """The bytes of a Word document."""
    document, content = docx.Document(), io.BytesIO()
    document.add_paragraph("Take two eggs and sugar.")
    document.save(content)
    return content.getvalue()


@pytest.fixture(scope="module")
def report():
    """The bytes of a PDF."""
    with pymupdf.open() as document:
        document.new_page().insert_text((72, 72), "invoice 13;9.00;EUR")
        return document.tobytes()


def assert_refused(response, status, sentence):
    assert (response.status_code, response.json()) == (status, {"detail": sentence})


def test_fifty_clients_at_once_each_get_the_answers_to_their_own_texts(classifier, engine):
    def ask(number):
        texts = [f"def compute_{number}(value): return {number * place}" for place in range(1 + number % 3)]
        texts += [f"invoice {number} " * (1 + number % 7)]
        barrier.wait()
        return texts, classifier.post("/predict", {"texts": texts, "probabilities": True})

    barrier = threading.Barrier(50)
    with ThreadPoolExecutor(50) as clients:
        answered = list(clients.map(ask, range(50)))
    assert [response.status_code for _, response in answered] == [200] * 50
    for texts, response in answered:
        found = response.json()["predictions"]
        alone = [next(engine.predict([text])) for text in texts]
        assert [each["label"] for each in found] == [each.label for each in alone]
        assert [each["score"] for each in found] == pytest.approx([each.score for each in alone], abs=1e-5)
        for one, other in zip(found, alone, strict=True):
            assert tuple(one["probabilities"]) == ("code", "invoice", "recipe")
            assert list(one["probabilities"].values()) == pytest.approx(other.probabilities, abs=1e-5)
    assert max(int(response.headers["X-Batch-Requests"]) for _, response in answered) > 1


def test_a_text_alone_gets_its_label_and_score(classifier, engine):
    expected = next(engine.predict(["Take two eggs."]))
    response = classifier.post("/predict", {"text": "Take two eggs."})
    assert response.headers["X-Batch-Requests"] == "1"
    assert response.json() == {"predictions": [{"label": expected.label, "score": pytest.approx(expected.score)}]}


def test_the_most_probable_labels_come_best_first_and_no_more_than_there_are(classifier, engine):
    chances = next(engine.predict(["Take two eggs."])).probabilities
    for top_k, count in ((2, 2), (9, 3)):
        found = classifier.post("/predict", {"text": "Take two eggs.", "top_k": top_k}).json()["predictions"][0]
        assert [each["score"] for each in found["top"]] == pytest.approx(sorted(chances, reverse=True)[:count])
        assert found["top"][0] == {"label": found["label"], "score": found["score"]}


@pytest.mark.parametrize(
    ("content", "status", "sentence"),
    [
        (b'{"text": ', 400, "the body is not JSON (Expecting value at character 9)"),
        (b'{"text": "\xff"}', 400, "There was an error parsing the body"),
        (b"[1]", 422, "the body is not a JSON object with Content-Type: application/json"),
        (b"", 422, "it has no body"),
        (b"{}", 422, "give either text or texts"),
        (b'{"text": "a", "texts": ["b"]}', 422, "give either text or texts, not both"),
        (b'{"text": 5}', 422, "text: input should be a valid string"),
        (b'{"text": " "}', 422, "text: there is no text in it"),
        (b'{"texts": ["a", null]}', 422, "texts.1: input should be a valid string"),
        (b'{"texts": []}', 422, "texts: list should have at least 1 item after validation, not 0"),
        (b'{"text": "\\ud800"}', 422, "text: it holds half of a surrogate pair, which is no character"),
        (b'{"text": "a", "top": 2}', 422, "top is not a key that is known here"),
        (b'{"text": "a", "top_k": 0}', 422, "top_k: input should be greater than or equal to 1"),
        (
            b'{"text": "a", "b": 1, "c": 1, "d": 1, "e": 1}',
            422,
            "b is not a key that is known here; c is not a key that is known here; d is not a key that is known here; "
            "and 1 more",
        ),
    ],
)
def test_a_malformed_request_is_refused_with_what_was_expected(classifier, content, status, sentence):
    response = classifier.post("/predict", content=content, headers={"Content-Type": "application/json"})
    assert_refused(response, status, f"The request cannot be used: {sentence}. {TEXT_SENTENCE}")


def test_json_that_is_not_declared_as_such_is_refused(classifier):
    response = classifier.post("/predict", content=b'{"text": "a"}')
    problem = "the body is not a JSON object with Content-Type: application/json"
    assert_refused(response, 422, f"The request cannot be used: {problem}. {TEXT_SENTENCE}")


def test_a_question_to_a_classifier_is_refused(classifier):
    sentence = (
        "The model that is served was trained for classification; questions need a reader. This one gives labels: "
        "POST /predict or /predict_file."
    )
    assert_refused(classifier.post("/ask", {"question": "Who?", "text": "Ann."}), 409, sentence)


def test_too_many_texts_and_too_long_ones_are_refused(classifier):
    assert_refused(
        classifier.post("/predict", {"texts": ["a"] * 6}), 413, "The request has 6 texts; send at most 5 at once."
    )
    sentence = "Text 1 (counted from 0) has 1,001 characters; at most 1,000 are taken."
    assert_refused(classifier.post("/predict", {"texts": ["a", "a" * 1001]}), 413, sentence)


@pytest.mark.parametrize("is_declared", [True, False])
def test_a_body_that_is_too_large_is_refused_whether_it_declares_its_length_or_not(classifier, is_declared):
    body = b'{"text": "' + b"a" * MAX_BODY_BYTES + b'"}'
    content = body if is_declared else iter([body[:1000], body[1000:]])
    response = classifier.post("/predict", content=content, headers={"Content-Type": "application/json"})
    sentence = "The body is larger than 1,048,576 bytes, the most that is taken; send less at once."
    assert_refused(response, 413, sentence)


def test_an_unknown_address_and_a_wrong_method_are_said(classifier):
    assert_refused(classifier.get("/predicted"), 404, "There is nothing at /predicted; /docs lists what there is.")
    assert_refused(classifier.get("/predict"), 405, "GET is not what /predict takes; /docs says what it does.")


def test_uploaded_files_are_labelled_by_their_text_in_order(classifier, engine, letter, report, tmp_path):
    files = [("files", ("letter.docx", letter)), ("files", ("../report", report)), ("files", ("bad.pdf", report[:40]))]
    response = classifier.post("/predict_file", files=files, data={"top_k": 2, "probabilities": True})
    rows = response.json()["predictions"]
    expected = list(engine.predict(["Take two eggs and sugar.", "invoice 13;9.00;EUR"]))
    assert [row["file"] for row in rows] == ["letter.docx", "../report", "bad.pdf"]
    assert [row["status"] for row in rows] == ["ok", "ok", "damaged"]
    assert [row["label"] for row in rows[:2]] == [each.label for each in expected]
    for row, each in zip(rows, expected, strict=False):
        assert list(row["probabilities"].values()) == pytest.approx(each.probabilities, abs=1e-5)
        assert len(row["top"]) == 2
    assert set(rows[2]) == {"file", "status", "reason"}
    assert rows[2]["reason"]


def test_a_damaged_file_alone_is_refused_with_the_reason(classifier, report):
    reasons = classifier.post("/predict_file", files=[("files", ("bad.pdf", report[:40]))] * 2).json()["predictions"]
    response = classifier.post("/predict_file", files=[("files", ("bad.pdf", report[:40]))])
    assert_refused(response, 422, f"bad.pdf gives no text (damaged): {reasons[0]['reason']}.")
    empty = classifier.post("/predict_file", files=[("files", ("empty.txt", b""))])
    assert_refused(empty, 422, "empty.txt gives no text (empty): the file has no bytes.")


def test_several_files_without_text_are_rows_without_labels(classifier):
    rows = classifier.post("/predict_file", files=[("files", ("empty.txt", b""))] * 2).json()["predictions"]
    assert rows == [{"file": "empty.txt", "status": "empty", "reason": "the file has no bytes"}] * 2


def test_an_upload_without_files_or_with_too_many_is_refused(classifier):
    missing = f"The request cannot be used: files is missing. {FILE_SENTENCE}"
    assert_refused(classifier.post("/predict_file", files=[("file", ("a.txt", b"a"))]), 422, missing)
    assert_refused(classifier.post("/predict_file", {"files": []}), 422, missing)
    too_many = classifier.post("/predict_file", files=[("files", ("a.txt", b"a"))] * 6)
    assert_refused(too_many, 413, "The request has 6 files; send at most 5 at once.")


def test_uploads_leave_no_file_and_no_process_behind(classifier, letter):
    before = sorted(classifier.processes())
    classifier.post("/predict_file", files=[("files", ("letter.docx", letter))])
    assert sorted(classifier.processes()) == before


def test_info_says_what_is_served_and_no_path(classifier, engine):
    response = classifier.get("/info")
    assert response.json() == {
        "task": "classification",
        "labels": ["code", "invoice", "recipe"],
        "targets": [],
        "max_length": 48,
        "backend": "torch",
        "temperature": 1.0,
        "doctune_version": doctune.__version__,
        "limits": {"max_body_bytes": MAX_BODY_BYTES, "max_texts": 5, "max_chars": 1000, "max_requests": 256},
    }
    assert str(classifier.run.parent) not in response.text


def test_health_is_ok(classifier):
    assert classifier.get("/health").json() == {"status": "ok"}


def test_the_openapi_page_describes_requests_answers_and_refusals(classifier):
    assert classifier.get("/docs").status_code == 200
    described = classifier.get("/openapi.json").json()
    assert set(described["paths"]) == {"/predict", "/predict_file", "/ask", "/health", "/info"}
    predict = described["paths"]["/predict"]["post"]
    body = predict["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/PredictRequest"}
    assert set(described["components"]["schemas"]["PredictRequest"]["properties"]) == {
        "text",
        "texts",
        "top_k",
        "probabilities",
    }
    assert predict["responses"]["200"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/Predictions"
    }
    assert set(predict["responses"]) == {"200", "400", "409", "413", "422", "503", "504"}
    problem = predict["responses"]["413"]["content"]["application/json"]["schema"]
    assert problem == {"$ref": "#/components/schemas/Problem"}


def test_a_start_on_a_port_in_use_is_refused(classifier):
    port = classifier.url.rpartition(":")[2]
    command = [sys.executable, "-m", "doctune.cli.main", "serve", str(classifier.run), "--port", port]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        2,
        f"doctune: port {port} is in use; choose another one with --port.\n",
    )


def test_a_reader_answers_questions_and_gives_no_labels(known_reader, tmp_path):
    texts = ["We met in Lyon.", "The weather was fine. We met Maria Keller at noon."]
    with serving(known_reader, tmp_path / "log", signal_number=signal.SIGINT) as server:
        answers = server.post("/ask", {"question": "Who did it?", "texts": texts, "top_k": 2}).json()["answers"]
        alone = server.post("/ask", {"question": "Who did it?", "text": texts[0]}).json()["answers"]
        none = server.post("/ask", {"question": "Who did it?", "text": texts[0], "threshold": 1.0})
        refused = server.post("/predict", {"text": "a"})
        malformed = server.post("/ask", {"text": "a"})
        log = server.log()
    assert answers[0].pop("score") > 0.99
    assert answers[0] == {
        "text": "Maria Keller",
        "start": 29,
        "end": 41,
        "sentence": "We met Maria Keller at noon.",
        "sentence_start": 22,
        "index": 1,
    }
    assert [(answer["text"], answer["index"]) for answer in alone] == [("Lyon", 0)]
    assert none.json() == {"answers": []}
    sentence = (
        "The model that is served was trained for question_answering; labels need a classifier. This one answers "
        "questions: POST /ask."
    )
    assert_refused(refused, 409, sentence)
    assert_refused(malformed, 422, f"The request cannot be used: question is missing. {QUESTION_SENTENCE}")
    assert log == (
        f"doctune: serving question_answering (torch) at {server.url}, described at {server.url}/docs; Ctrl-C ends it\n"
    )
    assert server.log() == log, "a clean end says nothing more"


def test_several_targets_are_told_as_the_model_tells_them(tiny_model, tmp_path):
    model, text = tiny_model("multi_task"), "Take two eggs and sugar."
    (kind, tags) = next(load(model, backend="torch").predict_targets([text]))
    shutil.copytree(model, tmp_path / "run" / "model")
    with serving(tmp_path / "run", tmp_path / "log") as server:
        (told,) = server.post("/predict", {"text": text, "probabilities": True}).json()["predictions"]
        info = server.get("/info").json()
    assert told["targets"]["kind"]["labels"][0]["label"] == kind.labels[0]
    assert [each["label"] for each in told["targets"]["tags"]["labels"]] == list(tags.labels)
    assert [*told["targets"]["tags"]["probabilities"].values()] == pytest.approx(list(tags.probabilities), abs=1e-5)
    assert info["targets"] == [
        {"name": "kind", "kind": "single", "labels": ["x", "y"]},
        {"name": "tags", "kind": "multi", "labels": ["a", "b", "c"]},
    ]


def test_requests_beyond_the_limit_are_told_to_come_again_and_those_under_way_are_answered_at_the_end(
    tiny_model, engine, tmp_path
):
    def ask(number):
        return server.post("/predict", {"text": f"invoice {number}"})

    options = ("--max-requests", "2", "--batch-wait-ms", "3000", "--workers", "2")
    with serving(tiny_model(), tmp_path / "log", *options) as server, ThreadPoolExecutor(2) as clients:
        waiting = [clients.submit(ask, number) for number in range(2)]
        time.sleep(1)
        refused = ask(3)
        assert server.end(signal.SIGTERM) == 0
        answered = [each.result() for each in waiting]
    assert_refused(refused, 503, "2 requests are under way, as many as are taken; try again later.")
    assert refused.headers["Retry-After"] == "1"
    expected = [each.label for each in engine.predict(["invoice 0", "invoice 1"])]
    assert [each.json()["predictions"][0]["label"] for each in answered] == expected


def test_requests_that_wait_too_long_are_refused_and_a_worker_that_dies_ends_the_server(tiny_model, tmp_path):
    server = Server(tiny_model(), tmp_path / "log", "--timeout-s", "1e-9", "--batch-wait-ms", "0").wait_until_ready()
    late = server.post("/predict", {"text": "a"})
    os.kill(_workers(server)[0], signal.SIGKILL)
    assert server.process.wait(END_TIMEOUT_S) == 1
    assert server.is_gone()
    assert_refused(late, 504, "The request waited more than 1e-09 s for a worker; try again later.")
    sentence = "doctune: a worker process died, so the server has ended; its last words are above.\n"
    assert server.log().endswith(sentence)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_start_that_is_interrupted_ends_cleanly(tiny_model, tmp_path, number):
    server = Server(tiny_model(), tmp_path / "log")
    deadline = time.monotonic() + START_TIMEOUT_S
    while not _workers(server) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert server.end(number) == 0
    assert server.is_gone()
    assert "serving" not in server.log()


def test_a_model_that_cannot_be_loaded_ends_the_start_with_a_sentence(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model(), tmp_path / "model")
    (folder / "model.safetensors").write_bytes(b"no weights")
    server = Server(folder, tmp_path / "log")
    assert server.process.wait(START_TIMEOUT_S) == 2
    assert server.is_gone()
    lines = server.log().splitlines()
    assert lines[0].startswith(f"doctune: The model in {folder} cannot be loaded: ")
    assert lines[1:] == ["doctune: The model cannot be served: a worker process ended while it was loading it."]


def _workers(server):
    """The processes that compute."""
    found = []
    for pid in server.processes():
        with contextlib.suppress(OSError):  # it has just ended
            if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found
