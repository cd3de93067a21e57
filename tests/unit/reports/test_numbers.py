from __future__ import annotations

import math

import pytest

from doctune.reports.numbers import counted, decimal, duration, percent, whole


@pytest.mark.parametrize(
    ("write", "value", "words"),
    [
        (decimal, 0.12345, "0.123"),
        (whole, 12345, "12,345"),
        (whole, 1234.6, "1,235"),
        (percent, 0.1234, "12.3 %"),
    ],
)
def test_numbers_read_alike_everywhere(write, value, words):
    assert write(value) == words


@pytest.mark.parametrize("write", [decimal, whole, percent])
@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_what_is_not_known_is_a_dash(write, value):
    assert write(value) == "–"


def test_one_is_not_many():
    assert [counted(1, "row"), counted(2000, "row"), counted(0, "class", "classes")] == [
        "1 row",
        "2,000 rows",
        "0 classes",
    ]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, "–"), (4.21, "4.2 s"), (59.99, "1 min 0 s"), (192.4, "3 min 12 s"), (7500, "2 h 5 min")],
)
def test_durations_are_in_the_units_that_matter(seconds, words):
    assert duration(seconds) == words
