"""Losses as sums over documents, so that any number of micro-batches can share one normaliser.

Shapes: B documents, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def class_weights(kind: str, counts: Sequence[int], beta: float = 0.999) -> Tensor:
    """The weight of each class in the loss, shape (L,); except for none, their mean over the training documents is 1.

    Args:
        kind: none: ones. balanced: in proportion to 1 / count (King & Zeng 2001). effective: in proportion to
            (1 - beta) / (1 - beta^count), one over the effective number of samples (Cui et al. 2019, section 4).
        counts: training documents per label, in id order; balanced and effective give a class without any weight 0.
        beta: for effective, in [0, 1): 0 weighs all classes alike, towards 1 the weights become the balanced ones.

    Raises:
        ValueError: no such kind.
    """
    if kind == "none":
        return torch.ones(len(counts))
    occurrences = torch.tensor(counts, dtype=torch.float64)
    if kind == "balanced":
        shares = 1 / occurrences
    elif kind == "effective":
        shares = (1 - beta) / (1 - beta**occurrences)
    else:
        raise ValueError(f"class weights {kind!r} are not a choice: none, balanced, effective.")
    shares = torch.where(occurrences > 0, shares, 0.0)
    return (shares * occurrences.sum() / (shares @ occurrences)).float()


def cross_entropy_sum(logits: Tensor, targets: Tensor, weights: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Weighted cross entropy summed over the documents, a scalar.

    Args:
        logits: (B, L).
        targets: (B,) label ids.
        weights: (L,) from `class_weights`.
        label_smoothing: share of the target's probability that is spread over all labels (Szegedy et al. 2016).
    """
    return F.cross_entropy(logits, targets, weight=weights, label_smoothing=label_smoothing, reduction="sum")


def focal_sum(logits: Tensor, targets: Tensor, weights: Tensor, gamma: float, label_smoothing: float = 0.0) -> Tensor:
    """Focal loss (Lin et al. 2017, section 3.2) summed over the documents, a scalar.

    Each label's part of the cross entropy is scaled by (1 - its probability)^gamma, so that what the model is already
    sure of counts less. With label smoothing the parts of the other labels stay, and still pull an overconfident
    model back. Arguments as in `cross_entropy_sum`, to which it is equal at gamma 0.

    Args:
        gamma: how much less a sure document counts, at least 0; the paper uses 2.
    """
    log_probabilities = F.log_softmax(logits, dim=1)  # (B, L)
    # The slope of a power below 1 has no bound at 0, where a saturated softmax puts it.
    doubt = (-torch.expm1(log_probabilities)).clamp_min(torch.finfo(log_probabilities.dtype).eps)
    spread = label_smoothing / logits.shape[1]
    wanted = torch.full_like(log_probabilities, spread)
    wanted.scatter_(1, targets.unsqueeze(1), 1 - label_smoothing + spread)
    return -(wanted * weights * doubt**gamma * log_probabilities).sum()


def span_losses(
    start_logits: Tensor,
    end_logits: Tensor,
    starts: Tensor,
    ends: Tensor,
    context: Tensor,
    cls: Tensor,
    *,
    label_smoothing: float = 0.0,
) -> Tensor:
    """The mean cross entropy of an answer's start and end, (B,); 0 where they are negative: nobody knows them.

    Only tokens of the context and the one that stands for no answer can be chosen, so that a model that knows nothing
    has the loss ln(number of these).

    Args:
        start_logits, end_logits: (B, T).
        starts, ends: (B,) tokens.
        context: (B, T), whether a token belongs to the context.
        cls: (B,), the token for no answer.
        label_smoothing: share of the target's probability that is spread over the tokens that can be chosen.
    """
    allowed = context.scatter(1, cls[:, None], True)
    both = (
        _position_losses(start_logits, starts, allowed, label_smoothing),
        _position_losses(end_logits, ends, allowed, label_smoothing),
    )
    return torch.stack(both).mean(dim=0)


def _position_losses(logits: Tensor, targets: Tensor, allowed: Tensor, label_smoothing: float) -> Tensor:
    log_chances = F.log_softmax(logits.masked_fill(~allowed, -torch.inf), dim=1)
    losses = F.nll_loss(log_chances, targets, reduction="none", ignore_index=-100)
    if not label_smoothing:
        return losses
    spread = -log_chances.masked_fill(~allowed, 0.0).sum(dim=1) / allowed.sum(dim=1)
    return torch.where(targets >= 0, (1 - label_smoothing) * losses + label_smoothing * spread, losses)


class DocumentLoss(nn.Module):
    """The training loss of a classifier as one object, which follows its net to a device.

    Args:
        name: cross_entropy or focal.
        weights: (L,) from `class_weights`; not part of the state dict, because they come from the data.
        label_smoothing: see `cross_entropy_sum`.
        gamma: see `focal_sum`; for focal, and only for focal.

    Raises:
        ValueError: no such loss, focal without gamma, or cross_entropy with one.
    """

    weights: Tensor

    def __init__(self, name: str, weights: Tensor, *, label_smoothing: float = 0.0, gamma: float | None = None) -> None:
        super().__init__()
        if name not in ("cross_entropy", "focal"):
            raise ValueError(f"loss {name!r} is not a choice: cross_entropy, focal.")
        if (name == "focal") != (gamma is not None):
            raise ValueError(f"loss {name!r} with gamma={gamma}: focal needs a gamma, cross_entropy takes none.")
        self.name = name
        self.label_smoothing = label_smoothing
        self.gamma = gamma
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The sum over documents, a scalar, of logits (B, L) and label ids (B,)."""
        if self.gamma is None:
            return cross_entropy_sum(logits, targets, self.weights, self.label_smoothing)
        return focal_sum(logits, targets, self.weights, self.gamma, self.label_smoothing)

    def describe(self) -> dict[str, Any]:
        """What it was made of, as plain values."""
        return {
            "name": self.name,
            "weights": self.weights.tolist(),
            "label_smoothing": self.label_smoothing,
            "gamma": self.gamma,
        }
