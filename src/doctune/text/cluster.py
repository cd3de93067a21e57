"""Extraction on a Ray cluster: the files of a corpus, read by as many machines as there are.

The machines must see the same files under the same paths. Each task reads a batch in a sandbox of its own, as on one
machine, so that a file which crashes or hangs costs itself alone; a Ray worker or machine that dies costs the batches
that it had begun, which Ray gives to others.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from doctune.documents import Document
from doctune.errors import ConfigError
from doctune.text.sandbox import Limits, extract_files
from doctune.text.settings import ExtractSettings

# Files that a task reads: enough that starting a sandbox does not count, few enough that little is done again.
BATCH_FILES = 64


def extract_on_ray(
    paths: Sequence[Path],
    settings: ExtractSettings,
    limits: Limits,
    *,
    address: str | None = None,
    batch_files: int = BATCH_FILES,
) -> Iterator[Document]:
    """As `sandbox.extract_files`: one document for each path, in their order, with equal contents.

    Ray Data streams them (https://docs.ray.io/en/latest/data/data-internals.html): what is read and not yet asked for
    stays in the cluster's object store, whose size bounds it.

    Args:
        paths: files, as all machines see them.
        settings: how much is read and how it is prepared.
        limits: what one file may cost.
        address: of a running cluster, such as "auto" or "ray://host:10001"; None starts one on this machine's cores,
            which ends with the iterator, unless this process is connected to one already.
        batch_files: files of a task.

    Raises:
        ConfigError: ray is not installed, or no cluster is at the address.
    """
    ray = _ray()
    if ray.is_initialized():
        yield from _stream(ray, paths, settings, limits, batch_files)
        return
    _connect(ray, address)
    try:
        yield from _stream(ray, paths, settings, limits, batch_files)
    finally:
        ray.shutdown()


def _ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ConfigError(f"prepare.engine=ray needs {error.name}: pip install 'doctune[scale]'.") from error
    return ray


def _connect(ray: Any, address: str | None) -> None:
    on_terminate = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"prepare.ray_address={address}: no Ray cluster answers there ({reason}).") from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_terminate)  # Ray's own would end this process without a word


def _stream(
    ray: Any, paths: Sequence[Path], settings: ExtractSettings, limits: Limits, batch_files: int
) -> Iterator[Document]:
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    names = [os.fsencode(path) for path in paths]  # a name need not be text
    batches = [{"paths": names[start : start + batch_files]} for start in range(0, len(names), batch_files)]
    read = ray.data.from_items(batches, override_num_blocks=len(batches)).map(
        _read_batch, fn_kwargs={"settings": asdict(settings), "limits": asdict(limits)}
    )
    for row in read.iter_rows():
        for document in json.loads(row["documents"]):
            yield Document(**document | {"page_starts": tuple(document["page_starts"])})


def _read_batch(batch: dict[str, Any], settings: dict[str, Any], limits: dict[str, Any]) -> dict[str, bytes]:
    """What a task does. JSON keeps what Arrow's text would refuse, such as half of a surrogate pair in a path."""
    paths = [Path(os.fsdecode(name)) for name in batch["paths"]]
    documents = extract_files(paths, ExtractSettings(**settings), Limits(**limits), workers=1)
    return {"documents": json.dumps([asdict(document) for document in documents]).encode()}
