"""Near-duplicate groups of real files: minutes and memory, beside plain datasketch on a part of them, in one run.

python benchmarks/near_duplicates.py --count 50000
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import re
import resource
import sys
import sysconfig
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from doctune.corpus.duplicates import DuplicateGroups, duplicate_groups, similarity
from doctune.corpus.scan import read_head, walk
from doctune.corpus.store import TextStore
from doctune.documents import Document
from doctune.text.memory import resident_bytes
from doctune.text.sandbox import extract_files
from doctune.text.settings import ExtractSettings

# What a window of 512 tokens can need; see training.
SETTINGS = ExtractSettings(max_chars=4096)
MAX_BYTES = 200_000


def main() -> None:
    """Print what extraction, grouping and the peer take."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--roots", nargs="+", type=Path, default=[Path(sysconfig.get_path("purelib")), Path("/usr")])
    parser.add_argument("--count", type=int, default=50_000, help="files at most")
    parser.add_argument("--peer-count", type=int, default=1_000, help="files for the comparison with the peer")
    parser.add_argument("--threshold", type=float, default=0.8)
    args = parser.parse_args()
    paths = _text_files(args.roots, args.count)
    with tempfile.TemporaryDirectory() as cache:
        _extract(Path(cache), paths)
        # A process of its own, so that the peak is that of grouping alone. It reads no file: all texts are stored.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            pool.submit(_group, Path(cache), paths, args.threshold).result()
            pool.submit(_compare, Path(cache), paths[: args.peer_count], args.threshold).result()


def _text_files(roots: Sequence[Path], count: int) -> list[Path]:
    """Up to `count` files without NUL bytes at their start, chosen by a fixed seed."""
    seen: set[tuple[int, int]] = set()
    entries = (entry for root in roots for entry in walk(root, seen_folders=seen))
    found = [Path(entry.path) for entry in entries if not entry.reason and 0 < entry.num_bytes <= MAX_BYTES]
    random.Random(0).shuffle(found)
    chosen: list[Path] = []
    for path in found:
        if len(chosen) == count:
            break
        if b"\0" not in read_head(str(path)):
            chosen.append(path)
    return chosen


def _extract(cache: Path, paths: Sequence[Path]) -> None:
    def extract(missing: Sequence[Path]) -> Iterator[Document]:
        return extract_files(missing, SETTINGS)

    start = time.perf_counter()
    TextStore(cache, SETTINGS.key()).fill(paths, extract)
    print(f"extracted {len(paths):,} files in {_minutes(start)}", flush=True)


def _stored_texts(cache: Path, paths: Sequence[Path]) -> Sequence[str]:
    store = TextStore(cache, SETTINGS.key())
    entries = store.fill(paths, _refuse)
    return store.texts([str(entry.content) for entry in entries if entry.status == "ok"])


def _refuse(missing: Sequence[Path]) -> Iterator[Document]:
    raise AssertionError(f"{len(missing)} files are not in the store")


def _group(cache: Path, paths: Sequence[Path], threshold: float) -> None:
    texts = _stored_texts(cache, paths)
    opened_mb, before_mb = _peak_mb(), _resident_mb()
    with _Watch() as watch:
        start = time.perf_counter()
        groups = duplicate_groups(texts, threshold=threshold)
        took = _minutes(start)
    text_mb = sum(len(text.encode()) for text in texts) / 2**20
    print(f"grouped {len(texts):,} texts ({text_mb:,.0f} MB) in {took}")
    print(f"  resident: {before_mb:,.0f} MB before, {watch.peak_mb:,.0f} MB at most, the mapped texts included")
    print(f"  peak of the process: {_peak_mb():,.0f} MB, of which opening the store {opened_mb:,.0f} MB")
    _describe(groups)


class _Watch:
    """The largest resident memory while it is open, looked at ten times a second; `ru_maxrss` never falls again."""

    def __enter__(self) -> _Watch:
        self.peak_mb, self._done = _resident_mb(), threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def _look(self) -> None:
        while not self._done.wait(0.1):
            self.peak_mb = max(self.peak_mb, _resident_mb())

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def _describe(groups: DuplicateGroups) -> None:
    sizes = Counter(groups.near)
    print(f"  {len(set(groups.exact)):,} different texts, {len(sizes):,} groups, {len(groups.pairs):,} links")
    print(f"  largest groups: {', '.join(f'{count:,}' for _, count in sizes.most_common(5))}", flush=True)


def _compare(cache: Path, paths: Sequence[Path], threshold: float) -> None:
    texts = list(_stored_texts(cache, paths))
    start = time.process_time()
    groups = duplicate_groups(texts, threshold=threshold)
    own_s = time.process_time() - start
    start = time.process_time()
    peer_pairs = _plain_datasketch(texts, threshold)
    peer_s = time.process_time() - start
    true_pairs = [pair for pair in peer_pairs if similarity(texts[pair[0]], texts[pair[1]]) >= threshold]
    missed = sum(groups.near[first] != groups.near[second] for first, second in true_pairs)
    print(
        f"{len(texts):,} texts, processor time: {own_s:.1f} s; plain datasketch {peer_s:.1f} s ({peer_s / own_s:.1f} x)"
    )
    print(f"  the peer proposes {len(peer_pairs):,} pairs; {len(true_pairs):,} are as similar as asked for", end="")
    print(f", {missed:,} of those are not in one group here")


def _plain_datasketch(texts: Sequence[str], threshold: float) -> set[tuple[int, int]]:
    """MinHashLSH as its documentation shows it: one update for each shingle, then a query for each text."""
    from datasketch import MinHash, MinHashLSH

    index, signatures = MinHashLSH(threshold=threshold, num_perm=128), []
    for place, text in enumerate(texts):
        words = re.findall(r"\w+", text.lower())
        signature = MinHash(num_perm=128)
        for shingle in {" ".join(words[start : start + 5]) for start in range(len(words) - 4)}:
            signature.update(shingle.encode())
        signatures.append(signature)
        index.insert(place, signature)
    return {
        (place, other)
        for place, signature in enumerate(signatures)
        if not signature.is_empty()
        for other in index.query(signature)
        if place < other
    }


def _minutes(start: float) -> str:
    seconds = time.perf_counter() - start
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def _resident_mb() -> float:
    return (resident_bytes(os.getpid()) or 0) / 2**20


def _peak_mb() -> float:
    """The largest resident memory so far; Linux counts in kilobytes, macOS in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)


if __name__ == "__main__":
    main()
