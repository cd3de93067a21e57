"""Losses of several targets as sums over texts, and how they become one.

A text whose target is missing adds nothing to that target's loss. Each target has a normaliser of its own, the texts of
the whole effective batch for which it is known, so that any number of micro-batches can share it:

    target_k   = sum over the effective batch / how many of its texts know target k
    objective  = sum over k of  weight_k * target_k                              (fixed weights)
               = sum over k of  exp(-s_k) * target_k + s_k / 2                   (learned weights)

The loss of a text is the negative log likelihood of what is true of it; of a multi-label target the sum over labels.
Their mean, usual where there is one target, would let 28 labels move a shared encoder 28 times less than one choice of
28: on GoEmotions they then hardly learnt beside two easier targets (`benchmarks/joint_heads.py`). What training and
validation are compared by (`plain_sums`) is the mean, in which a gap means the same for any number of labels.

The second is A. Kendall, Y. Gal and R. Cipolla, "Multi-task learning using uncertainty to weigh losses for scene
geometry and semantics", CVPR 2018, section 3.2, in its form for classification, with s = log sigma².

Shapes: B texts, L labels of a target, K targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from doctune.corpus.targets import MISSING
from doctune.nets.losses import DocumentLoss

# Log variances stay within ± this, and weights within 1/20 to 20. Without a bound the weight of a target that is nearly
# solved grows as 1 / (2 * loss): the gradient of its logarithm is what learns then, and it never fades.
LOG_VARIANCE_BOUND = 3.0


class LossSums(NamedTuple):
    """The loss of each target, (K,), summed over the texts that know it, and how many these are, (K,)."""

    totals: Tensor
    counts: Tensor


def positive_weights(kind: str, counts: Sequence[int], num_texts: int, beta: float = 0.999) -> Tensor:
    """How much each label counts where it applies, against where it does not, (L,).

    Args:
        kind: none: ones. balanced: negatives / positives, so that both sides of a label weigh alike. effective: the
            same of effective numbers, (1 - beta^negatives) / (1 - beta^positives) (Cui et al. 2019, section 4), which
            is at most 1 / (1 - beta^positives): gentler with rare labels, which balanced weighs by hundreds.
        counts: training texts with each label, (L,); a label without any gets 1.
        num_texts: training texts that know the target.
        beta: for effective, in [0, 1): 0 weighs all alike, towards 1 the weights become the balanced ones.

    Raises:
        ValueError: no such kind.
    """
    positives = torch.tensor(counts, dtype=torch.float64)
    negatives = num_texts - positives
    if kind == "none":
        return torch.ones(len(counts))
    if kind == "balanced":
        weights = negatives / positives
    elif kind == "effective":
        weights = (1 - beta**negatives) / (1 - beta**positives)
    else:
        raise ValueError(f"positive weights {kind!r} are not a choice: none, balanced, effective.")
    # A label that all texts have, or none, has nothing to be balanced.
    return torch.where((positives > 0) & (negatives > 0), weights, 1.0).float()


def binary_cross_entropy_sum(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Binary cross entropy, summed over labels and texts, a scalar.

    Args:
        logits: (B, L).
        targets: (B, L), 0 or 1.
        weights: (L,) from `positive_weights`.
    """
    wanted = targets.to(logits.dtype)
    return F.binary_cross_entropy_with_logits(logits, wanted, pos_weight=weights, reduction="sum")


def binary_focal_sum(logits: Tensor, targets: Tensor, weights: Tensor, gamma: float) -> Tensor:
    """Focal loss of each label (Lin et al. 2017, section 3.2), summed over labels and texts, a scalar.

    Arguments as in `binary_cross_entropy_sum`, to which it is equal at gamma 0.

    Args:
        gamma: how much less a label counts of which the model is sure, at least 0; the paper uses 2.
    """
    applies = targets.to(torch.bool)
    log_right = F.logsigmoid(torch.where(applies, logits, -logits))  # log probability of what is true
    # The slope of a power below 1 has no bound at 0, where a saturated sigmoid puts it.
    doubt = (-torch.expm1(log_right)).clamp_min(torch.finfo(log_right.dtype).eps)
    weighted = torch.where(applies, weights, 1.0) * doubt**gamma * log_right
    return -weighted.sum()


