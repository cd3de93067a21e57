"""How good written completions are: exact match and the words they share with their references; perplexity.

Texts are compared after SQuAD's normalisation (P. Rajpurkar et al., EMNLP 2016; `squad.normalise_answer`): lower case,
without ASCII punctuation, without the words a, an and the, words separated by single blanks. Precision is the share of
a completion's words that its reference has, too, recall the share of the reference's words that the completion has,
each word as often as it occurs, F1 their harmonic mean. Two texts without words are equal: all scores are 1.

Perplexity is the exponential of the mean cross entropy of all tokens together; its interval resamples conversations,
whose tokens are not independent of each other.

Shapes: N conversations.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doctune.scoring.intervals import Difference, bootstrap_mean_interval, percentile_interval, resampled_values
from doctune.scoring.squad import normalise_answer

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CompletionScores:
    """The scores of each completion, (N,) each, as shares."""

    exact_match: Floats
    precision: Floats
    recall: Floats
    f1: Floats


def score_completions(predictions: Sequence[str], references: Sequence[str]) -> CompletionScores:
    """Score each completion against its reference.

    Raises:
        ValueError: they are not equally many, or there is none.
    """
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions and {len(references)} references: they must be pairs.")
    if not predictions:
        raise ValueError("predictions: there is no completion to score.")
    rows = [_judge(*pair) for pair in zip(predictions, references, strict=True)]
    return CompletionScores(*np.asarray(rows, dtype=np.float64).T)


def summarise_completions(scores: CompletionScores) -> dict[str, Any]:
    """The means, each with its 95 % interval under `ci95`; `completions` is N."""
    columns = vars(scores)
    return {
        "completions": len(scores.f1),
        **{name: math.fsum(values) / len(values) for name, values in columns.items()},
        "ci95": {name: list(bootstrap_mean_interval(values)) for name, values in columns.items()},
    }


def score_losses(losses: Sequence[float], tokens: Sequence[int]) -> dict[str, Any]:
    """`loss`, `perplexity`, `tokens` and `conversations`, with 95 % intervals of the first two under `ci95`.

    Args:
        losses: sums of cross entropy over the tokens of each conversation, in nats, (N,).
        tokens: how many those are, (N,).

    Raises:
        ValueError: there is no conversation.
    """
    sums, counts = np.asarray(losses, dtype=np.float64), np.asarray(tokens, dtype=np.int64)
    draws = resampled_values(len(sums), {"loss": lambda drawn: (drawn @ sums) / (drawn @ counts)})["loss"]
    low, high = percentile_interval(draws)
    loss = math.fsum(sums) / int(counts.sum())
    return {
        "conversations": len(sums),
        "tokens": int(counts.sum()),
        "loss": loss,
        "perplexity": _exp(loss),
        "ci95": {"loss": [low, high], "perplexity": [_exp(low), _exp(high)]},
    }


def loss_difference(losses: Sequence[float], before: Sequence[float], tokens: Sequence[int]) -> Difference:
    """By how much the mean loss per token is higher than `before`, on the same conversations; all are (N,)."""
    counts = np.asarray(tokens, dtype=np.int64)
    change = np.asarray(losses, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    draws = resampled_values(len(change), {"loss": lambda drawn: (drawn @ change) / (drawn @ counts)})["loss"]
    low, high = percentile_interval(draws)
    return Difference(float(change.sum() / counts.sum()), low, high)


def merge_scores(losses: Mapping[str, Any], completions: Mapping[str, Any] | None) -> dict[str, Any]:
    """The scores of losses and of completions, where there are any, as one record."""
    if completions is None:
        return dict(losses)
    return {**losses, **completions, "ci95": {**losses["ci95"], **completions["ci95"]}}


def _judge(prediction: str, reference: str) -> tuple[float, float, float, float]:
    """Exact match, precision, recall, F1."""
    given, wanted = normalise_answer(prediction).split(), normalise_answer(reference).split()
    if not given or not wanted:
        same = float(given == wanted)
        return same, same, same, same
    shared = sum((Counter(given) & Counter(wanted)).values())
    precision, recall = shared / len(given), shared / len(wanted)
    f1 = 2 * precision * recall / (precision + recall) if shared else 0.0
    return float(given == wanted), precision, recall, f1


def _exp(loss: float) -> float:
    """The perplexity of a loss; infinite where it has no number."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf
