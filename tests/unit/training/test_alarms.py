"""What the guards say: once, until it no longer holds."""

import logging

import pytest

from doctune.training.alarms import Alarms


@pytest.fixture
def published():
    return []


@pytest.fixture
def alarms(published):
    return Alarms(lambda every, active: published.append((every, active)))


def said(caplog):
    return [(record.levelname, record.getMessage()) for record in caplog.records]


def test_before_anything_is_raised_nothing_is_published(alarms, published):
    alarms.clear("gap", 1)
    assert (alarms.active, alarms.to_list(), published) == ([], [], [])


def test_an_alarm_is_logged_and_published_when_it_is_raised(alarms, published, caplog):
    alarms.raise_alarm("gap", 3, "The gap is 50 % wide.")
    every = [{"guard": "gap", "epoch": 3, "message": "The gap is 50 % wide.", "cleared": None}]
    assert published == [(every, ["The gap is 50 % wide."])]
    assert said(caplog) == [("WARNING", "The gap is 50 % wide.")]


def test_an_alarm_that_holds_is_brought_up_to_date_in_silence(alarms, published, caplog):
    alarms.raise_alarm("gap", 3, "The gap is 0.5.")
    caplog.clear()
    alarms.raise_alarm("gap", 4, "The gap is 0.6.")
    every = [{"guard": "gap", "epoch": 3, "message": "The gap is 0.6.", "cleared": None}]
    assert published[-1] == (every, ["The gap is 0.6."])
    assert said(caplog) == []


def test_a_condition_that_holds_no_longer_is_cleared_once(alarms, published, caplog):
    caplog.set_level(logging.INFO)
    alarms.raise_alarm("gap", 3, "The gap is 0.5.")
    caplog.clear()
    alarms.clear("gap", 5)
    alarms.clear("gap", 6)
    every = [{"guard": "gap", "epoch": 3, "message": "The gap is 0.5.", "cleared": 5}]
    assert published[1:] == [(every, [])]
    assert said(caplog) == [("INFO", "No longer so in epoch 5: The gap is 0.5.")]


def test_what_comes_back_is_said_again(alarms, caplog):
    alarms.raise_alarm("gap", 3, "First.")
    alarms.clear("gap", 4)
    caplog.clear()
    alarms.raise_alarm("gap", 5, "Second.")
    assert said(caplog) == [("WARNING", "Second.")]
    assert [(alarm["epoch"], alarm["cleared"]) for alarm in alarms.to_list()] == [(3, 4), (5, None)]
    assert alarms.active == ["Second."]


def test_guards_do_not_clear_each_other(alarms):
    alarms.raise_alarm("gap", 3, "The gap.")
    alarms.raise_alarm("majority", 3, "The majority.")
    alarms.clear("gap", 4)
    assert alarms.active == ["The majority."]


def test_a_resumed_run_takes_its_alarms_up_without_saying_them_again(alarms, published, caplog):
    alarms.raise_alarm("gap", 1, "The gap.")
    alarms.clear("gap", 2)
    alarms.raise_alarm("majority", 2, "The majority.")
    kept = alarms.to_list()
    caplog.clear()
    resumed = Alarms(lambda every, active: published.append((every, active)))
    resumed.restore(kept)
    assert published[-1] == (kept, ["The majority."])
    resumed.raise_alarm("majority", 3, "The majority still.")
    assert said(caplog) == []
    assert resumed.to_list()[1] == kept[1] | {"message": "The majority still."}


def test_what_is_published_does_not_change_afterwards(alarms, published):
    alarms.raise_alarm("gap", 1, "First.")
    alarms.raise_alarm("gap", 2, "Second.")
    assert published[0][0][0]["message"] == "First."
