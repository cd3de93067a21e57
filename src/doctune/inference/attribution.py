"""What each token adds to a score: layer integrated gradients on a net's word embeddings.

The method is that of M. Sundararajan, A. Taly and Q. Yan, "Axiomatic Attribution for Deep Networks", ICML 2017, as
Captum computes it, with the quadrature of Gauss and Legendre. The embeddings go in a straight line from the baseline's
to the text's; whatever else a net derives from its token ids, such as positions, stays that of the text.

Shapes: S steps of a pass, T tokens, K scores (logits), D hidden.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from captum.attr import LayerIntegratedGradients
from numpy.typing import NDArray
from torch import Tensor, nn

from doctune.inference.explanation import Completeness

# Where attributions do not add up, steps are doubled while there are at most so many.
MAX_STEPS = 400
# Memory grows with the tokens of a pass, the result does not depend on them.
_TOKENS_PER_PASS = 4096

Scores = Callable[[Tensor], Tensor]  # ids (S, T) -> scores (S, K), each row computed by itself


@dataclass(frozen=True)
class TokenAttributions:
    """What was found.

    Attributes:
        values: (T,), what each token adds.
        scores: (K,) of the text.
        baseline_scores: (K,) of the baseline.
        completeness: of the values, for the score that was explained.
    """

    values: NDArray[np.float64]
    scores: NDArray[np.float64]
    baseline_scores: NDArray[np.float64]
    completeness: Completeness


def attribute(
    scores: Scores, layer: nn.Module, ids: Tensor, baseline: Tensor, index: int, *, steps: int
) -> TokenAttributions:
    """Integrated gradients, with twice the steps again and again until they add up or there would be too many.

    Args:
        scores: the net, in evaluation mode.
        layer: its word embeddings, which `scores` looks up once.
        ids: (T,), the text.
        baseline: (T,), what it is compared with; a token that is the same in both adds exactly 0.
        index: which of the K scores is explained.
        steps: to begin with; more than `MAX_STEPS` are taken as they are.
    """
    while True:
        found = integrated_gradients(scores, layer, ids, baseline, index, steps=steps)
        if found.completeness.holds or 2 * steps > MAX_STEPS:
            return found
        steps *= 2


def integrated_gradients(
    scores: Scores, layer: nn.Module, ids: Tensor, baseline: Tensor, index: int, *, steps: int
) -> TokenAttributions:
    """The same, once; see `attribute`."""
    by_dimension = LayerIntegratedGradients(scores, layer).attribute(
        ids.unsqueeze(0),
        baselines=baseline.unsqueeze(0),
        target=index,
        n_steps=steps,
        internal_batch_size=max(1, _TOKENS_PER_PASS // len(ids)),
    )  # (1, T, D)
    values = by_dimension[0].detach().double().sum(dim=-1).numpy()
    with torch.no_grad():
        at_text = _scores_at(scores, layer, ids, ids)
        at_baseline = _scores_at(scores, layer, ids, baseline)
    completeness = Completeness(float(at_text[index]), float(at_baseline[index]), float(values.sum()), steps)
    return TokenAttributions(values, at_text, at_baseline, completeness)


def _scores_at(scores: Scores, layer: nn.Module, ids: Tensor, embedded: Tensor) -> NDArray[np.float64]:
    """Scores (K,) of a text whose word embeddings are those of other ids.

    Not the scores of these ids themselves: RoBERTa counts no position for padding.
    """
    vectors = layer(embedded.unsqueeze(0))
    hook = layer.register_forward_hook(lambda *_: vectors)
    try:
        return scores(ids.unsqueeze(0))[0].double().numpy()
    finally:
        hook.remove()
