"""Is a killed `doctune prepare` taken up where it died, and do two at once leave one good store?

    python benchmarks/prepare_resume.py .ifmos/training_data.csv

Fills a store without interruption; fills a second one that is killed (SIGKILL) on the way and started again; fills a
third from two processes at once. All three must hold the same texts, and no file may be extracted twice.
"""

from __future__ import annotations

import argparse
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa


def command(manifest: Path, cache: Path, folder: Path) -> list[str]:
    """`doctune prepare` on one cache."""
    return [
        sys.executable,
        *("-m", "doctune.cli.main", "prepare"),
        f"data.manifest={manifest.resolve()}",
        f"data.cache_dir={cache}",
        "split.small_classes=drop",
        "data.duplicate_threshold=1",
        f"hydra.run.dir={folder}",
    ]


def num_read(output: str) -> int:
    """How many files a run says that it read."""
    found = re.search(r"Reading (\d+) new files", output)
    return int(found.group(1)) if found else 0


def texts_of(cache: Path) -> dict[str, tuple[str, ...]]:
    """Everything that a store holds, by content; a content that stands twice is an error."""
    rows: dict[str, tuple[str, ...]] = {}
    for part in cache.glob("texts/*/part-*.arrow"):
        for row in pa.ipc.open_file(pa.memory_map(str(part))).read_all().to_pylist():
            assert row["content"] not in rows, f"{row['content']} stands twice"
            rows[row["content"]] = (row["status"], row["reason"], row["format"], row["text"])
    return rows


def journaled(cache: Path) -> int:
    """Files that a run which is still going on, or was killed, has stored so far."""
    for journal in cache.glob("texts/*/journal.sqlite"):
        connection = sqlite3.connect(f"file:{journal}?mode=ro", uri=True, timeout=30)
        try:
            return int(connection.execute("SELECT COUNT(*) FROM texts").fetchone()[0])
        except sqlite3.OperationalError:
            return 0  # the table is not there yet
        finally:
            connection.close()
    return 0


def killed_and_resumed(manifest: Path, cache: Path, folder: Path, at: int) -> tuple[int, int]:
    """Kill a run once it has stored `at` files, start it again; the files stored before and read after."""
    process = subprocess.Popen(command(manifest, cache, folder / "killed"), stdout=subprocess.PIPE)
    while journaled(cache) < at and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    stored = journaled(cache)
    again = subprocess.run(command(manifest, cache, folder / "again"), capture_output=True, text=True, check=True)
    return stored, num_read(again.stdout)


def two_at_once(manifest: Path, cache: Path, folder: Path) -> int:
    """Start two runs on one empty cache; the files that both together read."""
    runs = [
        subprocess.Popen(command(manifest, cache, folder / name), stdout=subprocess.PIPE, text=True)
        for name in ("first", "second")
    ]
    return sum(num_read(run.communicate()[0]) for run in runs)


def main() -> int:
    """Run the three and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    manifest = parser.parse_args().manifest
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = subprocess.run(
            command(manifest, folder / "a", folder / "whole"), capture_output=True, text=True, check=True
        )
        total, reference = num_read(whole.stdout), texts_of(folder / "a")
        print(f"uninterrupted: {total:,} different files read, {len(reference):,} texts stored")
        stored, read = killed_and_resumed(manifest, folder / "b", folder, at=total * 2 // 5)
        same = texts_of(folder / "b") == reference
        print(f"killed:        {stored:,} stored before, {read:,} read after, {stored + read - total} twice; ", end="")
        print("the same store" if same else "ANOTHER STORE")
        together = two_at_once(manifest, folder / "c", folder)
        both = texts_of(folder / "c") == reference
        print(f"two at once:   {together:,} read in all; {'the same store' if both else 'ANOTHER STORE'}")
    return 0 if same and both and stored + read == total == together else 1


if __name__ == "__main__":
    sys.exit(main())
