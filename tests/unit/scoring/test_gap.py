"""The name of a gap, how long it has grown, and where it opened."""

import math

import pytest

from doctune.scoring.gap import STATUSES, GapThresholds, growing_checks, onset


@pytest.mark.parametrize(
    ("gap", "status"),
    [
        (-0.3, "excellent"),
        (0.0499, "excellent"),
        (0.05, "good"),
        (0.1499, "good"),
        (0.15, "moderate"),
        (0.4499, "moderate"),
        (0.45, "critical"),
        (math.inf, "critical"),
        (math.nan, "critical"),
    ],
)
def test_each_name_begins_at_its_bound(gap, status):
    assert GapThresholds().status(gap) == status


def test_the_bounds_are_knobs():
    thresholds = GapThresholds(good=1, moderate=2, critical=3)
    assert [thresholds.status(gap) for gap in (0.9, 1, 2, 3)] == [*STATUSES]


@pytest.mark.parametrize(
    ("gaps", "checks"),
    [
        ([], 0),
        ([0.9], 0),  # nothing to grow from
        ([0.1, 0.5], 1),  # it grew into the critical range
        ([0.1, 0.5, 0.6], 2),
        ([0.1, 0.2, 0.3], 0),  # grows, but is not critical
        ([0.5, 0.6, 0.6], 0),  # stands still
        ([0.5, 0.6, 0.55], 0),  # shrinks
        ([0.5, 0.7, 0.6, 0.65, 0.8], 2),  # a check that shrank begins the count again
        ([0.5, 0.6, 0.4, 0.45], 1),  # the bound itself is critical
        ([0.5, math.nan, math.nan], 2),  # no number is no recovery
    ],
)
def test_checks_in_a_row_that_found_a_critical_gap_grown(gaps, checks):
    assert growing_checks(gaps, critical=0.45) == checks


@pytest.mark.parametrize(
    ("statuses", "check"),
    [
        ([], None),
        (["excellent", "good"], None),
        (["critical", "good"], None),  # it has closed
        (["moderate"], 1),
        (["good", "moderate", "critical"], 2),
        (["moderate", "good", "critical", "moderate"], 3),  # the last opening counts
    ],
)
def test_onset_is_the_check_since_which_the_gap_has_not_been_good(statuses, check):
    assert onset(statuses) == check
