"""Vocabularies learnt from documents, kept in the cache: the next run on the same documents need not learn its own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from tokenizers import Tokenizer

from doctune.corpus.store import mark_used
from doctune.files import write_text
from doctune.text.vocabulary import learn_wordpiece

# Raise it with every change of what `learn_wordpiece` gives.
_VERSION = 1


def wordpiece(cache: Path, texts: Sequence[str], vocab_size: int) -> Tokenizer:
    """The tokenizer that `learn_wordpiece` gives, learnt where no run before has."""
    folder = cache / "vocabularies" / _key(texts, vocab_size)
    kept = folder / "tokenizer.json"
    if not kept.exists():
        write_text(kept, learn_wordpiece(texts, vocab_size).to_str())
    mark_used(folder)
    return Tokenizer.from_file(str(kept))


def _key(texts: Sequence[str], vocab_size: int) -> str:
    digest = hashlib.sha256(f"{_VERSION} {version('tokenizers')} {vocab_size} {len(texts)}".encode())
    for text in texts:
        digest.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    return digest.hexdigest()[:16]
