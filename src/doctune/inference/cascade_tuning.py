"""Which stages, in which order, with which thresholds: every sensible cascade, judged on what the stages answered.

Each stage is asked once for all validation documents; every order of every subset of the stages is then computed from
those answers, with thresholds on a grid of the scores that occurred. A cascade is worth a look if no other is at least
as accurate and as fast: those are the frontier.

Shapes: N documents, G thresholds of a stage, P combinations of thresholds of one order.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray

from doctune.errors import ConfigError
from doctune.inference.cascade import Cascade, CascadeAnswer
from doctune.inference.stages import Stage, StageAnswer
from doctune.scoring.intervals import Interval, bootstrap_mean_interval

# Thresholds that are tried for each stage: quantiles of its scores. Three stages make 6 orders of 25 x 25 of them.
GRID = 25
_DECIMALS = 4
# Texts that a stage is asked for one at a time, to see how long one takes; the first of them warms it up.
TIMED_TEXTS = 33


@dataclass(frozen=True)
class StageRecord:
    """What one stage answered to N texts, and the milliseconds that a text takes it, asked one at a time."""

    name: str
    answers: tuple[StageAnswer, ...]
    latency_ms: float

    def is_right(self, truth: Sequence[str]) -> NDArray[np.bool_]:
        """Which texts (N,) it gave their label; a text without an answer is wrong."""
        return np.array([answer.label == label for answer, label in zip(self.answers, truth, strict=True)], dtype=bool)

    def is_answered(self) -> NDArray[np.bool_]:
        """Which texts (N,) it gave a label."""
        return np.array([answer.label is not None for answer in self.answers], dtype=bool)

    def scores(self) -> NDArray[np.float64]:
        """Its scores (N,), 0 where it gave no label."""
        return np.array([answer.score for answer in self.answers], dtype=np.float64)

    def commonest_reason(self) -> tuple[str, int] | None:
        """Why it most often gave no label, and how often; None where it always gave one."""
        reasons = Counter(answer.reason for answer in self.answers if answer.label is None)
        return reasons.most_common(1)[0] if reasons else None


@dataclass(frozen=True)
class Option:
    """A cascade: its stages in order, the thresholds of all but the last, and what comes of it on N documents.

    `latency_ms` is expected for a document; `shares` are those of the documents that each stage answers, which add up
    to less than 1 where no stage has an answer.
    """

    stages: tuple[str, ...]
    thresholds: tuple[float, ...]
    accuracy: float
    latency_ms: float
    shares: tuple[float, ...]


@dataclass(frozen=True)
class Judgement:
    """The accuracy of a cascade or of one stage on documents that chose nothing, with its 95 % bootstrap interval.

    `advantage` is the chosen cascade's accuracy minus this one's on the same documents, with its interval; None for the
    cascade itself.
    """

    name: str
    accuracy: float
    ci95: Interval
    latency_ms: float
    advantage: float | None = None
    advantage_ci95: Interval | None = None


@dataclass(frozen=True)
class _Gridded:
    """A stage: thresholds (G,), the texts that it takes at each (G, N), those that it answers and gets right (N,)."""

    grid: NDArray[np.float64]
    taken: NDArray[np.bool_]
    answered: NDArray[np.bool_]
    right: NDArray[np.bool_]
    latency_ms: float


@dataclass(frozen=True)
class _Candidate:
    stages: tuple[int, ...]
    thresholds: tuple[float, ...]
    right: int
    latency_ms: float


def record_stage(stage: Stage, texts: Sequence[str]) -> StageRecord:
    """Ask a stage for all texts, some of them, evenly spaced, one at a time."""
    timed = np.unique(np.linspace(0, len(texts) - 1, min(TIMED_TEXTS, len(texts))).round().astype(int)).tolist()
    answers: dict[int, StageAnswer] = {}
    milliseconds = []
    for place in timed:
        begun = time.perf_counter()
        answers[place] = stage.predict([texts[place]])[0]
        milliseconds.append(1000 * (time.perf_counter() - begun))
    rest = [place for place in range(len(texts)) if place not in answers]
    answers |= zip(rest, stage.predict([texts[place] for place in rest]) if rest else [], strict=True)
    in_order = tuple(answers[place] for place in range(len(texts)))
    return StageRecord(stage.name, in_order, float(np.mean(milliseconds[1:] or milliseconds)))


def frontier(records: Sequence[StageRecord], truth: Sequence[str]) -> list[Option]:
    """The cascades of these stages that no other beats in both accuracy and latency, from the fastest on.

    Of several with the same accuracy and latency the one with the fewest stages and the lowest thresholds is there.

    Args:
        records: what each stage answered, N answers each.
        truth: (N,) labels, at least one.
    """
    kept: list[_Candidate] = []
    candidates = sorted(
        _candidates(records, truth), key=lambda each: (each.latency_ms, -each.right, len(each.stages), each.thresholds)
    )
    for candidate in candidates:
        if not kept or candidate.right > kept[-1].right:
            kept.append(candidate)
    return [_described(candidate, records, truth) for candidate in kept]


def choose(options: Sequence[Option], target_accuracy: float | None, max_latency_ms: float | None) -> Option:
    """The option of a frontier that an aim asks for; without one, the most accurate.

    Args:
        options: a frontier.
        target_accuracy: the fastest that reaches it.
        max_latency_ms: the most accurate that takes no longer.

    Raises:
        ConfigError: none does.
    """
    if target_accuracy is not None:
        reaching = [option for option in options if option.accuracy >= target_accuracy]
        if not reaching:
            best = options[-1]
            raise ConfigError(
                f"--target-accuracy {target_accuracy:g} is not reached on the validation documents: the most accurate "
                f"cascade has {best.accuracy:.4f}, at {best.latency_ms:.1f} ms a document."
            )
        return reaching[0]
    if max_latency_ms is not None:
        fast = [option for option in options if option.latency_ms <= max_latency_ms]
        if not fast:
            raise ConfigError(
                f"--max-latency-ms {max_latency_ms:g} is too little: the fastest cascade takes "
                f"{options[0].latency_ms:.1f} ms a document."
            )
        return fast[-1]
    return options[-1]


def judge(option: Option, records: Sequence[StageRecord], truth: Sequence[str]) -> list[Judgement]:
    """A chosen cascade, then each stage alone, on documents that chose nothing: N answers each."""
    answers = replay(option, records)
    right = np.array([answer.label == label for answer, label in zip(answers, truth, strict=True)], dtype=bool)
    found = [_judgement("cascade", right, _latency_ms(answers, records))]
    for record in records:
        alone = record.is_right(truth)
        difference = right.astype(np.float64) - alone
        found.append(
            _judgement(
                record.name,
                alone,
                record.latency_ms,
                float(difference.mean()),
                bootstrap_mean_interval(difference),
            )
        )
    return found


def replay(option: Option, records: Sequence[StageRecord]) -> list[CascadeAnswer]:
    """What the cascade answers where its stages answer as recorded."""
    by_name = {record.name: record for record in records}
    thresholds = (*option.thresholds, None)
    places = [str(place) for place in range(len(records[0].answers))]
    stages = [_Recorded(by_name[name]) for name in option.stages]
    return [*Cascade([*zip(stages, thresholds, strict=True)]).predict(places)]


class _Recorded:
    """A stage that answers the place of a text as it is recorded."""

    def __init__(self, record: StageRecord) -> None:
        self.name = record.name
        self._answers = record.answers

    def predict(self, texts: Sequence[str]) -> list[StageAnswer]:
        return [self._answers[int(text)] for text in texts]


def _candidates(records: Sequence[StageRecord], truth: Sequence[str]) -> Iterator[_Candidate]:
    """Every order of every subset of the stages, with every combination of thresholds."""
    stages = [_gridded(record, truth) for record in records]
    for size in range(1, len(stages) + 1):
        for order in permutations(range(len(stages)), size):
            yield from _of_order(order, [stages[place] for place in order])


def _gridded(record: StageRecord, truth: Sequence[str]) -> _Gridded:
    answered, scores = record.is_answered(), record.scores()
    grid = threshold_grid(scores[answered])
    taken = answered[None, :] & (scores[None, :] >= grid[:, None])
    return _Gridded(grid, taken, answered, record.is_right(truth), record.latency_ms)


def _of_order(order: tuple[int, ...], stages: Sequence[_Gridded]) -> Iterator[_Candidate]:
    """All combinations of thresholds of one order of stages."""
    *earlier, last = stages
    is_left = np.ones((1, len(last.right)), dtype=bool)  # (P, N) texts that come to the next stage
    num_right, latency_ms = np.zeros(1, np.int64), np.zeros(1)  # (P,)
    for stage in earlier:
        latency_ms = np.repeat(latency_ms + stage.latency_ms * is_left.mean(axis=1), len(stage.grid))
        hits = is_left.astype(np.float32) @ (stage.taken & stage.right).T.astype(np.float32)  # (P, G)
        num_right = (num_right[:, None] + hits.round().astype(np.int64)).ravel()
        is_left = (is_left[:, None, :] & ~stage.taken[None, :, :]).reshape(-1, len(stage.right))
    num_right = num_right + (is_left & _is_last_answer_right(stages)).sum(axis=1)
    latency_ms = latency_ms + last.latency_ms * is_left.mean(axis=1)
    thresholds = product(*(stage.grid.tolist() for stage in earlier))
    for chosen, right, needed in zip(thresholds, num_right.tolist(), latency_ms.tolist(), strict=True):
        yield _Candidate(order, chosen, right, needed)


def _is_last_answer_right(stages: Sequence[_Gridded]) -> NDArray[np.bool_]:
    """Whether the last answer that there is, in the order of the stages, is right, (N,)."""
    found = np.zeros_like(stages[0].right)
    for stage in stages:
        found = np.where(stage.answered, stage.right, found)
    return found


def threshold_grid(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """The thresholds that are tried for a stage with these scores: quantiles of them, rounded, each once, rising."""
    if len(scores) == 0:
        return np.array([1.0])
    quantiles = np.quantile(scores, np.linspace(0, 1, GRID), method="inverted_cdf")
    # Rounded down, so that a threshold lets the score through from which it was made.
    return np.unique(np.floor(quantiles * 10**_DECIMALS) / 10**_DECIMALS)


def _described(candidate: _Candidate, records: Sequence[StageRecord], truth: Sequence[str]) -> Option:
    names = tuple(records[stage].name for stage in candidate.stages)
    option = Option(names, candidate.thresholds, candidate.right / len(truth), candidate.latency_ms, ())
    given = Counter(answer.stage for answer in replay(option, records))
    return replace(option, shares=tuple(given[name] / len(truth) for name in names))


def _latency_ms(answers: Sequence[CascadeAnswer], records: Sequence[StageRecord]) -> float:
    """What a document takes on average, by the stages that were asked about it."""
    asked = Counter(name for answer in answers for name in _asked(answer))
    return sum(record.latency_ms * asked[record.name] for record in records) / len(answers)


def _asked(answer: CascadeAnswer) -> list[str | None]:
    return [answer.stage, *(passed.stage for passed in answer.passed)]


def _judgement(
    name: str,
    right: NDArray[np.bool_],
    latency_ms: float,
    advantage: float | None = None,
    advantage_ci95: Interval | None = None,
) -> Judgement:
    interval = bootstrap_mean_interval(right.astype(np.float64))
    return Judgement(name, float(right.mean()), interval, latency_ms, advantage, advantage_ci95)
