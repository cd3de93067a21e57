"""Whole runs on a clock that the test turns, asked all the while how long they still take."""

from itertools import pairwise

import numpy as np
import pytest

from doctune.training.time_left import Plan, Range, TimeLeft


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def steady(rng, batches):
    return np.ones(batches)


def slow_first_epoch(rng, batches):
    """As torch's first batches are: three times slower, then one and a half times until the epoch's end."""
    factors = np.ones(batches)
    factors[:200] = 1.5 + 1.5 * np.exp(-np.arange(200) / 30)
    return factors


def getting_slower(rng, batches):
    return np.linspace(1, 1.25, batches)


def wandering(rng, batches):
    return np.exp(np.cumsum(rng.normal(0, 0.004, batches)))


def shared_with_others(rng, batches):
    """Another process takes the machine for some 20 s at a time."""
    switches = np.cumsum(rng.random(batches) < 0.1 / 20)
    return np.where(switches % 2, 1.4, 1.0)


def simulate(factors_of, *, seed, epochs=8, batches=200, validation_s=0.5, report_s=4.0):
    """What was said and what was true at ten moments after the first tenth of a run: [(Range or None, seconds)].

    Batches take 0.1 s on average, the longest five times as long as the shortest, each epoch in another order.
    """
    rng = np.random.default_rng(seed)
    lengths = np.clip(rng.lognormal(0, 0.6, batches), 0.2, 3)
    of_epoch = 0.1 * (0.2 + 0.8 * lengths / lengths.mean())
    seconds = np.concatenate([rng.permutation(of_epoch) for _ in range(epochs)])
    seconds *= rng.lognormal(0, 0.1, len(seconds)) * factors_of(rng, len(seconds))
    ending_s = 2 * validation_s + report_s
    end = 1000.0 + seconds.sum() + epochs * validation_s + ending_s
    moments = [1000.0 + (end - 1000.0) * share for share in np.linspace(0.1, 0.95, 11)[1:]]
    clock = Clock()
    estimate = TimeLeft(Plan(epochs, batches, validation_batches=20), clock)
    said = []

    def spend(duration):
        clock.now += duration
        while moments and clock.now >= moments[0]:
            del moments[0]
            said.append((estimate.left(), end - clock.now))

    for number, duration in enumerate(seconds, start=1):
        spend(duration)
        estimate.batch_done(number)
        if number % batches == 0:
            estimate.validation_started()
            for _ in range(20):
                spend(validation_s / 20)
                estimate.validation_batch_done()
            estimate.validation_ended()
    estimate.training_ended()
    for _ in range(50):
        spend(ending_s / 50)
    return said


def num_inside(said):
    return sum(spoken is not None and spoken.low <= true <= spoken.high for spoken, true in said)


@pytest.mark.parametrize(
    ("factors_of", "at_least"),
    [
        (steady, 0.99),
        (slow_first_epoch, 0.9),
        (getting_slower, 0.97),
        (wandering, 0.9),
        (shared_with_others, 0.8),
    ],
)
def test_the_true_end_is_inside_the_range(factors_of, at_least):
    runs = [simulate(factors_of, seed=seed) for seed in range(30)]
    assert all(len(run) == 10 for run in runs)
    assert np.mean([num_inside(run) for run in runs]) / 10 >= at_least


@pytest.mark.parametrize("factors_of", [steady, slow_first_epoch, getting_slower, wandering])
def test_at_least_8_of_10_readings_hold_in_nearly_every_run(factors_of):
    enough = [num_inside(simulate(factors_of, seed=seed)) >= 8 for seed in range(30)]
    assert sum(enough) >= 26


def test_at_even_rates_the_range_is_narrow_enough_to_be_of_use():
    said = [pair for seed in range(20) for pair in simulate(steady, seed=seed, epochs=20) if pair[1] > 60]
    widths = [(spoken.high - spoken.low) / 2 / true for spoken, true in said]
    assert 0.05 < np.median(widths) < 0.15
    assert np.quantile(widths, 0.9) < 0.25


@pytest.mark.parametrize("validation_s", [0.5, 30.0, 120.0])
def test_slow_validations_are_included(validation_s):
    said = [simulate(steady, seed=seed, validation_s=validation_s) for seed in range(20)]
    after_the_first = [pair for run in said for pair in run[3:]]
    inside = sum(spoken.low <= true <= spoken.high for spoken, true in after_the_first)
    assert inside / len(after_the_first) >= 0.95


def train(estimate, clock, numbers, seconds):
    for number in numbers:
        clock.now += seconds
        estimate.batch_done(number)


def started(plan):
    clock = Clock()
    return clock, TimeLeft(plan, clock)


def test_nothing_is_said_before_four_seconds_of_training():
    clock, estimate = started(Plan(epochs=3, batches=100, validation_batches=10))
    assert (estimate.left(), estimate.batches_per_s()) == (None, None)
    train(estimate, clock, range(1, 16), 0.25)
    assert estimate.left() is None
    train(estimate, clock, range(16, 17), 0.25)
    assert estimate.left() is not None


