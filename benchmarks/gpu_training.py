"""How fast does a GPU train DistilBERT at 512 tokens, in how much memory, and how long does a large job take?

    python benchmarks/gpu_training.py --out results.json
    python benchmarks/gpu_training.py --miniature

Reach: at least 1.5 times the real tokens per second of transformers' `Trainer` with its usual settings, and at least
40 % of the card's matrix rate. Four parts, of which `--only` chooses:

- rate: operations per second of 8,192 x 8,192 products in 16-bit floats of random numbers, median of 20.
- throughput: one epoch in 16-mixed, in turns, each in a process of its own: doctune as it is, doctune with
  `trainer.compile=true`, and the peers of `training_throughput.py` (usual: single precision, padded to 512; tuned:
  16-bit, padded to the batch, grouped by length). A real token is one that no padding added, and the share of the
  matrix rate counts the operations on real tokens alone: per token 6 for each weight of a layer, and 12 x layers x
  width x length for attention.
- memory: the card's peak in a short run in single precision, in 16-mixed, and with gradient checkpointing.
- job: 70,873 files of 45 classes, three epochs: minutes in all and of training, and the share of the matrix rate.

The texts are synthetic: words of a vocabulary of 20,000 in Zipf's proportions, to which each class adds some of its
own; seven in ten fill 512 tokens, the others are shorter by chance. A word is a token. The weights are random, in
DistilBERT's shape, so that nothing is downloaded. Needs accelerate, which Trainer is built on.

`--miniature` does the same in small on a CPU, to show that it runs: its figures say nothing, and memory is that of the
process. Exit status 1 if what is to be reached on a GPU is not.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from training_throughput import TRAIN, trainer_rate, write_texts

from doctune.files import write_json

RATIO, SHARE = 1.5, 0.40
PARTS = ("rate", "throughput", "memory", "job")
OURS: dict[str, list[str]] = {"doctune": [], "doctune, compiled": ["trainer.compile=true"]}
PEERS = ("usual", "tuned")
NUM_CLASSES, NUM_WORDS, WORDS_OF_A_CLASS = 45, 20_000, 40


@dataclass(frozen=True)
class Scale:
    """What is measured.

    Attributes:
        on_gpu: False: on the CPU.
        layers: of the encoder, which is `width` wide and has `heads`.
        length: tokens of a document at most.
        matrix: rows and columns of the products that are timed.
        batch: documents of a step.
        documents: of each part that trains.
    """

    on_gpu: bool
    layers: int
    width: int
    heads: int
    length: int
    matrix: int
    batch: int
    documents: dict[str, int]

    def flops_per_token(self, lengths: np.ndarray) -> float:
        """Forward and backward, on average over the tokens of documents of these lengths."""
        attended = float((lengths.astype(float) ** 2).sum() / lengths.sum())
        return 6 * 12 * self.layers * self.width**2 + 12 * self.layers * self.width * attended


FULL = Scale(True, 6, 768, 12, 512, 8192, 64, {"throughput": 8_000, "memory": 1_500, "job": 70_873})
MINIATURE = Scale(False, 2, 64, 2, 64, 512, 16, {"throughput": 450, "memory": 450, "job": 900})


def main() -> int:
    """Run the parts; 1 if what is to be reached on a GPU is not."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--only", nargs="+", choices=PARTS, default=[*PARTS], help="some of the parts")
    add("--repeats", type=int, default=3, help="turns of the throughput (default: 3)")
    add("--miniature", action="store_true", help="in small on a CPU")
    add("--out", type=Path, help="a JSON file for all that was measured")
    add("--peer", nargs=3, help=argparse.SUPPRESS)
    add("--peak", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    scale = MINIATURE if args.miniature else FULL
    if args.peer:
        texts, model, name = args.peer
        given: dict[str, Any] = {"max_length": scale.length, "batch": scale.batch, "on_gpu": scale.on_gpu}
        print(json.dumps(trainer_rate(Path(texts), Path(model), name, **given)))
        return 0
    if args.peak:
        return _peak(args.peak, scale)
    if scale.on_gpu and not torch.cuda.is_available():
        sys.exit("There is no CUDA device here; --miniature shows on a CPU that the benchmark runs.")
    with tempfile.TemporaryDirectory() as folder:
        found = _measure(args.only, args.repeats, scale, Path(folder))
    if args.out:
        write_json(args.out, found)
    return 0 if args.miniature or _is_reached(found) else 1


def _measure(parts: list[str], repeats: int, scale: Scale, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"machine": _machine(scale)}
    print(found["machine"], flush=True)
    model = folder / "encoder"
    _write_encoder(model, scale)
    if parts != ["memory"]:
        found["matrix_tflops"] = rate = _matrix_rate(scale)
        print(f"matrix rate: {rate:,.2f} TFLOP/s", flush=True)
    if "throughput" in parts:
        found["throughput"] = _throughput(repeats, scale, folder / "throughput", model, rate)
    if "memory" in parts:
        found["memory_mb"] = _memory(scale, folder / "memory", model)
    if "job" in parts:
        found["job"] = _job(scale, folder / "job", model, rate)
    return found


def _matrix_rate(scale: Scale) -> float:
    """TFLOP/s of square products; in 16-bit floats on a GPU."""
    device, dtype = ("cuda", torch.float16) if scale.on_gpu else ("cpu", torch.float32)
    left, right = (torch.randn(scale.matrix, scale.matrix, device=device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(25):
        begun = time.perf_counter()
        torch.mm(left, right)
        if scale.on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    return 2 * scale.matrix**3 / statistics.median(seconds[5:]) / 1e12


def _throughput(repeats: int, scale: Scale, folder: Path, model: Path, rate: float) -> dict[str, Any]:
    manifest, lengths = _write_corpus(folder, scale.documents["throughput"], scale)
    tokens: dict[str, list[float]] = {name: [] for name in (*OURS, *PEERS)}
    texts = folder / "texts.json"
    for turn in range(repeats):
        for name, overrides in OURS.items():
            run = folder / f"{turn}-{len(overrides)}"
            _train(_overrides(manifest, model, run, scale, ["trainer.max_epochs=1", *overrides]))
            history = json.loads((run / "training_history.json").read_text(encoding="utf-8"))
            tokens[name].append(float(history[0]["tokens_per_s"]))
        if not texts.exists():
            write_texts(folder / "0-0", texts)
        for name in PEERS:
            tokens[name].append(float(_in_own_process(["--peer", str(texts), str(model), name], scale)))
        print(f"turn {turn + 1}: {', '.join(f'{name} {each[-1]:,.0f}' for name, each in tokens.items())}", flush=True)
    per_token = scale.flops_per_token(lengths)
    shares = {name: statistics.median(each) * per_token / 1e12 / rate for name, each in tokens.items()}
    for name, each in tokens.items():
        print(
            f"{name:<30} {statistics.median(each):>10,.0f} tokens/s ({min(each):,.0f}-{max(each):,.0f}), "
            f"{shares[name]:.1%} of the matrix rate"
        )
    ratios = {}
    for name in OURS:
        for peer in PEERS:
            each = [a / b for a, b in zip(tokens[name], tokens[peer], strict=True)]
            ratios[f"{name} / {peer}"] = statistics.median(each)
            print(f"{name} / {peer}: {statistics.median(each):.2f} x ({min(each):.2f}-{max(each):.2f})")
    return {"tokens_per_s": tokens, "share_of_matrix_rate": shares, "ratios": ratios}


def _memory(scale: Scale, folder: Path, model: Path) -> dict[str, float]:
    """The peak of a run of one epoch in each way, in MB."""
    manifest, _ = _write_corpus(folder, scale.documents["memory"], scale)
    mixed = "16-mixed" if scale.on_gpu else "bf16-mixed"
    ways = {
        "32": ["trainer.precision='32'"],
        mixed: [f"trainer.precision={mixed}"],
        f"{mixed}, gradient checkpointing": [f"trainer.precision={mixed}", "trainer.gradient_checkpointing=true"],
    }
    peaks = {}
    for number, (name, overrides) in enumerate(ways.items()):
        given = _overrides(manifest, model, folder / str(number), scale, ["trainer.max_epochs=1", *overrides])
        peaks[name] = float(_in_own_process(["--peak", *given], scale))
        print(f"peak with {name}: {peaks[name]:,.0f} MB", flush=True)
    return peaks


def _job(scale: Scale, folder: Path, model: Path, rate: float) -> dict[str, float]:
    """Three epochs over the whole corpus, everything included: reading, baseline, validation, judging, export."""
    manifest, lengths = _write_corpus(folder, scale.documents["job"], scale)
    begun = time.monotonic()
    _train(_overrides(manifest, model, folder / "run", scale, ["trainer.max_epochs=3"]))
    minutes = (time.monotonic() - begun) / 60
    history = json.loads((folder / "run/training_history.json").read_text(encoding="utf-8"))
    training = sum(epoch["seconds"] for epoch in history) / 60
    tokens = statistics.mean(epoch["tokens_per_s"] for epoch in history)
    share = tokens * scale.flops_per_token(lengths) / 1e12 / rate
    print(
        f"{scale.documents['job']:,} files, {NUM_CLASSES} classes, three epochs: {minutes:.1f} minutes in all, "
        f"{training:.1f} of them training, {tokens:,.0f} tokens/s, {share:.1%} of the matrix rate"
    )
    return {"minutes": minutes, "training_minutes": training, "tokens_per_s": tokens, "share_of_matrix_rate": share}


def _overrides(manifest: Path, model: Path, run: Path, scale: Scale, more: list[str]) -> list[str]:
    trainer = "gpu" if scale.on_gpu else "cpu"
    return [
        "model=distilbert", f"model.path={model}", f"data.manifest={manifest}",
        f"data.cache_dir={run.parent / 'cache'}", f"data.max_length={scale.length}", f"trainer={trainer}",
        f"trainer.effective_batch_size={scale.batch}", "trainer.progress=false",
        "callbacks.checkpoint.every_minutes=null", "logger=csv", f"hydra.run.dir={run}", *more,
    ]  # fmt: skip


def _train(overrides: list[str]) -> None:
    subprocess.run([sys.executable, str(TRAIN), *overrides], check=True, stdout=subprocess.DEVNULL)


def _peak(overrides: list[str], scale: Scale) -> int:
    """Train in this process and print the largest memory that it took, in MB: of the card, or of the process."""
    from doctune.training.app import main as train

    status = train("train", overrides)
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(torch.cuda.max_memory_allocated() / 1e6 if scale.on_gpu else kilobytes / 1e3)
    return status


def _in_own_process(arguments: list[str], scale: Scale) -> str:
    """The last line that this script prints in a process of its own."""
    small = [] if scale.on_gpu else ["--miniature"]
    command = [sys.executable, __file__, *small, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]


def _write_corpus(folder: Path, count: int, scale: Scale) -> tuple[Path, np.ndarray]:
    """Text files, their manifest, and how many tokens the model sees of each."""
    random = np.random.default_rng(0)
    lengths = np.where(
        random.random(count) < 0.7, scale.length, random.integers(scale.length // 16, scale.length, count)
    )
    own = random.integers(NUM_WORDS, size=(NUM_CLASSES, WORDS_OF_A_CLASS))
    shares = 1 / np.arange(1, NUM_WORDS + 1)
    common = random.choice(NUM_WORDS, size=1 << 22, p=shares / shares.sum())
    names = np.array([f"w{number}" for number in range(NUM_WORDS)])
    folder.mkdir(parents=True)
    with (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "confidence"])
        for number, length in enumerate(lengths):
            label = number % NUM_CLASSES
            words = common[random.integers(len(common), size=length)]
            is_own = random.random(length) < 0.05
            words[is_own] = random.choice(own[label], size=int(is_own.sum()))
            path = folder / f"class_{label:02}/{number:06}.txt"
            path.parent.mkdir(exist_ok=True)
            path.write_text(" ".join(names[words[: length - 2]]), encoding="ascii")  # two tokens are the special ones
            rows.writerow([path, path.parent.name, 1.0])
    return folder / "manifest.csv", lengths


def _write_encoder(folder: Path, scale: Scale) -> None:
    """DistilBERT with random weights, and a tokenizer that makes a token of each word of the corpus."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import DistilBertConfig, DistilBertModel, PreTrainedTokenizerFast

    specials = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    words = [*specials, *(f"w{number}" for number in range(NUM_WORDS))]
    learnt = Tokenizer(WordLevel({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
    learnt.pre_tokenizer = Whitespace()
    learnt.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    named = {f"{name[1:-1].lower()}_token": name for name in specials}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=learnt, model_max_length=scale.length, **named)
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    shape: dict[str, Any] = {
        "n_layers": scale.layers,
        "dim": scale.width,
        "hidden_dim": 4 * scale.width,
        "n_heads": scale.heads,
    }
    torch.manual_seed(0)
    DistilBertModel(DistilBertConfig(vocab_size=30_522, **shape)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _is_reached(found: dict[str, Any]) -> bool:
    """Whether what was measured of throughput is what is to be reached, by the better of doctune's two ways."""
    if "throughput" not in found:
        return True
    ratios, shares = found["throughput"]["ratios"], found["throughput"]["share_of_matrix_rate"]
    return any(ratios[f"{name} / usual"] >= RATIO and shares[name] >= SHARE for name in OURS)


def _machine(scale: Scale) -> str:
    if not scale.on_gpu:
        return f"{platform.processor() or platform.machine()}, in miniature: the figures say nothing"
    return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"


if __name__ == "__main__":
    sys.exit(main())
