"""How much faster are further epochs of `finetune=head` with the encoder's outputs stored, and are the losses the same?

    python benchmarks/frozen_encoder.py .ifmos/training_data.csv --model PATH_OF_A_PRETRAINED_ENCODER

Trains the head twice on the same documents: once with `finetune.cache_encoder=true`, once with `false`, which computes
the frozen encoder again in each epoch, as training a head usually does. Prints the seconds of each epoch after the
first, their ratio, and the largest difference of the epochs' losses. Exit status 1 if the ratio is below 20 or the
losses differ.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

RATIO = 20
TOLERANCE = 1e-3


def history_of(manifest: Path, model: str, cached: bool, epochs: int, documents: int, folder: Path) -> list[Any]:
    """The epochs of one run."""
    overrides = [
        "model=minilm",
        f"model.path={model}",
        "finetune=head",
        f"finetune.cache_encoder={str(cached).lower()}",
        f"data.manifest={manifest.resolve()}",
        f"data.cache_dir={folder / 'cache'}",
        f"data.max_documents={documents}",
        "data.max_length=128",
        "split.small_classes=drop",
        "optim.lr=1e-3",
        "trainer.precision='32'",
        f"trainer.max_epochs={epochs}",
        "callbacks.early_stopping.enabled=false",
        "model.head_dropout=0",  # drawn anew in each forward pass, by another number of random numbers
        "logger=csv",
        f"hydra.run.dir={folder / str(cached)}",
    ]
    script = Path(__file__).parents[1] / "train.py"
    subprocess.run([sys.executable, str(script), *overrides], check=True, stdout=subprocess.DEVNULL)
    history: list[Any] = json.loads((folder / str(cached) / "training_history.json").read_text())
    return history


def main() -> int:
    """Run both, print the comparison, return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--model", required=True, help="hub name or folder of an encoder")
    parser.add_argument("--documents", type=int, default=400)
    parser.add_argument("--epochs", type=int, default=4)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        stored, recomputed = (
            history_of(args.manifest, args.model, cached, args.epochs, args.documents, Path(folder))
            for cached in (True, False)
        )
    seconds = [median(epoch["seconds"] for epoch in each[1:]) for each in (stored, recomputed)]
    ratio = seconds[1] / seconds[0]
    difference = max(
        abs(a[name] - b[name])
        for a, b in zip(stored, recomputed, strict=True)
        for name in ("train_loss", "val_loss", "train_eval_loss")
    )
    print(f"{os.cpu_count()} cores, about {args.documents} documents, 128 tokens, {args.epochs} epochs")
    print(f"seconds per further epoch, validation included: stored {seconds[0]:.3f}, recomputed {seconds[1]:.3f}")
    print(f"ratio {ratio:.0f} (wanted: at least {RATIO}); largest difference of a loss {difference:.1e}")
    return 0 if ratio >= RATIO and difference <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
