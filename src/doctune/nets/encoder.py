"""Where an encoder comes from: the hub, a local folder, or random weights."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import constants
from tokenizers import Tokenizer
from transformers import (
    AutoConfig,
    AutoTokenizer,
    DistilBertConfig,
    PretrainedConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from doctune.errors import ArtifactError, ConfigError
from doctune.text.vocabulary import CLS, MASK, PAD, SEP, UNK

log = logging.getLogger(__name__)

# Where the hub does not answer they report each of a dozen attempts.
_HUB_LOGGERS = ("huggingface_hub", "httpx", "urllib3")
# What each architecture calls the dropout of its encoder and of its classification head.
_ENCODER_DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout")
_ATTENTION_DROPOUTS = ("attention_probs_dropout_prob", "attention_dropout")
_HEAD_DROPOUTS = ("classifier_dropout", "seq_classif_dropout", "qa_dropout", "cls_dropout")
# The files that hold a vocabulary; a model's folder has at least one.
_VOCABULARIES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)


@dataclass(frozen=True)
class Dropouts:
    """Dropout probabilities; None keeps what the encoder came with. `attention` goes before `encoder`."""

    encoder: float | None = None
    head: float | None = None
    attention: float | None = None


def pretrained_config(path: str) -> PretrainedConfig:
    """The architecture of a pretrained encoder, without its weights.

    Raises:
        ArtifactError: the folder does not exist or holds no model, the hub is not reachable or has no such model.
    """
    _refuse_missing_folder(path)
    _refuse_adapter(path)
    if not (Path(path).is_dir() or constants.HF_HUB_OFFLINE):
        log.info("Asking the hub for %s; where it cannot be reached, this takes about half a minute.", path)
    try:
        with _quiet_hub():
            return AutoConfig.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise ArtifactError(_unavailable(path, error)) from error


def pretrained_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """The tokenizer that belongs to a pretrained encoder.

    Raises:
        ArtifactError: there is none, or it has no fast (Rust) form.
    """
    if Path(path).is_dir() and not any(Path(path, name).is_file() for name in _VOCABULARIES):
        # transformers would make an empty tokenizer of the architecture's class, without a word.
        raise ArtifactError(f"{path} has no tokenizer: none of {', '.join(_VOCABULARIES)} is in it.")
    try:
        with _quiet_hub():
            tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError, KeyError) as error:
        raise ArtifactError(f"{path} has no tokenizer that can be loaded: {_first_line(error)}") from error
    if not tokenizer.is_fast:
        raise ArtifactError(f"{path} has only a slow tokenizer; doctune needs tokenizer.json in the model's folder.")
    return tokenizer


@contextmanager
def _quiet_hub() -> Iterator[None]:
    """Leave out what the hub's client says of every attempt; its error says the last one."""
    loggers = [logging.getLogger(name) for name in _HUB_LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def scratch_config(
    *, num_layers: int, hidden_size: int, num_heads: int, vocab_size: int, max_position_embeddings: int
) -> DistilBertConfig:
    """A small DistilBERT; the feed-forward layers are four times as wide as the hidden states, as in BERT."""
    return DistilBertConfig(
        n_layers=num_layers,
        dim=hidden_size,
        n_heads=num_heads,
        hidden_dim=4 * hidden_size,
        vocab_size=vocab_size,
        max_position_embeddings=max_position_embeddings,
        pad_token_id=0,
    )


def scratch_tokenizer(learnt: Tokenizer, max_length: int) -> PreTrainedTokenizerBase:
    """A learnt tokenizer in the form that transformers saves and loads."""
    return PreTrainedTokenizerFast(
        tokenizer_object=learnt,
        model_max_length=max_length,
        pad_token=PAD,
        unk_token=UNK,
        cls_token=CLS,
        sep_token=SEP,
        mask_token=MASK,
        model_input_names=["input_ids", "attention_mask"],
    )


def set_dropouts(config: PretrainedConfig, dropouts: Dropouts) -> None:
    """Write the dropout probabilities under the names that this architecture uses.

    Raises:
        ConfigError: the architecture has no such knob.
    """
    _set_first(config, _ENCODER_DROPOUTS, dropouts.encoder, "model.dropout")
    _set_first(config, _ATTENTION_DROPOUTS, dropouts.attention, "model.attention_dropout")
    _set_first(config, _HEAD_DROPOUTS, dropouts.head, "model.head_dropout")


def max_window(config: PretrainedConfig) -> int:
    """The most tokens that the encoder can read at once, special tokens included."""
    positions = int(config.max_position_embeddings)
    # RoBERTa and its kin count positions from the padding id + 1, so their table is that much longer than the window.
    if config.model_type in ("roberta", "xlm-roberta", "camembert"):
        return positions - int(config.pad_token_id) - 1
    return positions


def _set_first(config: PretrainedConfig, names: tuple[str, ...], value: float | None, key: str) -> None:
    if value is None:
        return
    known: list[str] = [name for name in names if hasattr(config, name)]
    if not known:
        raise ConfigError(f"{key}={value}: a {config.model_type} encoder has no such dropout.")
    for name in known:
        setattr(config, name, value)


def _refuse_missing_folder(path: str) -> None:
    looks_local = path.startswith((".", "/", "~")) or path.count("/") > 1 or "\\" in path
    if looks_local and not Path(path).expanduser().is_dir():
        raise ArtifactError(f"model.path={path}: there is no such folder.")


def _refuse_adapter(path: str) -> None:
    if Path(path, "adapter_config.json").is_file():
        raise ArtifactError(
            f"model.path={path} holds an adapter, which is no whole model. Of a run, `doctune export RUN --merge` "
            "makes one: model.path=RUN/model/merged."
        )


def _unavailable(path: str, error: Exception) -> str:
    if Path(path).is_dir():
        return f"model.path={path}: the folder holds no model that transformers can read: {_first_line(error)}"
    return (
        f"The pretrained model {path!r} is not on this machine and the hub was not reachable or does not have it "
        f"({_first_line(error)}). Three ways on: give a local folder (model.path=/path/to/model), choose another model "
        "(model=minilm, model=roberta, …), or train the small one that needs no download (model=distilbert_mini)."
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def describe(config: PretrainedConfig) -> dict[str, Any]:
    """What reports say of an encoder."""
    return {"architecture": config.model_type, "hidden_size": config.hidden_size, "layers": config.num_hidden_layers}
