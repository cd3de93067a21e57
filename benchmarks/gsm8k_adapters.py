"""Does the careful adapter recipe overfit less than the first one, on 800 examples?

    python benchmarks/gsm8k_adapters.py --data FOLDER_WITH_gsm8k --runs gsm8k_adapters/

A small Mistral (4 layers, 192 wide, a vocabulary of 2,048 tokens learnt from the same texts) is trained from scratch on
half of GSM8K's train.jsonl: `base/`. Then `experiment=qlora_v1` and `experiment=qlora_v2` tune four-bit adapters of it
on 800 examples of the other half, chosen and judged on 400 and 400 more: `v1/` and `v2/`. Both have the same seed,
examples, effective batch and number of epochs at most; `doctune compare` says which is better, with the gap of each as
its headline. The script makes no claim; whatever comes out is printed.

Every run is one of `train.py` under `--runs`; a finished one is not done again, one that was interrupted goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

TRAIN = Path(__file__).parents[1] / "train.py"
SEED = 42
PARTS = {"train": 800, "val": 400, "test": 400}
VOCABULARY = 2048
MAX_LENGTH = 512


def main() -> int:
    """Make what is not there yet, then compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--data", type=Path, help="the folder that holds gsm8k/ (default: the one that DOCTUNE_DATA names)")
    add("--runs", type=Path, default=Path("gsm8k_adapters"), help="where the runs are (default: gsm8k_adapters)")
    add("--base-epochs", type=int, default=6, help="of the small model (default: 6)")
    add("--epochs", type=int, default=10, help="of each recipe, at most (default: 10)")
    args = parser.parse_args()
    runs = args.runs.resolve()
    _write_parts(data_folder(args.data) / "train.jsonl", runs / "data")
    if not (runs / "random/config.json").is_file():
        _write_random_model(runs / "data/base.jsonl", runs / "random")
    shared = ("trainer=cpu", "logger=csv", f"data.max_length={MAX_LENGTH}", f"data.cache_dir={runs / 'cache'}")
    base = ("model=mistral", "data=instructions", "finetune=full", "optim.lr=1e-3", "trainer.effective_batch_size=16")
    _train(
        runs / "base",
        *base,
        *shared,
        f"model.path={runs / 'random'}",
        f"data.train=[{runs / 'data/base.jsonl'}]",
        f"trainer.max_epochs={args.base_epochs}",
        "data.generate=0",
    )
    files = [f"data.{part}=[{runs / f'data/{part}.jsonl'}]" for part in PARTS]
    for version in ("v1", "v2"):
        _train(
            runs / version,
            f"experiment=qlora_{version}",
            f"model.path={runs / 'base/model'}",
            *shared,
            *files,
            f"trainer.max_epochs={args.epochs}",
            "data.generate=100",
            "data.max_new_tokens=200",
        )
    compare = [sys.executable, "-m", "doctune.cli.main", "compare", str(runs / "v1"), str(runs / "v2")]
    return subprocess.run([*compare, "--html", str(runs / "compare.html")], check=False).returncode


def data_folder(named: Path | None) -> Path:
    """The folder gsm8k/ in the one that is named, or in that of DOCTUNE_DATA."""
    root = named or os.environ.get("DOCTUNE_DATA")
    if root is None:
        sys.exit("Name the folder that holds gsm8k/ with --data, or in DOCTUNE_DATA.")
    return Path(root).resolve() / "gsm8k"


def _write_parts(source: Path, folder: Path) -> None:
    """Half of the examples as base.jsonl, and the parts from the other half, by a fixed shuffle."""
    lines = source.read_text(encoding="utf-8").splitlines()
    random.Random(SEED).shuffle(lines)
    folder.mkdir(parents=True, exist_ok=True)
    start = 0
    for name, count in {"base": len(lines) // 2, **PARTS}.items():
        (folder / f"{name}.jsonl").write_text("\n".join(lines[start : start + count]) + "\n", encoding="utf-8")
        start += count


def _write_random_model(source: Path, folder: Path) -> None:
    """A Mistral with random weights and a byte-level vocabulary learnt from the examples."""
    import torch
    import transformers as hf

    tokenizer = write_tokenizer(source, folder)
    torch.manual_seed(SEED)
    config = hf.MistralConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=3,
        max_position_embeddings=MAX_LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        sliding_window=None,
    )
    hf.MistralForCausalLM(config).save_pretrained(folder)


def write_tokenizer(source: Path, folder: Path) -> Any:
    """A byte-level vocabulary learnt from the examples of a file, written to a folder."""
    import tokenizers as hf_tokenizers
    import transformers as hf

    texts = [value for line in source.read_text(encoding="utf-8").splitlines() for value in json.loads(line).values()]
    backend = hf_tokenizers.Tokenizer(hf_tokenizers.models.BPE())
    backend.pre_tokenizer = hf_tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = hf_tokenizers.decoders.ByteLevel()
    trainer = hf_tokenizers.trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=hf_tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )
    backend.train_from_iterator(texts, trainer)
    tokenizer = hf.PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    tokenizer.save_pretrained(folder)
    return tokenizer


def _train(run: Path, *overrides: str) -> None:
    if (run / "report/report.json").is_file():
        return
    begun = (run / "status.json").is_file()
    how = [f"resume={run}"] if begun else [*overrides, f"hydra.run.dir={run}"]
    with (run.parent / f"{run.name}.log").open("a") as log:
        subprocess.run([sys.executable, str(TRAIN), *how], stdout=log, stderr=subprocess.STDOUT, check=True)


if __name__ == "__main__":
    sys.exit(main())
