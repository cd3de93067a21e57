"""How fast are documents labelled from an exported folder?

    doctune export RUN --int8
    python benchmarks/predict_speed.py RUN

Claim: on a CPU, exported int8 labels at least 4 times the documents per second of `transformers.pipeline`, with at
least 99 % equal labels.

The documents are real: files of the run's validation and test parts, read again, 500 of them unless there are fewer.
All ways get the same texts, tokenisation included, and all cores. The peer is the text-classification
pipeline in full precision with `truncation=True`, at the best of several batch sizes, which is sought first on a part
of the documents; given without an order, as people give them, and once more sorted by length, as an expert would.
doctune runs `load(RUN, backend=…).predict(texts)` with torch, with ONNX in full precision, and with int8.

Each measurement is a process of its own that has labelled a few documents before the clock starts. The ways take turns;
of the repeats the median counts, and the range stands beside it; a ratio is that to the pipeline in the same turn.
Memory is the process's largest, less what it had before the model was loaded. Exit status 1 if a claim is not met.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

RATIO = 4.0
AGREEMENT = 0.99
WAYS = ("pipeline", "pipeline, sorted", "torch", "onnx", "int8")
BATCH_SIZES = (1, 8, 32)
WARM_UP = 8
TRIED = 60


def documents(run: Path, count: int) -> list[str]:
    """Texts of the run's judged files, in an order that says nothing."""
    import random

    from doctune.inference.artifact import load_artifact
    from doctune.inference.examples import TextExamples, validation_examples

    artifact = load_artifact(run)
    texts: list[str] = []
    for part in ("val", "test"):
        examples = validation_examples(run, artifact, part)
        if not isinstance(examples, TextExamples):
            sys.exit(f"{run} is no classifier.")
        texts += examples.texts
    return random.Random(0).sample(texts, min(count, len(texts)))


def labeller(way: str, run: Path, batch_size: int) -> Callable[[Sequence[str]], list[str]]:
    """A function: texts -> their labels."""
    if not way.startswith("pipeline"):
        from doctune import load

        engine = load(run, backend=way)
        return lambda texts: [prediction.label for prediction in engine.predict(texts)]
    from transformers import pipeline

    pipe = pipeline("text-classification", model=str(run / "model"), device="cpu", batch_size=batch_size)

    def label(texts: Sequence[str]) -> list[str]:
        order = list(range(len(texts)))
        if way.endswith("sorted"):
            order.sort(key=lambda place: len(texts[place]))
        answers = pipe([texts[place] for place in order], truncation=True)
        found = {place: answer["label"] for place, answer in zip(order, answers, strict=True)}
        return [found[place] for place in range(len(texts))]

    return label


def measure(way: str, run: Path, texts: Sequence[str], batch_size: int) -> dict[str, Any]:
    """In this process: the labels, the seconds that they took, and the memory that it took."""
    before = megabytes("VmRSS")
    label = labeller(way, run, batch_size)
    label(texts[:WARM_UP])
    begun = time.perf_counter()
    labels = label(texts)
    seconds = time.perf_counter() - begun
    return {
        "labels": labels,
        "seconds": seconds,
        "memory_mb": megabytes("VmHWM") - before,
    }


def megabytes(name: str) -> float:
    """Of this process's memory, as Linux counts it: VmRSS now, VmHWM at most so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(name))


def in_a_process(way: str, run: Path, texts: Sequence[str], batch_size: int, folder: Path) -> dict[str, Any]:
    """`measure` in a process of its own."""
    given, found = folder / "texts.json", folder / "found.json"
    given.write_text(json.dumps(list(texts)))
    command = [sys.executable, __file__, str(run), "--way", way, "--given", str(given), "--found", str(found)]
    subprocess.run([*command, "--batch-size", str(batch_size)], check=True)
    result: dict[str, Any] = json.loads(found.read_text())
    return result


def best_batch_size(way: str, run: Path, texts: Sequence[str], folder: Path) -> int:
    """That at which the pipeline is fastest on some of the documents."""
    tried = texts[:TRIED]
    return min(BATCH_SIZES, key=lambda size: in_a_process(way, run, tried, size, folder)["seconds"])


def compare(run: Path, texts: Sequence[str], repeats: int) -> bool:
    """Print the table; whether the claims are met."""
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores")
    print(f"{len(texts)} documents of {run.name}, {sum(map(len, texts)) / len(texts):,.0f} characters on average")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sizes = {way: best_batch_size(way, run, texts, folder) for way in WAYS if way.startswith("pipeline")}
        found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
        for _ in range(repeats):
            for way in WAYS:
                found[way].append(in_a_process(way, run, texts, sizes.get(way, 0), folder))
    truth = found["pipeline"][0]["labels"]
    rates = {way: sorted(len(texts) / each["seconds"] for each in found[way]) for way in WAYS}
    ratios = {
        way: sorted(peer["seconds"] / each["seconds"] for peer, each in zip(found["pipeline"], found[way], strict=True))
        for way in WAYS
    }
    print(f"\n{'way':<21} {'documents/s':>11} {'range':>16} {'ratio':>6} {'range':>14} {'MB':>5} {'same labels':>12}")
    agreements = {}
    for way in WAYS:
        labels = found[way][0]["labels"]
        agreements[way] = sum(one == other for one, other in zip(labels, truth, strict=True)) / len(truth)
        memory = max(each["memory_mb"] for each in found[way])
        batch = f" ({sizes[way]})" if way in sizes else ""
        spread = f"{rates[way][0]:.1f} to {rates[way][-1]:.1f}"
        of_ratio = f"{ratios[way][0]:.2f} to {ratios[way][-1]:.2f}"
        print(
            f"{way + batch:<21} {median(rates[way]):>11.1f} {spread:>16} {median(ratios[way]):>6.2f} {of_ratio:>14} "
            f"{memory:>5.0f} {agreements[way]:>12.2%}"
        )
    print("\nIn brackets: the pipeline's best batch size.")
    return median(ratios["int8"]) >= RATIO and agreements["int8"] >= AGREEMENT


def main() -> int:
    """Compare, or be one of the processes that are compared."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder, exported with --int8")
    parser.add_argument("--documents", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--batch-size", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--given", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--found", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way is not None:
        texts = json.loads(args.given.read_text())
        args.found.write_text(json.dumps(measure(args.way, args.run, texts, args.batch_size)))
        return 0
    return 0 if compare(args.run, documents(args.run, args.documents), args.repeats) else 1


if __name__ == "__main__":
    sys.exit(main())
