"""Completions that a causal language model writes, a batch of prompts at a time.

Shapes: B prompts of a batch, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from doctune.inference.batches import by_length, padded
from doctune.nets.chat import padding_id


@dataclass(frozen=True)
class Sampling:
    """How completions are written.

    Attributes:
        max_new_tokens: of each, the end token included.
        temperature: 0: always the likeliest token; else tokens are drawn, from probabilities whose logits are divided
            by it.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0


@dataclass(frozen=True)
class Completion:
    """What was written after a prompt, without special tokens; `is_ended`: by the model, not by the limit."""

    text: str
    num_tokens: int
    is_ended: bool


def complete(
    net: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    sampling: Sampling,
    batch_size: int = 8,
    window: int | None = None,
) -> list[Completion]:
    """A completion of each prompt, in order.

    Prompts of similar length are computed together, padded on the left, with cached keys and values.

    Args:
        net: a causal language model; left in the mode that it was in.
        tokenizer: its tokenizer; adds no special tokens, prompts have theirs.
        prompts: as a template shows them.
        sampling: greedy or drawn, and how long.
        batch_size: prompts of a batch.
        window: the most tokens that the net reads, prompt and completion together; a completion ends there.
    """
    rows = tokenizer(list(prompts), add_special_tokens=False)["input_ids"] if prompts else []
    ends = end_tokens(net, tokenizer)
    settings: dict[str, Any] = {
        "do_sample": sampling.temperature > 0,
        "temperature": sampling.temperature or None,
        "top_k": 0 if sampling.temperature else None,
        "eos_token_id": ends,
        "pad_token_id": padding_id(tokenizer),
    }
    found: dict[int, Completion] = {}
    was_training = net.training
    net.eval()
    try:
        for places in by_length(rows, batch_size):
            batch = [rows[place] for place in places]
            room = sampling.max_new_tokens if window is None else window - max(map(len, batch))
            written = _written(net, batch, min(sampling.max_new_tokens, room), settings)
            for place, ids in zip(places, written, strict=True):
                found[place] = _completion(tokenizer, ids, ends)
    finally:
        net.train(was_training)
    return [found[place] for place in range(len(rows))]


def end_tokens(net: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that end a completion: the tokenizer's, and those that the model came with, as of a turn."""
    config = net.generation_config
    named = None if config is None else config.eos_token_id
    more = [] if named is None else [named] if isinstance(named, int) else list(named)
    return sorted({int(tokenizer.eos_token_id), *more})


def _written(
    net: Any, rows: Sequence[Sequence[int]], max_new_tokens: int, settings: Mapping[str, Any]
) -> list[list[int]]:
    """The new tokens of each row; none where there is no room for any."""
    if max_new_tokens < 1:
        return [[] for _ in rows]
    config = GenerationConfig(max_new_tokens=max_new_tokens, **settings)
    ids = torch.from_numpy(padded(rows, int(config.pad_token_id or 0), left=True)).to(net.device)
    mask = torch.from_numpy(padded([[1] * len(row) for row in rows], 0, left=True)).to(net.device)
    with torch.inference_mode():
        out = net.generate(input_ids=ids, attention_mask=mask, generation_config=config)
    written: list[list[int]] = out[:, ids.shape[1] :].tolist()
    return written


def _completion(tokenizer: PreTrainedTokenizerBase, ids: list[int], ends: Sequence[int]) -> Completion:
    """The text up to the first end token; what stands behind it only fills up the batch."""
    stop = next((place for place, token in enumerate(ids) if token in ends), None)
    own = ids if stop is None else ids[:stop]
    text = str(tokenizer.decode(own, skip_special_tokens=True)).strip()
    return Completion(text, len(own) + (stop is not None), stop is not None)
