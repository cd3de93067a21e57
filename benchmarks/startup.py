"""How long does a command take that only prints, beside a training script that imports its libraries at the top?

    python benchmarks/startup.py

Claim: `python train.py --help` and `--cfg job` end within 1.5 s. The peer is the same configuration folder behind a
Hydra main that imports torch, Lightning and transformers at module level, as training scripts usually do. Each command
is a fresh process; ours and the peer take turns, once unmeasured and then `--repeats` times. Prints median and range of
both, and the ratio of the medians. Exit status 1 if a median of ours is above 1.5 s.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIMIT_S = 1.5
NAMED = {"DOCTUNE_COMMAND": "train"}  # conf/config.yaml names the log after it
COMMANDS = {"--help": ["--help"], "--cfg job": ["--cfg", "job"]}
PEER = f"""
import hydra
import lightning
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from doctune.training.config import register_schemas

register_schemas()


@hydra.main(version_base="1.3", config_path={str(ROOT / "conf")!r}, config_name="config")
def main(config):
    pass


main()
"""


def main() -> int:
    """Time both, print the comparison, return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=7, help="measured starts of each command (default: 7)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        peer = Path(folder) / "peer.py"
        peer.write_text(PEER, encoding="utf-8")
        medians = [_compare(name, peer, args.repeats) for name in COMMANDS]
    return 0 if max(medians) <= LIMIT_S else 1


def _compare(name: str, peer: Path, repeats: int) -> float:
    """Print one command's line and give the median of ours."""
    scripts = {"doctune": ROOT / "train.py", "peer": peer}
    times: dict[str, list[float]] = {script: [] for script in scripts}
    for turn in range(repeats + 1):
        for script, path in scripts.items():
            seconds = _seconds([sys.executable, str(path), *COMMANDS[name]], peer.parent)
            if turn:  # the first one reads the libraries from the disk
                times[script].append(seconds)
    medians = {script: statistics.median(taken) for script, taken in times.items()}
    shown = ", ".join(
        f"{script} {medians[script]:.2f} s ({min(taken):.2f}-{max(taken):.2f})" for script, taken in times.items()
    )
    print(f"{name:<10} {shown}, {medians['peer'] / medians['doctune']:.1f} x", flush=True)
    return medians["doctune"]


def _seconds(command: list[str], folder: Path) -> float:
    """Wall time of a process that ends well; what Hydra writes goes into the folder."""
    started = time.perf_counter()
    subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, env={**os.environ, **NAMED})
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
