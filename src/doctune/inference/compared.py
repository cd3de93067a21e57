"""How far apart two forms of the same nets are on real examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from doctune.inference.artifact import Artifact
from doctune.inference.engine import Engine
from doctune.inference.examples import Examples
from doctune.inference.graphs import load_net
from doctune.inference.nets import Arrays, Net
from doctune.nets.chat import template_of
from doctune.nets.encoder import max_window, pretrained_tokenizer
from doctune.text.chat import ASSISTANT, USER, Message


def largest_difference(
    artifact: Artifact, nets: Mapping[str, Net], others: Mapping[str, Net], examples: Examples
) -> float:
    """The largest difference between their outputs on the same arrays; infinite where one of them is no number.

    Args:
        artifact: of the model folder.
        nets: by name; what the examples are computed by.
        others: the same nets in another form.
        examples: real ones.
    """
    twins = {name: _Compared(nets[name], other) for name, other in others.items()}
    examples.answers(Engine(artifact, twins, "torch"))
    return max(twin.max_difference for twin in twins.values())


def largest_logit_difference(artifact: Artifact, other: Artifact, texts: Sequence[tuple[str, str]]) -> float:
    """The largest difference between the logits of two language models that read the same texts; infinite as above.

    Args:
        artifact: of a model folder; its tokenizer and template show the texts.
        other: the same model in another form.
        texts: prompts, each with its answer; what is longer than the model reads is cut.
    """
    nets = [load_net(each) for each in (artifact, other)]
    tokenizer = pretrained_tokenizer(str(artifact.folder))
    template, window = template_of(tokenizer), max_window(nets[0].config)
    largest = 0.0
    for prompt, answer in texts:
        shown = template([Message(USER, prompt), Message(ASSISTANT, answer)], for_answer=False)
        ids = torch.tensor([tokenizer(shown, add_special_tokens=False)["input_ids"][:window]])
        with torch.inference_mode():
            found, others = (net(input_ids=ids, use_cache=False).logits.float() for net in nets)
        difference = float((found - others).abs().max())
        largest = max(largest, difference if np.isfinite(difference) else np.inf)
    return largest


class _Compared:
    """Computes by one net, and notes how far another is from it on the same arrays."""

    def __init__(self, net: Net, other: Net) -> None:
        self._net = net
        self._other = other
        self.max_difference = 0.0

    def __call__(self, arrays: Arrays) -> dict[str, Any]:
        found, others = self._net(arrays), self._other(arrays)
        for name, array in found.items():
            difference = float(np.abs(array - others[name]).max())
            self.max_difference = max(self.max_difference, difference if np.isfinite(difference) else np.inf)
        return found
