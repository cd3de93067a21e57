"""How long a run still takes, as a range computed from measured rates.

A run is training batches, a validation after every epoch, and an ending: validation and test once more with the best
weights, then the report. The three are measured, or estimated, apart and added up.

**Training.** Batches of different lengths take times that differ five-fold, so single ones say nothing: they are
summed into blocks of at least a second, and the blocks into G = 6 equal groups in order of time (the method of batch
means: A. Law, Simulation Modeling and Analysis, chapter 9). The oldest third of the blocks is left out, since first
batches are slow: memory is allocated, kernels are chosen, the disk is cold. With s the standard deviation of the
groups' seconds per batch, r the batches still to come and g those of a group, the mean of those to come lies, if the
machine goes on as it did, within t · s · sqrt(1/G + g/r) of the measured mean, t being Student's 95 % quantile for
G - 1 degrees of freedom. A machine's speed drifts, and drift does not average out: so g/r is held between 1/4 and 2,
the last quarter of the blocks gives a second mean and the range covers both, and it is never narrower than 5 % below
and 8 % above, since a machine gets busier more often than idler.

**Validation.** The least and the most of the last three, 15 % wider. Before the first is over it is estimated from the
training batches: a forward pass is a third of a batch's work (forward 1, backward 2), taken as a fifth to the whole of
it, since loading and metrics cost besides; while the first one goes on, also from how far it has come.

**Ending.** Two validations and 2 to 10 seconds, to which a hundredth of the training may come for baselines and
report.

On simulated runs (tests/unit/training/test_time_left.py) with even, drifting and slow-first rates more than 90 % of
true ends are inside; where another process takes the machine half the time, more than 80 %. What stands still for the
first time, or gets slower for good by a half, no estimate from the past can know.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import stdev

_BLOCK_S = 1.0
_MAX_BLOCKS = 128
_MIN_BLOCKS = 4
_MAX_GROUPS = 6
# Student's t, 95 % quantile (one side), by number of groups; degrees of freedom are one less.
_STUDENT_T = {2: 6.31, 3: 2.92, 4: 2.35, 5: 2.13, 6: 2.02}
_FASTER, _SLOWER = 0.95, 1.08
_FORWARD_SHARE = (0.2, 1.0)
_VALIDATION_SPREAD = (0.85, 1.15)
_REPORT_S = (2.0, 10.0)
_REPORT_SHARE = 0.01


@dataclass(frozen=True)
class Range:
    """From `low` to `high`, in seconds."""

    low: float
    high: float

    def __add__(self, other: Range) -> Range:
        return Range(self.low + other.low, self.high + other.high)

    def times(self, low: float, high: float | None = None) -> Range:
        """Both ends multiplied; by the same number if only one is given."""
        return Range(self.low * low, self.high * (low if high is None else high))

    def after(self, seconds: float) -> Range:
        """What is left of it when some seconds have passed."""
        return Range(max(self.low - seconds, 0.0), max(self.high - seconds, 0.0))


@dataclass(frozen=True)
class Plan:
    """What a run is going to do: epochs of `batches` training batches, each with evenly spread `validations` of so many
    batches, the last one after it."""

    epochs: int
    batches: int
    validation_batches: int
    validations: int = 1


@dataclass
class _Block:
    batches: int = 0
    seconds: float = 0.0


class TimeLeft:
    """Is told what a run does when it does it, and says how long the rest takes.

    Args:
        plan: what was asked for; a run that early stopping ends takes less.
        clock: seconds, from anywhere.
    """

    def __init__(self, plan: Plan, clock: Callable[[], float] = time.monotonic) -> None:
        self._plan = plan
        self._done = 0
        self._clock = clock
        self._mark = clock()
        self._blocks = [_Block()]
        self._block_s = _BLOCK_S
        self._validations: list[float] = []
        self._validated: int | None = None  # batches of the validation that goes on
        self._is_validated = True  # since the last training batch
        self._ending_since: float | None = None

    def batch_done(self, done: int) -> None:
        """A training batch is over, the time since the last event was its own.

        Args:
            done: with it, batches since the first epoch began; a resumed run's first one is told what came before it.
        """
        now = self._clock()
        self._done = done
        self._is_validated = False
        block = self._blocks[-1]
        block.batches += 1
        block.seconds += now - self._mark
        self._mark = now
        if block.seconds >= self._block_s:
            self._close_block()

    def validation_started(self) -> None:
        """All time from the last training batch to `validation_ended` is the validation's."""
        self._validated = 0

    def validation_batch_done(self) -> None:
        """A batch of the validation that goes on is over."""
        assert self._validated is not None, "validation_started comes first"
        self._validated += 1

    def validation_ended(self) -> None:
        """Training goes on: what was saved and judged after the validation is over too."""
        now = self._clock()
        self._validations.append(now - self._mark)
        self._validated = None
        self._is_validated = True
        self._mark = now

    def training_ended(self) -> None:
        """No batch comes any more, whether all were done or not; the ending begins."""
        self._ending_since = self._clock()

    def batches_per_s(self) -> float | None:
        """The rate of recent training, validations not counted; None before anything was measured."""
        recent = self._recent()
        return 1 / _seconds_per_batch(recent) if recent else None

    def left(self) -> Range | None:
        """Seconds until the run is over; None until four seconds and four batches of training were measured."""
        recent = self._recent()
        if len(recent) < _MIN_BLOCKS - 1:
            return None
        if self._ending_since is not None:
            return self._ending(recent).after(self._clock() - self._ending_since)
        to_come = self._plan.epochs * self._plan.batches - self._done
        training = _training(recent, to_come) if to_come > 0 else Range(0.0, 0.0)
        return training + self._validations_to_come(recent) + self._ending(recent)

    def _close_block(self) -> None:
        """Start another block; when there are too many, two become one."""
        if len(self._blocks) == _MAX_BLOCKS:
            pairs = zip(self._blocks[::2], self._blocks[1::2], strict=True)
            self._blocks = [_Block(a.batches + b.batches, a.seconds + b.seconds) for a, b in pairs]
            self._block_s *= 2
        self._blocks.append(_Block())

    def _recent(self) -> list[_Block]:
        """The finished blocks without the oldest third, or at first without the very first."""
        finished = self._blocks[:-1]
        return finished[len(finished) // 3 if len(finished) >= 2 * _MIN_BLOCKS else 1 :]

    def _validation(self, recent: Sequence[_Block]) -> Range:
        """One whole validation."""
        if self._validations:
            last = self._validations[-3:]
            return Range(min(last), max(last)).times(*_VALIDATION_SPREAD)
        batches = self._plan.validation_batches * _seconds_per_batch(recent)
        derived = Range(batches, batches).times(*_FORWARD_SHARE)
        if not self._validated:
            return derived
        # The longest documents come first, so that the rest takes less than what was done foretells.
        elapsed = self._clock() - self._mark
        whole = elapsed * self._plan.validation_batches / self._validated
        return Range(max(min(derived.low, whole), elapsed), max(min(derived.high, whole), whole))

    def _validations_to_come(self, recent: Sequence[_Block]) -> Range:
        epochs_done, into_epoch = divmod(self._done, self._plan.batches)
        is_due = into_epoch == 0 and not self._is_validated
        done_of_it = min((self._validated or 0) / max(self._plan.validation_batches, 1), 1.0)
        done_in_epoch = into_epoch * self._plan.validations // self._plan.batches
        to_come = self._plan.validations * (self._plan.epochs - epochs_done) - done_in_epoch
        return self._validation(recent).times(to_come + is_due - done_of_it)

    def _ending(self, recent: Sequence[_Block]) -> Range:
        training = self._plan.epochs * self._plan.batches * _seconds_per_batch(recent)
        report = Range(_REPORT_S[0], _REPORT_S[1] + _REPORT_SHARE * training)
        return self._validation(recent).times(2) + report


def _training(recent: Sequence[_Block], to_come: int) -> Range:
    groups = _groups(recent, min(_MAX_GROUPS, len(recent)))
    means = [_seconds_per_batch(group) for group in groups]
    batches_per_group = sum(block.batches for block in recent) / len(groups)
    drifting = min(max(batches_per_group / to_come, 0.25), 2.0)
    margin = _STUDENT_T[len(groups)] * stdev(means) * math.sqrt(1 / len(groups) + drifting)
    latest = _seconds_per_batch(recent[-max(len(recent) // 4, 3) :])
    low, high = sorted((_seconds_per_batch(recent), latest))
    # However much it varied, nothing ever ran three times as fast as on the average.
    return Range(max((low - margin) * _FASTER, low / 3), (high + margin) * _SLOWER).times(to_come)


def _groups(blocks: Sequence[_Block], number: int) -> list[Sequence[_Block]]:
    bounds = [round(place * len(blocks) / number) for place in range(number + 1)]
    return [blocks[start:stop] for start, stop in pairwise(bounds)]


def _seconds_per_batch(blocks: Sequence[_Block]) -> float:
    return sum(block.seconds for block in blocks) / sum(block.batches for block in blocks)
