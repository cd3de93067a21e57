"""Does the memory of training on long documents grow with their length?

    python benchmarks/chunk_memory.py

Forward and backward of two documents of 1, 5 and 20 chunks of 512 tokens, through HierarchicalClassifier in passes of
two chunks, and beside it the plain computation: the same net, all chunks of both documents encoded at once. The encoder
is a DistilBERT of 6 layers, 384 wide, with random weights; nothing is downloaded. Each measurement is the peak resident
memory of a process of its own. Exit status 1 if 20 chunks take more than 1.15 times the memory of one, or if the two
ways differ in their loss.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys

NUM_CHUNKS = (1, 5, 20)
DOCUMENTS = 2
LENGTH = 512
VOCABULARY = 8000
GROWTH = 1.15
TOLERANCE = 1e-4


def peak_mb() -> float:
    """The largest resident memory so far; Linux counts in kilobytes, macOS in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)


def step(num_chunks: int, chunks_per_pass: int, threads: int) -> None:
    """Forward and backward in this process; prints what they took as a line of JSON."""
    import torch
    from torch.nn import functional as F
    from transformers import AutoModel, DistilBertConfig

    from doctune.labels import Labels
    from doctune.nets.hierarchy import HierarchicalClassifier, HierarchySettings

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    # Without dropout, so that the losses of both ways can be compared.
    config = DistilBertConfig(
        n_layers=6,
        dim=384,
        n_heads=12,
        hidden_dim=1536,
        vocab_size=VOCABULARY,
        max_position_embeddings=LENGTH,
        dropout=0.0,
        attention_dropout=0.0,
    )
    settings = HierarchySettings(max_chunks=max(NUM_CHUNKS), dropout=0.0)
    net = HierarchicalClassifier(
        AutoModel.from_config(config), Labels(("a", "b")), settings, chunks_per_pass=chunks_per_pass
    )
    ids = torch.randint(5, VOCABULARY, (DOCUMENTS * num_chunks, LENGTH))
    counts = torch.full((DOCUMENTS,), num_chunks)
    idle_mb = peak_mb()
    loss = F.cross_entropy(net(ids, torch.ones_like(ids), counts).logits, torch.tensor([0, 1]))
    loss.backward()
    print(json.dumps({"peak": peak_mb(), "step": peak_mb() - idle_mb, "loss": loss.item()}))


def measure(num_chunks: int, chunks_per_pass: int, threads: int) -> dict[str, float]:
    """`step` in a fresh process."""
    command = [sys.executable, __file__, "--measure", str(num_chunks)]
    options = ["--chunks-per-pass", str(chunks_per_pass), "--threads", str(threads)]
    # glibc then gives freed tensors back at once, so that the peak is what is in use; slower, so no times.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run([*command, *options], check=True, capture_output=True, text=True, env=environment)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    """Measure both, print the comparison, return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks-per-pass", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        step(args.measure, args.chunks_per_pass, args.threads)
        return 0
    print(f"{DOCUMENTS} documents, {LENGTH} tokens per chunk, passes of {args.chunks_per_pass}, {args.threads} threads")
    print("chunks per document |  passes: peak MB  of the step |   plain: peak MB  of the step | less")
    peaks, difference = [], 0.0
    for num_chunks in NUM_CHUNKS:
        own = measure(num_chunks, args.chunks_per_pass, args.threads)
        plain = measure(num_chunks, DOCUMENTS * num_chunks, args.threads)
        peaks.append(own["peak"])
        difference = max(difference, abs(own["loss"] - plain["loss"]))
        columns = " |".join(f"{way['peak']:17,.0f} {way['step']:12,.0f}" for way in (own, plain))
        print(f"{num_chunks:19} |{columns} | {plain['peak'] / own['peak']:.1f} x", flush=True)
    growth = peaks[-1] / peaks[0]
    print(
        f"growth of the peak from {NUM_CHUNKS[0]} to {NUM_CHUNKS[-1]} chunks: {growth:.2f} (wanted: at most {GROWTH})"
    )
    print(f"largest difference of a loss: {difference:.1e}")
    return 0 if growth <= GROWTH and difference <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
