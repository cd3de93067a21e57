"""Logits of start and end -> the best spans of each window, on the device that the logits are on.

Shapes: B windows, T tokens, K starts and ends that are looked at, S spans that are kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from doctune.decode.answers import SpanSettings, WindowSpans


@dataclass(frozen=True)
class Spans:
    """The best spans of each window by falling score: scores (B, S), first and last tokens (B, S), null scores (B,).

    A span's score is its start logit plus its end logit, as in BERT (Devlin et al. 2019, section 4.2); where a window
    has fewer spans the rest have the score -inf. The null score is the same of the CLS token: no answer here.
    """

    scores: Tensor
    starts: Tensor
    ends: Tensor
    null_scores: Tensor

    def in_context(self, places: Tensor | NDArray[np.int32]) -> list[WindowSpans]:
        """One record per window, with characters of the context in place of tokens; on the CPU.

        Args:
            places: (B, T, 2), the characters of each token.
        """
        where = np.asarray(places.cpu() if isinstance(places, Tensor) else places)
        rows = np.arange(len(where))[:, None]
        firsts = where[rows, self.starts.cpu().numpy(), 0]  # (B, S)
        lasts = where[rows, self.ends.cpu().numpy(), 1]
        scores, nulls = (each.detach().float().cpu().numpy() for each in (self.scores, self.null_scores))
        return [WindowSpans(*each) for each in zip(scores, firsts, lasts, nulls.tolist(), strict=True)]


def best_spans(start_logits: Tensor, end_logits: Tensor, context: Tensor, cls: Tensor, settings: SpanSettings) -> Spans:
    """The best spans within the context of each window.

    All pairs of the K best starts and the K best ends are scored at once, so that neither memory nor time depends on
    the number of windows that came before.

    Args:
        start_logits, end_logits: (B, T).
        context: (B, T), whether a token belongs to the context.
        cls: (B,), the token that stands for no answer.
        settings: limits.
    """
    k = min(settings.top_k, start_logits.shape[1])
    inside = torch.stack([start_logits, end_logits]).masked_fill_(~context, -torch.inf)
    (start_scores, end_scores), (starts, ends) = inside.topk(k)  # (B, K) each
    length = ends[:, None, :] - starts[:, :, None]  # (B, K, K)
    pairs = start_scores[:, :, None] + end_scores[:, None, :]
    pairs.masked_fill_((length < 0).logical_or_(length >= settings.max_answer_length), -torch.inf)
    best = pairs.flatten(1).topk(min(settings.n_best, k * k), dim=1)  # (B, S)
    null = start_logits.gather(1, cls[:, None]) + end_logits.gather(1, cls[:, None])
    return Spans(
        best.values,
        starts.gather(1, best.indices // k),
        ends.gather(1, best.indices % k),
        null[:, 0],
    )