def test_the_range_of_a_run_that_never_varies():
    clock, estimate = started(Plan(epochs=4, batches=100, validation_batches=10))
    train(estimate, clock, range(1, 41), 1.0)
    said = estimate.left()
    # 360 batches of 1 s, 4 validations and 2 in the ending of 0.2 to 1 s a batch, 2 to 10 s and 1 % of 400 s to report.
    assert said == Range(pytest.approx(360 * 0.95 + 6 * 2 + 2), pytest.approx(360 * 1.08 + 6 * 10 + 10 + 4))
    assert estimate.batches_per_s() == pytest.approx(1.0)


def test_a_measured_validation_replaces_the_estimated_one():
    clock, estimate = started(Plan(epochs=2, batches=100, validation_batches=10))
    train(estimate, clock, range(1, 101), 1.0)
    estimate.validation_started()
    clock.now += 60
    estimate.validation_ended()
    low, high = 60 * 0.85, 60 * 1.15
    assert estimate.left() == Range(
        pytest.approx(100 * 0.95 + 3 * low + 2), pytest.approx(100 * 1.08 + 3 * high + 10 + 2)
    )


def test_while_the_first_validation_goes_on_what_it_took_so_far_counts():
    clock, estimate = started(Plan(epochs=1, batches=100, validation_batches=10))
    train(estimate, clock, range(1, 101), 1.0)
    before = estimate.left()
    assert before == Range(pytest.approx(3 * 2 + 2), pytest.approx(3 * 10 + 10 + 1))
    estimate.validation_started()
    for _ in range(5):
        clock.now += 20
        estimate.validation_batch_done()
    # Half is done in 100 s: the whole takes 100 to 200 s, the two of the ending as well.
    assert estimate.left() == Range(pytest.approx(2.5 * 100 + 2), pytest.approx(2.5 * 200 + 10 + 1))


def test_a_validation_that_is_due_is_counted_until_it_is_over():
    clock, estimate = started(Plan(epochs=1, batches=100, validation_batches=10))
    train(estimate, clock, range(1, 101), 1.0)
    assert estimate.left().low == pytest.approx(3 * 2 + 2)
    estimate.validation_started()
    clock.now += 10
    estimate.validation_ended()
    assert estimate.left().low == pytest.approx(2 * 10 * 0.85 + 2)


def test_a_resumed_run_is_judged_by_what_this_process_measured():
    clock, estimate = started(Plan(epochs=4, batches=100, validation_batches=10))
    clock.now += 50  # until the first batch has come
    train(estimate, clock, range(351, 371), 1.0)
    said = estimate.left()
    assert said.low == pytest.approx(30 * 0.95 + 3 * 2 + 2)


def test_after_training_only_the_ending_is_left_and_it_passes():
    clock, estimate = started(Plan(epochs=4, batches=100, validation_batches=10))
    train(estimate, clock, range(1, 101), 1.0)
    estimate.validation_started()
    clock.now += 10
    estimate.validation_ended()
    estimate.training_ended()  # early stopping, say
    assert estimate.left() == Range(pytest.approx(2 * 8.5 + 2), pytest.approx(2 * 11.5 + 10 + 4))
    clock.now += 20
    assert estimate.left() == Range(0.0, pytest.approx(17))
    clock.now += 20
    assert estimate.left() == Range(0.0, 0.0)


def test_at_even_rates_the_range_only_ever_sinks():
    clock, estimate = started(Plan(epochs=3, batches=200, validation_batches=10))
    said = []
    for number in range(1, 601):
        train(estimate, clock, [number], 0.5)
        if number % 200 == 0:
            estimate.validation_started()
            clock.now += 2.5
            estimate.validation_ended()
        if number > 205:  # the first validation is measured
            said.append(estimate.left())
    assert all(later.low <= earlier.low + 1e-6 for earlier, later in pairwise(said))
    assert all(later.high <= earlier.high + 1e-6 for earlier, later in pairwise(said))
    assert all(0 < spoken.low < spoken.high for spoken in said)


def test_a_day_of_batches_is_kept_in_few_blocks():
    clock, estimate = started(Plan(epochs=10, batches=10_000, validation_batches=10))
    train(estimate, clock, range(1, 90_001), 1.0)
    assert len(estimate._blocks) <= 128
    assert estimate.left().low == pytest.approx(10_000 * 0.95 + 4 * 2 + 2)


def test_the_newest_rate_counts_when_the_machine_slows_down_for_good():
    clock, estimate = started(Plan(epochs=1, batches=1000, validation_batches=10))
    train(estimate, clock, range(1, 401), 1.0)
    train(estimate, clock, range(401, 501), 2.0)
    said = estimate.left()
    assert said.low < 500 * 1.0 + 8
    assert said.high > 500 * 2.0


def test_validations_within_epochs_are_still_to_come():
    def left(validations, batches):
        now = [0.0]
        estimate = TimeLeft(Plan(2, 100, 10, validations), lambda: now[0])
        for done in range(1, batches + 1):
            now[0] += 1
            estimate.batch_done(done)
        return estimate.left()

    # Ten batches each, which take at most ten seconds; of four, one is over when sixty of a hundred batches are done.
    assert left(2, 20).high - left(1, 20).high == pytest.approx(2 * 10)
    assert left(2, 60).high - left(1, 60).high == pytest.approx(1 * 10)
