"""Fine-tune transformers on your own documents.

>>> from doctune import load
>>> engine = load("outputs/2026-01-31/12-00-00")
>>> [prediction.label for prediction in engine.predict(["Dear Sir or Madam, …"])]
['letter']
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from doctune.inference.engine import Engine

__version__ = "0.1.0"


def load(run: str | Path, *, backend: str | None = None, batch_size: int = 16) -> Engine:
    """The model of a run folder or of a `model/` folder, ready to use: see `doctune.inference.engine.load`."""
    from doctune.inference import engine

    return engine.load(run, backend=backend, batch_size=batch_size)