class LabelSetLoss(nn.Module):
    """The training loss of a multi-label target as one object, which follows its net to a device.

    Args:
        name: cross_entropy (binary, of each label) or focal.
        weights: (L,) from `positive_weights`; not part of the state dict, because they come from the data.
        gamma: see `binary_focal_sum`; for focal, and only for focal.

    Raises:
        ValueError: no such loss, focal without gamma, or cross_entropy with one.
    """

    weights: Tensor

    def __init__(self, name: str, weights: Tensor, *, gamma: float | None = None) -> None:
        super().__init__()
        if name not in ("cross_entropy", "focal"):
            raise ValueError(f"loss {name!r} is not a choice: cross_entropy, focal.")
        if (name == "focal") != (gamma is not None):
            raise ValueError(f"loss {name!r} with gamma={gamma}: focal needs a gamma, cross_entropy takes none.")
        self.name = name
        self.gamma = gamma
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The sum over texts, a scalar, of logits (B, L) and targets (B, L)."""
        if self.gamma is None:
            return binary_cross_entropy_sum(logits, targets, self.weights)
        return binary_focal_sum(logits, targets, self.weights, self.gamma)

    def describe(self) -> dict[str, Any]:
        """What it was made of, as plain values."""
        return {"name": self.name, "weights": self.weights.tolist(), "gamma": self.gamma}


class TargetLosses(nn.Module):
    """The losses of all targets, each over the texts that know it.

    Args:
        losses: in the order of the heads: a `DocumentLoss` for a single-label target, a `LabelSetLoss` for a
            multi-label one.
    """

    def __init__(self, losses: Sequence[DocumentLoss | LabelSetLoss]) -> None:
        super().__init__()
        self.losses = nn.ModuleList(losses)

    def forward(self, logits: Sequence[Tensor], targets: Sequence[Tensor]) -> LossSums:
        """Sums and counts of a micro-batch.

        Args:
            logits: (B, L) for each target.
            targets: label ids (B,) for a single-label target, 0 or 1 (B, L) for a multi-label one; MISSING where it is
                (see `corpus.targets.truth`).
        """
        return _sums(list(self.losses), logits, targets)

    def describe(self) -> list[dict[str, Any]]:
        """What they were made of, as plain values."""
        return [loss.describe() for loss in self.losses]  # type: ignore[operator]  # all of them can


def plain_sums(logits: Sequence[Tensor], targets: Sequence[Tensor]) -> LossSums:
    """Unweighted, unsmoothed cross entropy, by which training and validation are compared; else as `TargetLosses`.

    Multi-label targets have the binary one, the mean over labels.
    """
    return _sums([_plain_single if each.ndim == 1 else _plain_multi for each in targets], logits, targets)


class FixedBalance(nn.Module):
    """The weighted sum of the targets' mean losses.

    Args:
        weights: (K,), at least 0.

    Raises:
        ValueError: a negative weight, or none that is positive.
    """

    weights: Tensor

    def __init__(self, weights: Sequence[float]) -> None:
        super().__init__()
        if min(weights) < 0 or max(weights) == 0:
            raise ValueError(f"weights={list(weights)}: none may be negative, and one must be above 0.")
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float32), persistent=False)

    def forward(self, sums: LossSums, scales: Tensor) -> Tensor:
        """What a micro-batch adds to the objective of its effective batch, a scalar.

        Args:
            sums: of the micro-batch.
            scales: (K,), 1 / texts of the effective batch that know each target, 0 where none does; times whatever
                undoes a later division, such as that by the accumulation.
        """
        return (self.weights * sums.totals * scales).sum()

    def current_weights(self) -> Tensor:
        """What each target's mean loss is multiplied by, (K,)."""
        return self.weights


class UncertaintyBalance(nn.Module):
    """Homoscedastic uncertainty: a learned log variance s for each target, see the top of this file.

    A target that cannot be learned keeps a high loss, and its weight exp(-s) falls towards 1 / (2 * loss). All begin
    with weight 1. The log variances need a rate of their own, of some 0.01: at an encoder's rate of 2e-5 they would not
    move in a whole run. They must not be decayed. They stay within ± LOG_VARIANCE_BOUND.

    Args:
        num_targets: K.
    """

    def __init__(self, num_targets: int) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.zeros(num_targets))

    def log_variances(self) -> Tensor:
        """s, (K,), bounded by a tanh, which has a slope everywhere: a clamp would hold what has reached it for good."""
        return LOG_VARIANCE_BOUND * torch.tanh(self.raw / LOG_VARIANCE_BOUND)

    def forward(self, sums: LossSums, scales: Tensor) -> Tensor:
        """What a micro-batch adds to the objective of its effective batch, a scalar; see `FixedBalance.forward`.

        The penalty s / 2 is shared out to the texts that know the target, so that the micro-batches add up to it.
        """
        s = self.log_variances()
        return ((torch.exp(-s) * sums.totals + s / 2 * sums.counts) * scales).sum()

    def current_weights(self) -> Tensor:
        """What each target's mean loss is multiplied by, (K,), without gradients."""
        return torch.exp(-self.log_variances()).detach()

    def parameter_group(self, lr: float) -> dict[str, Any]:
        """The optimiser's group of the log variances, without decay."""
        return {"name": "balance", "params": [self.raw], "lr": lr, "weight_decay": 0.0}


def _sums(losses: Sequence[Any], logits: Sequence[Tensor], targets: Sequence[Tensor]) -> LossSums:
    totals, counts = [], []
    for loss, scores, wanted in zip(losses, logits, targets, strict=True):
        known = (wanted if wanted.ndim == 1 else wanted[:, 0]) != MISSING
        # The empty sum of a loss has gradients, which are 0: all heads take part in each backward pass.
        totals.append(loss(scores[known], wanted[known]))
        counts.append(known.sum())
    return LossSums(torch.stack(totals), torch.stack(counts))


def _plain_single(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits, targets, reduction="sum")


def _plain_multi(logits: Tensor, targets: Tensor) -> Tensor:
    ones = torch.ones_like(logits[0] if len(logits) else logits.sum(dim=0))
    return binary_cross_entropy_sum(logits, targets, ones) / logits.shape[1]
