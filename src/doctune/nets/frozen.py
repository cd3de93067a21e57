"""A frozen encoder gives the same output in every epoch: compute it once, then train the head on what was stored.

Shapes: B documents, T tokens, F stored rows (first token; pooled output where there is one), D hidden, L labels.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling


def keep_encoder_in_eval(net: PreTrainedModel) -> None:
    """Switch the encoder's dropout off, its pooler's included, and leave the head in the mode that it is in.

    To be repeated after each `net.train()`, which switches it on again.
    """
    net.base_model.eval()


def first_token_features(net: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """What the head reads of the encoder's output, (B, F, D), without gradients and without dropout.

    The first row is the last hidden state of token 0, the second the pooler's output where the encoder has a pooler.

    Args:
        net: a sequence classifier.
        input_ids: (B, T).
        attention_mask: (B, T).
    """
    with _evaluating(net.base_model), torch.no_grad():
        output = net.base_model(input_ids=input_ids, attention_mask=attention_mask, return_dict=True)
    rows = [output.last_hidden_state[:, 0]]
    pooled = getattr(output, "pooler_output", None)
    if pooled is not None:
        rows.append(pooled)
    return torch.stack(rows, dim=1)


def head_logits(net: PreTrainedModel, features: Tensor) -> Tensor:
    """Logits (B, L) of stored features (B, F, D): the net's own forward, over an encoder that answers with them.

    Gradients reach the head, never the encoder; the head's dropout follows its mode.
    """
    stored = BaseModelOutputWithPooling(
        last_hidden_state=features[:, :1], pooler_output=features[:, 1] if features.shape[1] > 1 else None
    )
    # A second net that shares the head's modules, so that the first is never taken apart.
    head = copy.copy(net)
    head._modules = {**net._modules, net.base_model_prefix: _Stored(stored)}
    logits: Tensor = head(inputs_embeds=stored.last_hidden_state).logits
    return logits


def head_reads_first_token(net: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor) -> bool:
    """Whether the head needs no more of the encoder's output than `first_token_features`, tried on one batch.

    A head over the mean or the last token needs more. The batch must have documents of several tokens, and the head
    random or trained weights: with all of them zero, every head looks alike.
    """
    with _evaluating(net), torch.no_grad():
        expected = net(input_ids=input_ids, attention_mask=attention_mask).logits
        try:
            logits = head_logits(net, first_token_features(net, input_ids, attention_mask))
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):
            # Heads that look for the end of the text in input_ids, or for an output that was not stored.
            return False
        return logits.shape == expected.shape and torch.allclose(logits, expected, rtol=1e-4, atol=1e-5)


class _Stored(nn.Module):
    """Stands in for an encoder: whatever it is asked, it answers with what was stored."""

    def __init__(self, output: BaseModelOutputWithPooling) -> None:
        super().__init__()
        self.output = output

    def forward(self, *args: Any, **kwargs: Any) -> BaseModelOutputWithPooling:
        return self.output


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; afterwards each submodule is in the mode that it was in."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
