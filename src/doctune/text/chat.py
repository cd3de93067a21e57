"""A conversation -> the text that a causal language model reads, and which characters of it the model is to write.

The text comes from a template: the chat template of a tokenizer, or `PlainTemplate` for a tokenizer that has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

SYSTEM, USER, ASSISTANT = "system", "user", "assistant"
ROLES = (SYSTEM, USER, ASSISTANT)


@dataclass(frozen=True)
class Message:
    """A turn of a conversation; `role` is one of `ROLES`."""

    role: str
    content: str


class TemplateRefusedError(Exception):
    """A template does not take these messages; the reason, for the account."""


class Template(Protocol):
    """Messages as one text; with `for_answer` it ends where the assistant's next turn begins.

    Raises:
        TemplateRefusedError: the template does not take them.
    """

    def __call__(self, messages: Sequence[Message], *, for_answer: bool) -> str:
        """The text."""


@dataclass(frozen=True)
class Rendered:
    """A text with the spans, from and to a character, that the model is to write."""

    text: str
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class PlainTemplate:
    """For a tokenizer without a chat template: a heading for each turn, the end token after the assistant's.

        ### User:
        Is it late?

        ### Assistant:
        Very.</s>

    Attributes:
        begin: the token that the tokenizer sets before every text; "" where it sets none.
        end: the token that ends an answer.
    """

    begin: str
    end: str

    def __call__(self, messages: Sequence[Message], *, for_answer: bool) -> str:
        """The turns, an empty line between them."""
        turns = [f"### {each.role.capitalize()}:\n{each.content}{self._end_of(each)}" for each in messages]
        if for_answer:
            turns.append("### Assistant:\n")
        return self.begin + "\n\n".join(turns)

    def _end_of(self, message: Message) -> str:
        return self.end if message.role == ASSISTANT else ""


def render(messages: Sequence[Message], template: Template) -> tuple[Rendered, ...]:
    """What the model learns from a conversation that ends with the assistant: all turns of the assistant, end tokens
    included, each after exactly what a prompt would show before it.

    One text has them all, unless the template writes earlier turns otherwise when others follow, as Mistral's moves the
    system's words to the last question: then there is a text for each turn of the assistant.

    Raises:
        TemplateRefusedError: the template does not take the messages, or shows no place where an answer begins.
    """
    turns = [place for place, message in enumerate(messages) if message.role == ASSISTANT]
    texts = [_turn(messages[: place + 1], template) for place in turns]
    whole = texts[-1].text
    if all(whole.startswith(each.text) for each in texts):
        return (Rendered(whole, tuple(span for each in texts for span in each.spans)),)
    return tuple(texts)


def _turn(messages: Sequence[Message], template: Template) -> Rendered:
    """A conversation with its last turn to be written."""
    whole = template(messages, for_answer=False)
    # A few templates begin an answer otherwise than they ask for it, with a place for thoughts.
    for for_answer in (True, False):
        prompt = template(messages[:-1], for_answer=for_answer)
        if whole.startswith(prompt) and len(prompt) < len(whole):
            return Rendered(whole, ((len(prompt), len(whole)),))
    raise TemplateRefusedError("the chat template does not show an answer after what it shows of its prompt")
