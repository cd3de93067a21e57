"""Serve the model of a finished run over HTTP: labels for texts and uploaded files, answers to questions.

POST /predict takes {"text": "…"} or {"texts": ["…"]}, POST /predict_file one or several uploaded files, POST /ask
{"question": "…", "text": "…"}; GET /health and GET /info say how it stands and what is served; /docs describes it all.
Requests that come together are computed together. What cannot be used is refused with a sentence in "detail": 413 if it
is too large, 503 if too many requests are under way.

There is no authentication: it listens on this machine only, unless --host says otherwise. Ctrl-C or SIGTERM ends it
when the requests under way are answered.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from doctune.errors import ConfigError

EXAMPLE = "doctune serve outputs/2026-01-31/12-00-00 --port 8000"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `doctune serve`."""
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="a finished run's folder, or its model/ folder")
    add("--host", default="127.0.0.1", help="127.0.0.1: this machine only; 0.0.0.0 or ::: any (default: %(default)s)")
    add("--port", type=int, default=8000, metavar="N", help="default: %(default)s")
    add("--backend", choices=("int8", "onnx", "torch"), help="default: the fastest that is exported")
    add("--workers", type=int, default=1, metavar="N", help="processes, each with a copy of the model (default: 1)")
    add("--batch-size", type=int, default=16, metavar="N", help="requests computed together (default: %(default)s)")
    add("--batch-wait-ms", type=float, default=5, metavar="MS", help="wait for such requests (default: %(default)s)")
    add("--timeout-s", type=float, default=30, metavar="S", help="a request waits no longer (default: %(default)s)")
    add("--max-body-mb", type=float, default=16, metavar="MB", help="of a request (default: %(default)s)")
    add("--max-texts", type=int, default=256, metavar="N", help="texts or files of a request (default: %(default)s)")
    add(
        "--max-chars",
        type=int,
        default=200_000,
        metavar="N",
        help="characters of a text, or of all that a question is put to (default: %(default)s)",
    )
    add("--max-requests", type=int, default=256, metavar="N", help="requests under way (default: %(default)s)")
    add("--file-timeout-s", type=float, default=10, metavar="S", help="to read an upload (default: %(default)s)")
    add("--file-memory-mb", type=int, default=2048, metavar="MB", help="to read an upload (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Serve until asked to end."""
    try:
        from doctune.inference.server import ServerSettings, serve
    except ModuleNotFoundError as error:
        raise ConfigError(f"Serving needs {error.name}: pip install 'doctune[serve]'.") from error
    from doctune.text.sandbox import Limits

    settings = ServerSettings(
        host=args.host,
        port=args.port,
        backend=args.backend,
        workers=args.workers,
        batch_size=args.batch_size,
        batch_wait_ms=args.batch_wait_ms,
        timeout_s=args.timeout_s,
        max_body_mb=args.max_body_mb,
        max_texts=args.max_texts,
        max_chars=args.max_chars,
        max_requests=args.max_requests,
        files=Limits(args.file_timeout_s, args.file_memory_mb),
    )
    if settings.host != "127.0.0.1":
        print(
            f"doctune: listening on {settings.host}, where other machines can reach it: there is no authentication. "
            "Put a proxy that has it in front.",
            file=sys.stderr,
        )
    if serve(args.run, settings):
        return 0
    print("doctune: a worker process died, so the server has ended; its last words are above.", file=sys.stderr)
    return 1
