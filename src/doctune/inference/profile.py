"""What a reader costs where it is used: measured in a process of its own, in which nothing has been trained."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from doctune.inference.engine import load
from doctune.text.memory import resident_bytes

# Fewer say nothing of percentiles, more would keep a run waiting.
MIN_QUESTIONS, MAX_QUESTIONS = 30, 100
_WARM_UP = 3


def profile_reader(folder: Path, pairs: Sequence[tuple[str, str]]) -> dict[str, Any] | None:
    """Latency, throughput and memory of a model folder's reader; None for too few questions.

    Args:
        folder: the `model/` folder.
        pairs: (question, context).
    """
    if len(pairs) < MIN_QUESTIONS:
        return None
    command = [sys.executable, "-m", "doctune.inference.profile", str(folder)]
    asked = json.dumps(list(pairs[:MAX_QUESTIONS]))
    done = subprocess.run(command, input=asked, capture_output=True, text=True, encoding="utf-8", check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(folder: Path, pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Ask one question after the other: questions/s, milliseconds of each as percentiles, resident MB."""
    engine = load(folder)
    for question, context in pairs[:_WARM_UP]:
        engine.ask(question, context)
    milliseconds = []
    for question, context in pairs:
        begun = time.perf_counter()
        engine.ask(question, context)
        milliseconds.append(1000 * (time.perf_counter() - begun))
    resident = resident_bytes(os.getpid())
    p50, p90, p99 = np.percentile(milliseconds, [50, 90, 99]).round(1).tolist()
    return {
        "questions": len(pairs),
        "questions_per_s": round(1000 * len(pairs) / sum(milliseconds), 1),
        "latency_ms": {"p50": p50, "p90": p90, "p99": p99},
        "memory_mb": resident and round(resident / 1e6),
    }


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), json.load(sys.stdin))))
