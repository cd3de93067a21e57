"""What contradicts itself in the configuration of adapters, each in a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from doctune.training.config_schema import FinetuneConfig

# What each strategy needs beside doctune[train].
ADAPTER_LIBRARIES = {"lora": ("peft",), "qlora": ("peft", "bitsandbytes")}
ADAPTER_STRATEGIES = tuple(ADAPTER_LIBRARIES)
ALL_LINEAR = "all-linear"


def adapter_problems(finetune: FinetuneConfig) -> Iterator[str]:
    """Every contradiction: key, value found and values allowed."""
    if finetune.strategy not in ADAPTER_STRATEGIES:
        yield from _foreign_keys(finetune)
        return
    missing = [name for name in ("rank", "alpha", "dropout") if getattr(finetune, name) is None]
    for name in missing:
        yield f"finetune.strategy={finetune.strategy} needs finetune.{name}; finetune={finetune.strategy} sets it."
    if finetune.rank is not None and finetune.rank < 1:
        yield f"finetune.rank={finetune.rank} must be at least 1."
    if finetune.alpha is not None and not finetune.alpha > 0:
        yield f"finetune.alpha={finetune.alpha} must be larger than 0."
    if finetune.dropout is not None and not 0 <= finetune.dropout < 1:
        yield f"finetune.dropout={finetune.dropout} must be at least 0 and below 1."
    if not _are_targets(finetune.target_modules):
        yield (
            f"finetune.target_modules={finetune.target_modules} must be null, {ALL_LINEAR} or a list of names such as "
            "[query,value]."
        )
    if not finetune.cache_encoder:
        yield "finetune.cache_encoder=false is for finetune=head only."


def _foreign_keys(finetune: FinetuneConfig) -> Iterator[str]:
    for name in ("rank", "alpha", "dropout", "target_modules"):
        value = getattr(finetune, name)
        if value is not None:
            yield f"finetune.{name}={value} is for finetune=lora and finetune=qlora only."


def _are_targets(given: Any) -> bool:
    if given is None or given == ALL_LINEAR:
        return True
    return isinstance(given, list) and bool(given) and all(isinstance(name, str) for name in given)
