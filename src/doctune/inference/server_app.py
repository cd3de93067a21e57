"""The addresses of `doctune serve`: requests in, sentences or results out. What computes is given to it.

Every refusal is `{"detail": "…"}` with a sentence, and names no path of this machine.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from fastapi import FastAPI, Form, HTTPException, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from doctune import __version__
from doctune.decode.multi_task import TargetPrediction
from doctune.documents import Answer, Document, Prediction
from doctune.inference import server_messages as wire
from doctune.text.extract import ExtractSettings
from doctune.text.sandbox import Limits, available_cores, extract_files

BATCH_HEADER = "X-Batch-Requests"
RETRY_AFTER_S = 1
# A suffix tells kinds of plain text apart; the rest of a name that a client gives reaches no file system.
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,10}\Z")


@dataclass(frozen=True)
class PredictJob:
    """Texts that are to be labelled."""

    texts: tuple[str, ...]


@dataclass(frozen=True)
class AskJob:
    """A question to be answered from texts."""

    question: str
    texts: tuple[str, ...]
    n_best: int
    threshold: float | None


Job = PredictJob | AskJob
# What is predicted of a text: its label, or a record for each of several targets.
Predicted = Prediction | tuple[TargetPrediction, ...]


@dataclass(frozen=True)
class Computed:
    """What came of a job: one prediction per text, or answers whose path is the place of their text, from 0.

    `num_together` is the number of requests that were computed in one batch with it, itself included.
    """

    num_together: int
    predictions: tuple[Predicted, ...] = ()
    answers: tuple[Answer, ...] = ()


@dataclass(frozen=True)
class FileSettings:
    """How uploaded files are read."""

    extract: ExtractSettings
    limits: Limits


Compute = Callable[[Job], Awaitable[Computed]]
Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def make_app(
    info: wire.Info, files: FileSettings, compute: Compute, is_ready: Callable[[], bool], lifespan: Lifespan
) -> FastAPI:
    """The application.

    Args:
        info: what is served, and the limits that are kept.
        files: how uploaded files are read.
        compute: gives what came of a job, or raises HTTPException.
        is_ready: whether all workers can compute.
        lifespan: what is begun and ended with the application.
    """
    app = FastAPI(
        title="doctune", version=__version__, description=f"A model for {info.task} of documents.", lifespan=lifespan
    )
    endpoints = _Endpoints(info, files, compute, is_ready)
    for path, endpoint in (
        ("/predict", endpoints.predict),
        ("/predict_file", endpoints.predict_file),
        ("/ask", endpoints.ask),
    ):
        app.add_api_route(path, endpoint, methods=["POST"], response_model_exclude_none=True, responses=_REFUSALS)
    app.add_api_route("/health", endpoints.health, methods=["GET"], responses={503: {"model": wire.Problem}})
    app.add_api_route("/info", endpoints.info, methods=["GET"])
    app.add_middleware(RequestLimits, max_body_bytes=info.limits.max_body_bytes, max_requests=info.limits.max_requests)
    app.add_exception_handler(RequestValidationError, _refuse_unusable)
    app.add_exception_handler(StarletteHTTPException, _refuse)
    app.add_exception_handler(Exception, _fail)
    return app


_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": wire.Problem, "description": description}
    for status, description in {
        400: "The body cannot be parsed.",
        409: "The model that is served is of another kind.",
        413: "The request is too large.",
        422: "The request, or the only file of it, cannot be used.",
        503: "Too many requests are under way; Retry-After says when to try again.",
        504: "The request waited too long.",
    }.items()
}


class _Endpoints:
    """What the addresses do. The docstrings of the methods are shown on the OpenAPI page."""

    def __init__(self, info: wire.Info, files: FileSettings, compute: Compute, is_ready: Callable[[], bool]) -> None:
        self._info = info
        self._files = files
        self._compute = compute
        self._is_ready = is_ready
        # Each reads files in a process of its own.
        self._readers = asyncio.Semaphore(available_cores())

    async def predict(self, request: wire.PredictRequest, response: Response) -> wire.Predictions:
        """Label one or several texts."""
        self._needs_classifier()
        texts = request.all_texts()
        self._check_count(len(texts), "texts")
        for place, text in enumerate(texts):
            self._check_chars(f"Text {place} (counted from 0) has", len(text))
        found = await self._predictions(texts, response)
        return wire.Predictions(predictions=[self._shown(each, request.top_k, request.probabilities) for each in found])

    async def predict_file(
        self,
        response: Response,
        files: list[UploadFile],
        top_k: Annotated[int, Form(ge=1)] = 1,
        probabilities: Annotated[bool, Form()] = False,
    ) -> wire.FilePredictions:
        """Label one or several files of any kind: a single file that cannot be read is refused, one of several is a
        row with the reason."""
        self._needs_classifier()
        self._check_count(len(files), "files")
        documents = await self._read(files)
        if len(documents) == 1:
            _refuse_without_text(documents[0])
        found = await self._predictions(tuple(each.text for each in documents if each.status == "ok"), response)
        shown = iter([self._shown(each, top_k, probabilities) for each in found])
        return wire.FilePredictions(
            predictions=[_row(each, next(shown) if each.status == "ok" else None) for each in documents]
        )

    async def ask(self, request: wire.AskRequest, response: Response) -> wire.Answers:
        """Answer a question from one or several texts, which are read as one."""
        self._needs_reader()
        texts = request.all_texts()
        self._check_count(len(texts), "texts")
        self._check_chars("What is to be read has", sum(len(text) for text in texts))
        computed = await self._compute(AskJob(request.question, texts, request.top_k, request.threshold))
        response.headers[BATCH_HEADER] = str(computed.num_together)
        answers = [asdict(answer) for answer in computed.answers]
        return wire.Answers(answers=[wire.FoundAnswer(**each, index=int(each["path"])) for each in answers])

    def health(self) -> wire.Health:
        """Whether every worker has its model."""
        if not self._is_ready():
            raise HTTPException(503, "The model is still being loaded.", _RETRY)
        return wire.Health()

    async def info(self) -> wire.Info:
        """What is served, and how large a request may be."""
        return self._info

    def _needs_classifier(self) -> None:
        if self._is_reader():
            self._refuse_kind("labels need a classifier. This one answers questions: POST /ask.")

    def _needs_reader(self) -> None:
        if not self._is_reader():
            self._refuse_kind("questions need a reader. This one gives labels: POST /predict or /predict_file.")

    def _is_reader(self) -> bool:
        return self._info.task == "question_answering"

    def _refuse_kind(self, wanted: str) -> None:
        raise HTTPException(409, f"The model that is served was trained for {self._info.task}; {wanted}")

    def _check_chars(self, subject: str, count: int) -> None:
        limit = self._info.limits.max_chars
        if count > limit:
            raise HTTPException(413, f"{subject} {count:,} characters; at most {limit:,} are taken.")

    def _check_count(self, count: int, kind: str) -> None:
        limit = self._info.limits.max_texts
        if count > limit:
            raise HTTPException(413, f"The request has {count:,} {kind}; send at most {limit:,} at once.")

    async def _predictions(self, texts: tuple[str, ...], response: Response) -> Sequence[Predicted]:
        if not texts:
            return ()
        computed = await self._compute(PredictJob(texts))
        response.headers[BATCH_HEADER] = str(computed.num_together)
        return computed.predictions

    def _shown(self, predicted: Predicted, top_k: int, probabilities: bool) -> wire.Labelled | wire.Told:
        if isinstance(predicted, Prediction):
            asked = _asked_for(self._info.labels, predicted.probabilities, top_k, probabilities)
            return wire.Labelled(label=predicted.label, score=predicted.score, **asked)
        told = zip(self._info.targets, predicted, strict=True)
        return wire.Told(
            targets={target.name: _of_target(target.labels, each, top_k, probabilities) for target, each in told}
        )

    async def _read(self, uploads: Sequence[UploadFile]) -> list[Document]:
        """The document of each upload, in order, under the name that it was sent with."""
        async with self._readers:
            contents = [(upload.filename or "", upload.file) for upload in uploads]
            return await asyncio.to_thread(_extract, contents, self._files)


def _refuse_without_text(document: Document) -> None:
    if document.status != "ok":
        reason = document.reason.rstrip(".")
        raise HTTPException(422, f"{document.path} gives no text ({document.status}): {reason}.")


def _of_target(
    labels: Sequence[str], prediction: TargetPrediction, top_k: int, probabilities: bool
) -> wire.TargetLabels:
    applying = [
        wire.LabelScore(label=label, score=prediction.probabilities[labels.index(label)]) for label in prediction.labels
    ]
    return wire.TargetLabels(labels=applying, **_asked_for(labels, prediction.probabilities, top_k, probabilities))


def _asked_for(labels: Sequence[str], chances: Sequence[float], top_k: int, probabilities: bool) -> dict[str, Any]:
    """The fields of an answer that are given on request only."""
    chance_of = dict(zip(labels, chances, strict=True))
    best = sorted(chance_of, key=lambda label: -chance_of[label])[:top_k]
    return {
        "top": [wire.LabelScore(label=label, score=chance_of[label]) for label in best] if top_k > 1 else None,
        "probabilities": chance_of if probabilities else None,
    }


def _row(document: Document, labelled: wire.Labelled | wire.Told | None) -> wire.LabelledFile:
    found = labelled.model_dump() if labelled is not None else {}
    return wire.LabelledFile(file=document.path, status=document.status, reason=document.reason, **found)


def _extract(uploads: Sequence[tuple[str, BinaryIO]], settings: FileSettings) -> list[Document]:
    with tempfile.TemporaryDirectory(prefix="doctune-") as folder:
        paths = []
        for number, (name, content) in enumerate(uploads):
            suffix = _SUFFIX.search(name)
            paths.append(Path(folder) / f"{number}{suffix[0] if suffix else ''}")
            with paths[-1].open("wb") as file:
                shutil.copyfileobj(content, file)
        documents = list(extract_files(paths, settings.extract, settings.limits, workers=1))
    return [
        Document(name, each.status, each.reason.replace(f"{folder}/", ""), each.format, each.text)
        for (name, _), each in zip(uploads, documents, strict=True)
    ]


class RequestLimits:
    """ASGI middleware: refuses a POST when too many are under way, or when its body is too large.

    Neither is read first: a declared length is refused at once, an undeclared one as soon as it is exceeded.

    Args:
        app: what answers the others.
        max_body_bytes: of a request.
        max_requests: that are answered at the same time.
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int, max_requests: int) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._max_requests = max_requests
        self._num_under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
        elif _declared_length(scope) > self._max_body_bytes:
            await _problem(413, self._too_large())(scope, receive, send)
        elif self._num_under_way >= self._max_requests:
            sentence = f"{self._num_under_way} requests are under way, as many as are taken; try again later."
            await _problem(503, sentence, _RETRY)(scope, receive, send)
        else:
            self._num_under_way += 1
            try:
                await self._app(scope, self._bounded(receive), send)
            finally:
                self._num_under_way -= 1

    def _bounded(self, receive: Receive) -> Receive:
        num_bytes = 0

        async def bounded() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > self._max_body_bytes:
                raise HTTPException(413, self._too_large())
            return message

        return bounded

    def _too_large(self) -> str:
        return f"The body is larger than {self._max_body_bytes:,} bytes, the most that is taken; send less at once."


_RETRY = {"Retry-After": str(RETRY_AFTER_S)}


def _declared_length(scope: Scope) -> int:
    """Bytes of the body; 0 where the client does not say."""
    declared = dict(scope["headers"]).get(b"content-length", b"")
    return int(declared) if declared.isdigit() else 0


def _problem(status: int, sentence: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": sentence}, status, headers)


async def _refuse_unusable(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    problems = error.errors()
    status = 400 if wire.is_no_json(problems) else 422
    return _problem(status, wire.refusal(request.url.path, problems))


async def _refuse(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, StarletteHTTPException)
    path = request.url.path
    sentence = str(error.detail)
    if error.status_code == 404:
        sentence = f"There is nothing at {path}; /docs lists what there is."
    elif error.status_code == 405:
        sentence = f"{request.method} is not what {path} takes; /docs says what it does."
    elif error.status_code == 400:  # from the parsers of bodies, in their words
        sentence = f"The request cannot be used: {sentence.rstrip('.')}. {wire.EXPECTED.get(path, '')}".rstrip()
    return _problem(error.status_code, sentence, dict(error.headers or {}))


async def _fail(request: Request, error: Exception) -> JSONResponse:
    return _problem(500, "The server failed on this request; its log says why.")
