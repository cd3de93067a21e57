"""environment.json: what a run remembers of itself."""

import json
from datetime import datetime, timedelta

import pytest

from doctune.errors import DataError
from doctune.training.record import RunRecord

ENVIRONMENT = {"versions": {"torch": "2.9.0", "python": "3.11.2"}, "git": None}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "environment.json"


def said(path):
    return json.loads(path.read_text(encoding="utf-8"))


def warnings(caplog):
    return [record.getMessage() for record in caplog.records]


def test_a_note_is_logged_and_kept_once(path, caplog):
    record = RunRecord(path)
    record.note("A sentence with 50 %.")
    record.keep("A sentence with 50 %.")
    record.keep("Another.")
    record.update(seed=1)
    assert warnings(caplog) == ["A sentence with 50 %."]
    assert said(path) == {"seed": 1, "notes": ["A sentence with 50 %.", "Another."]}


def test_a_resumed_run_takes_facts_and_notes_up(path):
    first = RunRecord(path)
    first.keep("A sentence.")
    first.update(seed=1, model={"name": "mini"})
    again = RunRecord(path)
    assert (again.facts, again.notes) == ({"seed": 1, "model": {"name": "mini"}}, ["A sentence."])
    again.keep("A sentence.")
    again.update(seed=2)
    assert said(path) == {"seed": 2, "model": {"name": "mini"}, "notes": ["A sentence."]}


def test_the_first_start_describes_the_run(path):
    RunRecord(path).begin(ENVIRONMENT, seed=7)
    found = said(path)
    assert datetime.fromisoformat(found.pop("started_at")).utcoffset() == timedelta(0)
    assert found == {**ENVIRONMENT, "seed": 7, "notes": []}


def test_a_further_start_adds_only_when_it_was(path, caplog):
    RunRecord(path).begin(ENVIRONMENT, seed=7)
    first = said(path)
    for _ in range(2):
        RunRecord(path).begin(ENVIRONMENT, seed=7)
    found = said(path)
    assert len([datetime.fromisoformat(moment) for moment in found.pop("resumed_at")]) == 2
    assert found == first
    assert warnings(caplog) == []


def test_another_version_is_noted_and_what_it_began_with_stays(path, caplog):
    RunRecord(path).begin(ENVIRONMENT, seed=7)
    newer = ENVIRONMENT | {"versions": {"torch": "2.10.0", "python": "3.11.2"}}
    RunRecord(path).begin(newer, seed=7)
    sentence = "Resumed with torch 2.10.0, begun with 2.9.0: the last digits may differ."
    assert (said(path)["notes"], warnings(caplog)) == ([sentence], [sentence])
    assert said(path)["versions"] == ENVIRONMENT["versions"]


def test_a_version_that_was_not_asked_for_then_is_no_other_version(path, caplog):
    RunRecord(path).begin(ENVIRONMENT, seed=7)
    more = ENVIRONMENT | {"versions": {**ENVIRONMENT["versions"], "tokenizers": "0.22.1"}}
    RunRecord(path).begin(more, seed=7)
    assert (said(path)["notes"], warnings(caplog)) == ([], [])


def test_what_is_said_again_is_logged_again_and_kept_once(path, caplog):
    record = RunRecord(path)
    record.note("A sentence.")
    record.note("A sentence.")
    assert (warnings(caplog), record.notes) == (["A sentence."] * 2, ["A sentence."])


def test_the_same_documents_are_accepted_again(path):
    record = RunRecord(path)
    record.check_data("docs.csv", "a1")
    record.update()
    again = RunRecord(path)
    again.check_data("docs.csv", "a1")
    assert again.facts == {"data_fingerprint": "a1"}


def test_other_documents_are_refused(path):
    record = RunRecord(path)
    record.check_data("docs.csv", "a1")
    record.update()
    with pytest.raises(DataError) as refused:
        RunRecord(path).check_data("docs.csv", "b2")
    assert str(refused.value) == (
        f"{path.parent} cannot be resumed: the documents, their labels or their parts are no longer those that it was "
        "trained on (docs.csv or its files have changed). Start a new run, or bring the files back."
    )
