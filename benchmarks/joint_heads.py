"""Does learning several targets together help each of them, on few texts?

    python benchmarks/joint_heads.py --data FOLDER_WITH_goemotions --runs joint_heads/

Trains MiniLM, embeddings and four of its six layers frozen, on one sample of GoEmotions' train.tsv: once with all three
targets (28 emotions, sentiment group, Ekman group), and once for each target alone, the weights of the others being 0.
Texts, steps, batches, schedule and seed are the same. Every run chooses its checkpoint and its thresholds on its
validation texts, by the macro F1 of what it learns, and is judged on dev.tsv. Prints macro F1 of each target, and the
difference of joint to alone on the same texts with a 95 % paired bootstrap interval. It makes no claim; whatever comes
out is printed.

Each run is one of `train.py` under `--runs`; a finished one is not done again.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from squad_decode import minilm_folder

from doctune.reports.target_records import TargetRecords, read_targets_run
from doctune.scoring.targets import JudgedTarget, paired_difference

TARGETS = ("emotion", "sentiment", "ekman")
TRAIN = Path(__file__).parents[1] / "train.py"


def main() -> int:
    """Train what is not there yet, then compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--data", type=Path, help="the folder that holds goemotions/ (default: the one that DOCTUNE_DATA names)")
    add("--model", type=Path, help="the encoder's folder (default: MiniLM of the PyPI package)")
    add("--runs", type=Path, default=Path("joint_heads"), help="where the runs are (default: joint_heads)")
    add("--rows", type=int, default=8000, help="training texts (default: 8000)")
    add("--epochs", type=int, default=3, help="default: 3")
    args = parser.parse_args()
    model, data = minilm_folder(args.model), _data_folder(args.data)
    for learnt in (None, *TARGETS):
        run = args.runs / (learnt or "joint")
        if not (run / "report/report.json").is_file():
            _train(run, model, data, learnt, args.rows, args.epochs)
    joint = _judged(args.runs / "joint")
    print(f"{'target':<10} {'joint':>7} {'alone':>7} {'difference':>11}   95 %")
    for name in TARGETS:
        print(_compared(joint[name], _judged(args.runs / name)[name]))
    return 0


def _data_folder(named: Path | None) -> Path:
    root = named or os.environ.get("DOCTUNE_DATA")
    if root is None:
        sys.exit("Name the folder that holds goemotions/ with --data, or in DOCTUNE_DATA.")
    return Path(root).resolve() / "goemotions"


def _train(run: Path, model: Path, data: Path, learnt: str | None, rows: int, epochs: int) -> None:
    """One run; `learnt` is the only target with a weight, None: all have one."""
    alone = [f"+data.targets.{name}.weight=0" for name in TARGETS if learnt not in (None, name)]
    monitored = [] if learnt is None else [f"monitor.metric=val/{learnt}/f1_macro"]
    overrides = [
        "data=emotions", "model=minilm", f"model.path={model}", f"data.train=[{data / 'train.tsv'}]",
        f"data.test=[{data / 'dev.tsv'}]", f"data.targets.emotion.names={data / 'labels.txt'}",
        f"data.max_train={rows}", f"data.cache_dir={run.parent / 'cache'}", f"trainer.max_epochs={epochs}",
        "trainer=cpu", "trainer.effective_batch_size=32", "trainer.micro_batch_size=32", "optim.lr=2e-4",
        "finetune=partial", "finetune.layers=4",
        "loss.class_weights=effective", "logger=csv", f"hydra.run.dir={run}", *monitored, *alone,
    ]  # fmt: skip
    run.parent.mkdir(parents=True, exist_ok=True)
    with (run.parent / f"{run.name}.log").open("w") as log:
        subprocess.run([sys.executable, str(TRAIN), *overrides], stdout=log, stderr=subprocess.STDOUT, check=True)


def _judged(run: Path) -> dict[str, TargetRecords]:
    return {target.spec.name: target for target in read_targets_run(run).targets}


def _compared(joint: TargetRecords, alone: TargetRecords) -> str:
    if joint.test is None or alone.test is None or joint.test.ids != alone.test.ids:
        sys.exit(f"The runs did not judge the same texts of {joint.spec.name}: remove them and start again.")
    first, second = (
        JudgedTarget(part.truth, part.predicted, np.ones(len(part), bool), joint.spec.is_multi)
        for part in (joint.test, alone.test)
    )
    found = paired_difference([first], [second])
    scores = f"{first.f1_macro():>7.3f} {second.f1_macro():>7.3f} {found.value:>+11.3f}"
    return f"{joint.spec.name:<10} {scores}   {found.low:+.3f} to {found.high:+.3f}"


if __name__ == "__main__":
    sys.exit(main())
