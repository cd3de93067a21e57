"""How much memory do adapters save against full fine-tuning of a decoder?

    python benchmarks/adapter_memory.py --data FOLDER_WITH_gsm8k --layers 22

Runs `train.py model=mistral data=instructions` for two optimiser steps with finetune=full, lora and qlora on the same
Mistral with random weights (2,048 wide, shaped as TinyLlama: 22 layers have about a billion parameters), each in a
process of its own. Prints two peaks: of the memory that is the process's own, which it cannot do without, and of all
that is resident, among it the pages of mapped files, which the system takes back when it needs them. Prints the size of
a checkpoint and of `model/`, too, and how many times less memory of its own that is than full fine-tuning takes. The
weights lie in a file in bfloat16, as decoders are published. What is measured is the whole run: loading, training,
checkpoint, judging and export. `--strategies qlora` alone measures what full fine-tuning would not fit. Needs Linux.

Lightning, torch and transformers alone take the memory that is printed first: it is in every peak.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from _memory import own_mb
from gsm8k_adapters import TRAIN, data_folder, write_tokenizer

STEPS, BATCH = 2, 2
MAX_LENGTH = 512
# Seconds between two looks at a process's memory.
INTERVAL = 0.02


class Peaks(NamedTuple):
    """The largest memory of a process, in MB.

    Attributes:
        own: without mapped files.
        resident: all that was in memory.
    """

    own: float
    resident: float


def main() -> int:
    """Measure each strategy and print the comparison."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--data", type=Path, help="the folder that holds gsm8k/ (default: the one that DOCTUNE_DATA names)")
    add(
        "--runs",
        type=Path,
        default=Path("adapter_memory"),
        help="where the runs are; emptied (default: adapter_memory)",
    )
    add("--layers", type=int, default=22, help="of the decoder (default: 22, about a billion parameters)")
    add("--strategies", nargs="+", default=["full", "lora", "qlora"], help="default: full lora qlora")
    add("--write", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    runs = args.runs.resolve()
    if args.write:
        _write_decoder(runs, args.layers)
        return 0
    shutil.rmtree(runs, ignore_errors=True)
    _write_data(data_folder(args.data) / "train.jsonl", runs)
    _peaks([sys.executable, __file__, "--write", "--runs", str(runs), "--layers", str(args.layers)])
    weights = (runs / "decoder/model.safetensors").stat().st_size
    idle = _peaks([sys.executable, "-c", "import lightning, peft, torch, transformers.models.mistral"])
    print(
        f"decoder: {weights / 2e9:.2f} billion parameters; libraries alone: {idle.own:,.0f} MB of their own", flush=True
    )
    print(f"{'finetune':<9} {'own MB':>9} {'resident MB':>12} {'checkpoint MB':>14} {'model/ MB':>10} {'less':>6}")
    full: float | None = None
    for strategy in args.strategies:
        run = runs / strategy
        peak = _peaks(_command(runs, run, strategy))
        full = peak.own if strategy == "full" else full
        less = "" if full is None else f"{full / peak.own:.1f} x"
        sizes = (_size_mb(run / "checkpoints/last.ckpt"), sum(map(_size_mb, (run / "model").glob("*.safetensors"))))
        figures = f"{peak.own:>9,.0f} {peak.resident:>12,.0f} {sizes[0]:>14,.1f} {sizes[1]:>10,.1f} {less:>6}"
        print(f"{strategy:<9} {figures}", flush=True)
        shutil.rmtree(run / "checkpoints")  # of a large model they fill the disk
    return 0


def _command(runs: Path, run: Path, strategy: str) -> list[str]:
    overrides = [
        "model=mistral", "data=instructions", f"finetune={strategy}", f"model.path={runs / 'decoder'}",
        *(f"data.{part}=[{runs / f'{part}.jsonl'}]" for part in ("train", "val", "test")),
        f"data.max_length={MAX_LENGTH}", "data.generate=0", f"data.cache_dir={runs / 'cache'}",
        f"trainer.effective_batch_size={BATCH}", "trainer.micro_batch_size=1", "trainer.max_epochs=1", "trainer=cpu",
        "callbacks.checkpoint.every_minutes=null", "logger=csv", f"hydra.run.dir={run}",
    ]  # fmt: skip
    return [sys.executable, str(TRAIN), *overrides]


def _peaks(command: list[str]) -> Peaks:
    """The memory of a process that ends well."""
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said, text=True)
        own = 0.0
        while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
            own = max(own, own_mb(process.pid))
            time.sleep(INTERVAL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            sys.exit(f"{' '.join(command)} ended with {process.returncode}:\n{said.read()[-2000:]}")
    return Peaks(own, usage.ru_maxrss / 1024)


def _size_mb(path: Path) -> float:
    return path.stat().st_size / 1e6


def _write_data(source: Path, folder: Path) -> None:
    """As many examples as the steps need, and a few that judge."""
    lines = source.read_text(encoding="utf-8").splitlines()
    folder.mkdir(parents=True)
    start = 0
    for name, count in {"train": STEPS * BATCH, "val": 2, "test": 2}.items():
        (folder / f"{name}.jsonl").write_text("\n".join(lines[start : start + count]) + "\n", encoding="utf-8")
        start += count


def _write_decoder(runs: Path, layers: int) -> None:
    import torch
    import transformers as hf

    folder = runs / "decoder"
    tokenizer = write_tokenizer(runs / "train.jsonl", folder)
    torch.manual_seed(0)
    config = hf.MistralConfig(
        vocab_size=len(tokenizer),
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=layers,
        num_attention_heads=32,
        num_key_value_heads=4,
        max_position_embeddings=MAX_LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    hf.MistralForCausalLM(config).bfloat16().save_pretrained(folder, max_shard_size="100GB")


if __name__ == "__main__":
    sys.exit(main())
