"""The time left is a range, and silent until there is something to say."""

import io
import itertools

import pytest

from doctune.text import progress
from doctune.text.progress import Pace, Remaining, shown_pace


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_the_range_spans_the_best_and_the_worst_recent_rates():
    clock = Clock()
    pace = Pace(total=100, clock=clock)
    assert pace.remaining() is None
    for count in (10, 20, 10, 20):
        clock.now += 1
        pace.advance(count)
    assert pace.remaining() == Remaining(low_s=2.0, high_s=4.0)
    assert pace.line() == "60/100 files, 15 files/s, 2 s to 4 s left"


def test_a_finished_job_has_nothing_left():
    clock = Clock()
    pace = Pace(total=2, clock=clock)
    clock.now += 1
    pace.advance(2)
    assert pace.line() == "2/2 files, 2 files/s"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_items_are_passed_on_and_nothing_is_shown_where_there_is_no_terminal():
    stream = io.StringIO()
    assert [*shown_pace(iter("abc"), 3, stream)] == ["a", "b", "c"]
    assert stream.getvalue() == ""


def test_on_a_terminal_one_line_is_kept_and_cleared_at_the_end(monkeypatch):
    ticks = itertools.count()
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(ticks)))
    stream = Terminal()
    assert [*shown_pace(iter("ab"), 2, stream, every_s=0)] == ["a", "b"]
    *lines, last = stream.getvalue().split("\r\x1b[K")[1:]
    assert [line.partition(" files, ")[0] for line in lines] == ["1/2", "2/2"]
    assert last == ""
    assert "\n" not in stream.getvalue()


def test_the_line_is_not_written_for_every_item():
    stream = Terminal()
    assert [*shown_pace(range(5), 5, stream, every_s=3600)] == [0, 1, 2, 3, 4]
    assert stream.getvalue() == "\r\x1b[K"


def test_items_are_taken_one_at_a_time():
    taken = []
    shown = shown_pace((taken.append(number) or number for number in itertools.count()), 9, Terminal())
    assert next(shown) == 0
    assert taken == [0]


def test_a_failure_passes_through():
    def items():
        yield 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        [*shown_pace(items(), 2, Terminal())]
