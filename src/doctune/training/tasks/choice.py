"""Which task a configuration asks for."""

from __future__ import annotations

from pathlib import Path

from doctune.errors import ConfigError
from doctune.training.config import Config
from doctune.training.record import RunRecord
from doctune.training.tasks import chunks, classification, instructions, multi_task, squad
from doctune.training.tasks.task import Task

PREPARATIONS = {
    "file_content": classification.prepare,
    "chunks": chunks.prepare,
    "squad": squad.prepare,
    "multi_task": multi_task.prepare,
    "instructions": instructions.prepare,
}


def prepare_task(config: Config, run: Path, record: RunRecord) -> Task:
    """The task of this kind of data, with its documents and its encoder.

    Raises:
        DoctuneError: no such kind, or the data or the model cannot be used.
    """
    prepare = PREPARATIONS.get(config.data.kind)
    if prepare is None:
        raise ConfigError(f"data.kind={config.data.kind} is not a kind of data set that can be trained on.")
    return prepare(config, run, record)
