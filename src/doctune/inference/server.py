"""`doctune serve`: a model behind HTTP, by LitServe.

LitServe brings the worker processes, the queue to them and the batches; the addresses are `server_app`. Three parts of
LitServe 0.2 are replaced here, each where it says why: how a worker waits, how starting is watched, how it all ends.

One process answers HTTP and reads uploads (in sandboxed processes of their own), `workers` processes compute.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing.managers import SyncManager
from pathlib import Path
from queue import Empty, Queue
from types import FrameType
from typing import Any

import litserve
from fastapi import FastAPI, HTTPException
from litserve.loops.base import _SENTINEL_VALUE, _StopLoopError
from litserve.loops.simple_loops import BatchedLoop
from litserve.server import RegularRequestHandler
from litserve.utils import WorkerSetupStatus
from starlette.formparsers import MultiPartParser

from doctune import __version__
from doctune.documents import Answer, Document
from doctune.errors import ArtifactError, ConfigError, DoctuneError
from doctune.inference import server_messages as wire
from doctune.inference.artifact import Artifact, load_artifact
from doctune.inference.engine import Engine, load
from doctune.inference.nets import choose_backend
from doctune.inference.server_app import AskJob, Computed, FileSettings, Job, Predicted, PredictJob, make_app
from doctune.text.sandbox import Limits

HOSTS = ("127.0.0.1", "0.0.0.0", "::")
# LitServe keeps uploads in memory whatever their size, to hand them to workers. Here they stay in this process.
MultiPartParser.spool_max_size = 1024 * 1024
_MIB = 1024 * 1024
_IDLE_S = 1.0
_WATCH_PAUSE_S = 0.05
# LitServe names its queue by an address.
_QUEUE = "/compute"


@dataclass(frozen=True)
class ServerSettings:
    """How a model is served.

    Attributes:
        host: one of `HOSTS`.
        port: from 1024, which is LitServe's rule.
        backend: "int8", "onnx" or "torch"; None: the fastest that is exported.
        workers: processes that compute, each with a copy of the model.
        batch_size: requests computed together at most, and texts per forward pass.
        batch_wait_ms: how long a request waits for others to be computed with.
        timeout_s: a request that has waited so long for a worker is refused.
        max_body_mb: megabytes of a request.
        max_texts: texts or files of a request.
        max_chars: characters of a text to be labelled, and of all texts of a question together; files are read as far
            as the model needs them.
        max_requests: requests under way at the same time.
        files: what reading one uploaded file may cost.

    Raises:
        ConfigError: a value is not possible.
    """

    host: str = HOSTS[0]
    port: int = 8000
    backend: str | None = None
    workers: int = 1
    batch_size: int = 16
    batch_wait_ms: float = 5.0
    timeout_s: float = 30.0
    max_body_mb: float = 16.0
    max_texts: int = 256
    max_chars: int = 200_000
    max_requests: int = 256
    files: Limits = field(default_factory=lambda: Limits(timeout_s=10.0))

    def __post_init__(self) -> None:
        if self.host not in HOSTS:
            raise ConfigError(f"host is {self.host!r}; LitServe listens on one of: {', '.join(HOSTS)}.")
        if not 1024 <= self.port <= 65535:
            raise ConfigError(f"port is {self.port}; use a number from 1024 to 65535.")
        for name in ("workers", "batch_size", "max_texts", "max_chars", "max_requests"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; use a number from 1.")
        for name in ("timeout_s", "max_body_mb"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} is {getattr(self, name):g}; use a number above 0.")
        if not 0 <= self.batch_wait_ms / 1000 < self.timeout_s:
            raise ConfigError(
                f"batch_wait_ms is {self.batch_wait_ms:g}; use a number from 0, and shorter than timeout_s "
                f"({self.timeout_s:g} s)."
            )


def serve(run: Path, settings: ServerSettings) -> bool:
    """Serve until SIGINT, SIGTERM or SIGHUP; requests under way are then answered first, and all processes ended.

    Args:
        run: a run folder or a `model/` folder.
        settings: how.

    Returns:
        Whether it ended because it was asked to; else a worker process had died.

    Raises:
        ArtifactError: there is no usable model, or none for this backend.
        ConfigError: the port is in use, or the system cannot fork.
    """
    if not hasattr(os, "fork"):
        raise ConfigError("doctune serve needs a system that can fork, such as Linux or macOS.")
    artifact = load_artifact(run)
    backend = choose_backend(artifact, settings.backend)
    _check_port(settings)
    server = _Server(artifact, backend, settings)
    with _signals_interrupt(), _no_process_left():
        try:
            server.run(
                settings.host,
                settings.port,
                num_api_servers=1,  # so that one process counts the requests under way
                log_level="warning",
                generate_client_file=False,
            )
        except KeyboardInterrupt:  # while it was starting
            return True
    return server.was_asked_to_end


class Worker(litserve.LitAPI):
    """What each worker process runs.

    Args:
        folder: of the model.
        backend: what computes.
        settings: how it is served.
    """

    def __init__(self, folder: Path, backend: str, settings: ServerSettings) -> None:
        super().__init__(
            max_batch_size=settings.batch_size,
            batch_timeout=settings.batch_wait_ms / 1000,
            api_path=_QUEUE,
            loop=WaitingLoop(),
        )
        self._folder = folder
        self._backend = backend
        self._batch_size = settings.batch_size
        self._engine: Engine | None = None

    def setup(self, device: str) -> None:
        """Load the model; a failure is said in a sentence and ends the process."""
        os.setpgrp()  # Ctrl-C reaches the whole group of a terminal; only the first process is to end the others
        try:
            self._engine = load(self._folder, backend=self._backend, batch_size=self._batch_size)
        except DoctuneError as error:
            print(f"doctune: {error}", file=sys.stderr, flush=True)
            raise SystemExit(2) from error

    def predict(self, jobs: Sequence[Job]) -> list[Computed]:
        """What comes of each job of a batch, in order; the texts of all are computed together."""
        assert self._engine is not None, "setup comes first"
        texts = [text for job in jobs if isinstance(job, PredictJob) for text in job.texts]
        labelled = _predicted(self._engine, texts) if texts else iter(())  # a reader labels nothing
        return [
            Computed(len(jobs), predictions=tuple(islice(labelled, len(job.texts))))
            if isinstance(job, PredictJob)
            else Computed(len(jobs), answers=_answers(self._engine, job))
            for job in jobs
        ]


def _predicted(engine: Engine, texts: Sequence[str]) -> Iterator[Predicted]:
    return engine.predict_targets(texts) if engine.artifact.targets else engine.predict(texts)


def _answers(engine: Engine, job: AskJob) -> tuple[Answer, ...]:
    documents = [Document(str(place), "ok", "", "text", text) for place, text in enumerate(job.texts)]
    return tuple(engine.answer_all([job.question], documents, job.n_best, job.threshold)[0])


class WaitingLoop(BatchedLoop):
    """Sleeps until there is a request, then waits for others.

    LitServe's own loop asks its queue a thousand times a second, which kept a sixth of a core busy without a request
    (0.2.19, 2026-11); this one keeps less than a hundredth busy.
    """

    def get_batch_requests(
        self, lit_api: litserve.LitAPI, request_queue: Queue[Any], transport: Any
    ) -> tuple[list[tuple[int, str, Job]], list[tuple[int, str]]]:
        """The next batch, and the requests that have waited too long; both empty after an idle second."""
        batch: list[tuple[int, str, Job]] = []
        late: list[tuple[int, str]] = []
        deadline = time.monotonic() + _IDLE_S
        while len(batch) < lit_api.max_batch_size:
            try:
                request = request_queue.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                break
            if request == _SENTINEL_VALUE:
                raise _StopLoopError()
            consumer, uid, sent_at, job = request
            if not batch:
                deadline = time.monotonic() + lit_api.batch_timeout
            if time.monotonic() - sent_at > lit_api.request_timeout:
                late.append((consumer, uid))
            else:
                batch.append((consumer, uid, job))
        return batch, late


class _Server(litserve.LitServer):
    """LitServe with our addresses.

    Attributes:
        was_asked_to_end: whether a signal ended it.
    """

    def __init__(self, artifact: Artifact, backend: str, settings: ServerSettings) -> None:
        worker = Worker(artifact.folder, backend, settings)
        super().__init__(worker, accelerator="cpu", workers_per_device=settings.workers, timeout=settings.timeout_s)
        self.was_asked_to_end = False
        self._welcome = f"serving {artifact.task} ({backend}) at {_url(settings)}, described at {_url(settings)}/docs"
        self._requests = RegularRequestHandler(worker, self)
        self._ending = threading.Lock()
        self._has_ended = False
        # LitServe's own application passes requests on unchecked; ours takes its place, on the same queue.
        self.app: FastAPI = make_app(
            _info(artifact, backend, settings),
            FileSettings(artifact.extract, settings.files),
            self._compute,
            self._is_ready,
            self._begin_and_end,
        )

    def verify_worker_status(self) -> None:
        """Wait for a worker to be ready; LitServe's own would wait for ever for one that was killed while loading.

        Raises:
            ArtifactError: one has ended.
        """
        while WorkerSetupStatus.READY not in self.workers_setup_status.values():
            if not all(process.is_alive() for process in self.inference_workers):
                raise ArtifactError("The model cannot be served: a worker process ended while it was loading it.")
            time.sleep(_WATCH_PAUSE_S)

    def _perform_graceful_shutdown(self, manager: Any, uvicorn_workers: Any, shutdown_reason: str = "normal") -> None:
        """End all processes, once: both the main thread and the one that watches the workers come here."""
        with self._ending:
            if self._has_ended:
                return
            self._has_ended = True
            self.was_asked_to_end = shutdown_reason == "keyboard_interrupt"
            # Else the watching thread takes workers that are ended here for dead ones. From a thread of its own, since
            # the main thread's connection still waits for this event.
            setter = threading.Thread(target=self._shutdown_event.set)
            setter.start()
            setter.join()
            super()._perform_graceful_shutdown(manager, uvicorn_workers, shutdown_reason)

    async def _compute(self, job: Job) -> Computed:
        try:
            computed: Computed = await self._requests.handle_request(job, type(job))
        except HTTPException as error:
            if error.status_code != 504:
                raise RuntimeError("a worker process failed on a request; its own words are above") from error
            sentence = f"The request waited more than {self.timeout:g} s for a worker; try again later."
            raise HTTPException(504, sentence) from error
        return computed

    def _is_ready(self) -> bool:
        return all(status == WorkerSetupStatus.READY for status in self.workers_setup_status.values())

    @asynccontextmanager
    async def _begin_and_end(self, app: FastAPI) -> AsyncIterator[None]:
        os.setpgrp()  # as in `Worker.setup`
        async with self.lifespan(app):
            print(f"doctune: {self._welcome}; Ctrl-C ends it", file=sys.stderr, flush=True)
            yield


def _info(artifact: Artifact, backend: str, settings: ServerSettings) -> wire.Info:
    return wire.Info(
        task=artifact.task,
        labels=list(artifact.labels.names),
        targets=[
            wire.TargetInfo(name=spec.name, kind=spec.kind, labels=list(spec.labels.names))
            for spec in (target.spec for target in artifact.targets)
        ],
        max_length=artifact.max_length,
        backend=backend,
        temperature=artifact.temperature,
        doctune_version=__version__,
        limits=wire.Limits(
            max_body_bytes=int(settings.max_body_mb * _MIB),
            max_texts=settings.max_texts,
            max_chars=settings.max_chars,
            max_requests=settings.max_requests,
        ),
    )


def _url(settings: ServerSettings) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{settings.port}"


def _check_port(settings: ServerSettings) -> None:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise ConfigError(f"port {settings.port} is in use; choose another one with --port.") from error


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """The first signal to end raises KeyboardInterrupt; later ones do nothing, nor does any in a fork of this one."""
    owner = os.getpid()
    is_first = True

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal is_first
        if os.getpid() == owner and is_first:
            is_first = False
            raise KeyboardInterrupt

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup
        numbers.append(signal.SIGHUP)
    former = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@contextmanager
def _no_process_left() -> Iterator[None]:
    """LitServe ends its processes only if it had come to serve; before, they hold nothing and are killed.

    All but the one of its queues, which Python ends with this one, and with it its temporary folder.
    """
    try:
        yield
    finally:
        for process in multiprocessing.active_children():
            if not process.name.startswith(SyncManager.__name__):
                process.kill()
                process.join()
