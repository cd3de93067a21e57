"""What contradicts itself in a configuration that tunes a decoder, each in a sentence."""

from __future__ import annotations

from collections.abc import Iterator

from doctune.corpus.duplicates import MIN_THRESHOLD
from doctune.training.config_data import InstructionsConfig
from doctune.training.config_schema import CausalConfig, Config

TOO_LONG = ("leave_out", "truncate")
# Heads that start from random weights want a training of their own; a decoder's head is as old as the rest.
_FOR_NEW_HEADS = ("head", "gradual")


def kind_problems(config: Config) -> Iterator[str]:
    """A decoder writes text and an encoder reads it: each has data of its own."""
    name, kind = config.model.name, config.data.kind
    is_decoder, is_writing = isinstance(config.model, CausalConfig), isinstance(config.data, InstructionsConfig)
    if is_decoder and not is_writing:
        yield (
            f"model={name} is a decoder, which writes text, and data={kind} needs an encoder, such as model=minilm. "
            "A decoder is tuned with data=instructions."
        )
    if is_writing and not is_decoder:
        yield (
            f"data=instructions tunes a decoder, which writes text, and model={name} is an encoder. Choose "
            "model=mistral; model.path=FOLDER_OR_NAME takes any other causal language model."
        )


def instruction_problems(config: Config, data: InstructionsConfig) -> Iterator[str]:
    """Every contradiction: key, value found and values allowed."""
    yield from _data_problems(config, data)
    strategy = config.finetune.strategy
    if strategy in _FOR_NEW_HEADS:
        yield (
            f"finetune={strategy} is for a new head on an encoder; data=instructions has none, the decoder's own "
            "output layer is as trained as the rest. Choose finetune=full, partial, lora or qlora."
        )
    if config.loss.name != "cross_entropy":
        yield f"loss={config.loss.name} is for classes; data=instructions needs loss=cross_entropy."
    if config.model.head_dropout is not None:
        yield (
            f"model.head_dropout={config.model.head_dropout} is for a head on an encoder; data=instructions has none. "
            "model.dropout is that of the decoder."
        )


def _data_problems(config: Config, data: InstructionsConfig) -> Iterator[str]:
    if not data.train:
        yield "data.train is empty; name at least one file: data.train=[train.jsonl]."
    if data.too_long not in TOO_LONG:
        yield f"data.too_long={data.too_long} is not a choice: {', '.join(TOO_LONG)}."
    if not MIN_THRESHOLD <= data.duplicate_threshold <= 1:
        yield f"data.duplicate_threshold={data.duplicate_threshold} must be between {MIN_THRESHOLD} and 1."
    if not 0 <= data.max_unusable <= 1:
        yield f"data.max_unusable={data.max_unusable} must be between 0 and 1."
    if data.generate < 0:
        yield f"data.generate={data.generate} must not be negative; 0 generates nothing."
    if data.max_new_tokens < 1:
        yield f"data.max_new_tokens={data.max_new_tokens} must be at least 1."
    if data.sampling.method != "none":
        yield f"data.sampling.method={data.sampling.method} is for classes; data=instructions has none."
    if data.augment.random_window or data.augment.token_dropout:
        yield "data.augment changes what an encoder reads; data=instructions shows conversations as they are."
    if config.split.kind == "kfold" and (data.val or data.test):
        yield (
            "data.val and data.test name the conversations that choose and judge, and split=kfold makes every fold "
            "judge: data.val=[] data.test=[]."
        )
