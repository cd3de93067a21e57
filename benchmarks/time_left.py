"""Does the real end of a run fall inside the range that `doctune status` prints?

    python benchmarks/time_left.py .ifmos/demo.csv
    python benchmarks/time_left.py .ifmos/demo.csv trainer.max_epochs=20

Trains the demo in a process of its own and looks at its status.json as `doctune status` does. Prints ten readings at
even distances after the first tenth of the run: the range, the seconds that were really left, and beside it the naive
estimate of most progress bars, the time since training began divided by the share of the steps done. Exits 1 if fewer
than 8 ranges hold.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from doctune.errors import ArtifactError
from doctune.reports.status import read_status

ROOT = Path(__file__).parents[1]
NUM_READINGS = 10
ENOUGH = 8
SECONDS_BETWEEN_LOOKS = 0.1


@dataclass(frozen=True)
class Reading:
    """What a look said: `at_s` is seconds since the run was started, `range_s` seconds still to go."""

    at_s: float
    phase: str
    range_s: tuple[float, float] | None = None
    steps_done: float = 0.0  # share of all

    def holds(self, left_s: float) -> bool:
        """Whether the truth is inside the range; no range is no hit."""
        return self.range_s is not None and self.range_s[0] <= left_s <= self.range_s[1]

    def naive_s(self, training_since_s: float) -> float | None:
        """What a progress bar would say is left; None before the first step."""
        if not self.steps_done:
            return None
        return (self.at_s - training_since_s) * (1 - self.steps_done) / self.steps_done

    def line(self, left_s: float, naive_s: float | None) -> str:
        """The reading beside the truth."""
        said = "no range" if self.range_s is None else "{:.1f} to {:.1f} s".format(*self.range_s)
        width = "" if self.range_s is None else f"±{(self.range_s[1] - self.range_s[0]) / 2 / left_s:.0%}"
        naive = "" if naive_s is None else f"{naive_s:.1f} s"
        verdict = "inside" if self.holds(left_s) else "OUTSIDE"
        return f"{self.at_s:7.1f} s  {self.phase:10} {said:>18} {width:>6} {left_s:8.1f} s  {verdict:8} {naive:>9}"


def train_and_look(manifest: Path, overrides: list[str], folder: Path) -> tuple[list[Reading], float]:
    """All readings of a run of the demo, and how many seconds it took from its start to its end."""
    run = folder / "run"
    command = [sys.executable, str(ROOT / "train.py"), "experiment=demo", f"data.manifest={manifest.resolve()}"]
    command += ["trainer.progress=false", f"hydra.run.dir={run}", *overrides]
    readings = []
    with (folder / "output.txt").open("w", encoding="utf-8") as output:
        start = time.monotonic()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        while process.poll() is None:
            readings.append(look(run, time.monotonic() - start))
            time.sleep(SECONDS_BETWEEN_LOOKS)
        took = time.monotonic() - start
    if process.returncode:
        sys.exit((folder / "output.txt").read_text(encoding="utf-8")[-3000:] + "\nThe run failed.")
    return readings, took


def look(run: Path, at_s: float) -> Reading:
    """What `doctune status` and the naive estimate say now."""
    try:
        status = read_status(run)
    except ArtifactError:
        return Reading(at_s, "starting")
    share = status.step / status.steps if status.step and status.steps else 0.0
    return Reading(at_s, status.phase, status.left_s(datetime.now(UTC)), share)


def choose(readings: Sequence[Reading], took: float) -> list[Reading]:
    """The readings nearest to ten moments at even distances in the last nine tenths of a run."""
    moments = took * (0.1 + 0.9 * (np.arange(NUM_READINGS) + 0.5) / NUM_READINGS)
    times = np.array([reading.at_s for reading in readings])
    return [readings[int(np.abs(times - moment).argmin())] for moment in moments]


def show(chosen: Sequence[Reading], took: float, training_since_s: float) -> int:
    """Print the readings and what they come to; the number of ranges that hold."""
    print(f"{'at':>9}  {'phase':10} {'range of time left':>18} {'width':>6} {'really':>10}  {'':8} {'naive':>9}")
    errors = []
    for reading in chosen:
        left, naive = took - reading.at_s, reading.naive_s(training_since_s)
        print(reading.line(left, naive))
        if reading.range_s is not None and naive is not None:
            errors.append((abs(sum(reading.range_s) / 2 / left - 1), abs(naive / left - 1)))
    held = sum(reading.holds(took - reading.at_s) for reading in chosen)
    print(f"\n{held} of {NUM_READINGS} ranges hold the real end")
    if errors:
        middle, naive_error = np.mean(errors, axis=0)
        print(f"mean absolute relative error of the {len(errors)} readings that have both: ", end="")
        print(f"middle of the range {middle:.1%}, naive {naive_error:.1%}")
    return held


def main() -> int:
    """Train, choose ten readings, print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("overrides", nargs="*", help="Hydra overrides besides experiment=demo")
    args = parser.parse_args()
    # Whether early stopping ends the run sooner cannot be foretold, and the range does not claim to.
    overrides = ["callbacks.early_stopping.enabled=false", *args.overrides]
    with tempfile.TemporaryDirectory() as name:
        readings, took = train_and_look(args.manifest, overrides, Path(name))
    training_since_s = next(reading.at_s for reading in readings if reading.phase == "training")
    print(f"the run took {took:.1f} s; training began after {training_since_s:.1f} s\n")
    return 0 if show(choose(readings, took), took, training_since_s) >= ENOUGH else 1


if __name__ == "__main__":
    sys.exit(main())
