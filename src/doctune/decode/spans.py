"""Logits of start and end -> the best spans of each window, found on the device that the logits are on.

Shapes: B windows, T tokens, L tokens of the longest answer, S spans that are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from doctune.decode.answers import SpanSettings, WindowSpans


class WindowLogits(NamedTuple):
    """What B windows are searched by.

    Attributes:
        start_logits, end_logits: (B, T).
        context: whether a token belongs to the context, (B, T).
        cls: the token that stands for no answer, (B,).
        places: the characters of each token in the context, (B, T, 2).
    """

    start_logits: Tensor
    end_logits: Tensor
    context: Tensor
    cls: Tensor
    places: Tensor


def joined_logits(batches: Sequence[WindowLogits]) -> WindowLogits:
    """The windows of several batches, one after another, padded to the longest."""
    width = max(batch.context.shape[1] for batch in batches)
    return WindowLogits(
        *(torch.cat([_widened(each, width) for each in column]) for column in zip(*batches, strict=True))
    )


def best_spans(windows: WindowLogits, settings: SpanSettings) -> WindowSpans:
    """The best spans within the context of each window, of all there are; on the CPU.

    A span's score is its start logit plus its end logit, as in BERT (Devlin et al. 2019, section 4.2). The null score
    is the same of the CLS token: no answer here.

    No more than S starts can have one of the S best spans: those that are best with the best end in their reach, a
    running maximum. Neither memory nor time depends on the number of windows that came before.
    """
    start_logits, end_logits, context, cls, places = windows
    num_tokens, length, count = context.shape[1], settings.max_answer_length, settings.n_best
    logits = torch.stack([start_logits, end_logits]).float()
    null = logits.gather(2, cls.expand(2, -1)[:, :, None]).sum(dim=0)  # (B, 1)
    starts, ends = pad(
        logits.masked_fill_(~context | logits.isnan(), -torch.inf), (0, count + length - 1), value=-torch.inf
    )
    best_reached = torch.max_pool1d(ends, length, stride=1)  # (B, T + S)
    firsts = (starts[:, : num_tokens + count] + best_reached).topk(count).indices  # (B, S)
    rows = torch.arange(len(firsts), device=firsts.device)[:, None]
    pairs = starts.gather(1, firsts)[:, :, None] + ends.unfold(1, length, 1)[rows, firsts]  # (B, S, L)
    best = pairs.flatten(1).topk(count)
    chosen = firsts.gather(1, best.indices // length)
    found = (
        best.values,
        places[rows, chosen.clamp(max=num_tokens - 1), 0],
        places[rows, (chosen + best.indices % length).clamp_(max=num_tokens - 1), 1],
        null[:, 0],
    )
    return WindowSpans(*(each.detach().cpu().numpy() for each in found))


def _widened(values: Tensor, width: int) -> Tensor:
    """(B, T, …) with zeros, or False, up to T = width; (B,) as it is."""
    if values.dim() == 1 or values.shape[1] == width:
        return values
    return pad(values, (*[0, 0] * (values.dim() - 2), 0, width - values.shape[1]))
