"""The time left is a range, and silent until there is something to say."""

from doctune.text.progress import Pace, Remaining


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
