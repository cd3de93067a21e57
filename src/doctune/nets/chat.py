"""How a model's tokenizer shows a conversation: by its chat template, or plainly where it has none."""

from __future__ import annotations

from collections.abc import Sequence

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from doctune.errors import ArtifactError
from doctune.text.chat import Message, PlainTemplate, Template, TemplateRefusedError


class ChatTemplate:
    """The chat template that comes with a tokenizer; it writes the special tokens itself."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer

    def __call__(self, messages: Sequence[Message], *, for_answer: bool) -> str:
        """See `text.chat.Template`."""
        turns = [{"role": message.role, "content": message.content} for message in messages]
        try:
            shown = self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=for_answer)
        except TemplateError as error:
            raise TemplateRefusedError(f"the chat template refuses it: {error}") from error
        return str(shown)


def template_of(tokenizer: PreTrainedTokenizerBase) -> Template:
    """The tokenizer's chat template, or the plain one.

    Raises:
        ArtifactError: the tokenizer has no token that ends a text, so that no answer would end.
    """
    if tokenizer.eos_token is None:
        raise ArtifactError(
            f"The tokenizer of {tokenizer.name_or_path} has no end token (eos_token), so no answer would ever end. "
            "Name one in its tokenizer_config.json."
        )
    if tokenizer.chat_template:
        return ChatTemplate(tokenizer)
    begins = tokenizer.bos_token_id is not None and tokenizer("").input_ids[:1] == [tokenizer.bos_token_id]
    return PlainTemplate(str(tokenizer.bos_token) if begins else "", str(tokenizer.eos_token))


def padding_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that fills up batches: nothing sees it, so that of the end does where there is none."""
    return int(tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)
