import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from doctune.corpus import records
from doctune.corpus.records import Records, at, columns, read_records, write_records
from doctune.errors import ArtifactError


@dataclass(frozen=True, slots=True)
class Fruit:
    name: str
    place: Path
    count: int
    weight: float
    fold: int | None = None


# One half of a character, and a byte that is no UTF-8 as Python spells it: names of files have both.
FRUITS = [
    Fruit("apple", Path("/a"), 1, 0.5, 3),
    Fruit("", Path("/b/\udcff"), 2, 1.5),
    Fruit("pear \ud83d", Path("/c"), -3, 0.0, 0),
    Fruit("apple", Path("/d"), 2**40, 1e-9, 1),
    Fruit("żółty", Path("/e"), 0, 2.0),
]


@pytest.fixture(params=[1, 2, 100])
def fruits(request, tmp_path, monkeypatch):
    """The records of a file, in batches of so many."""
    monkeypatch.setattr(records, "_ROWS_PER_BATCH", request.param)
    monkeypatch.setattr(records, "_ROWS_AT_ONCE", max(1, request.param // 2))
    write_records(tmp_path / "fruits.arrow", Fruit, iter(FRUITS))
    return read_records(tmp_path / "fruits.arrow", Fruit)


def test_records_come_back_as_they_were(fruits):
    assert [*fruits] == FRUITS
    assert len(fruits) == 5
    assert [fruits[place] for place in range(5)] == FRUITS
    assert fruits[-1] == FRUITS[-1]
    assert fruits.index(FRUITS[3]) == 3


def test_places_that_there_are_not_end_a_loop_as_in_a_list(fruits):
    with pytest.raises(IndexError):
        fruits[5]
    assert [*reversed(fruits)] == FRUITS[::-1]


def test_one_field_of_each_record(fruits):
    assert [*fruits.values("fold")] == [3, None, 0, 1, None]
    assert [*fruits.values("place")] == [fruit.place for fruit in FRUITS]
    assert [*fruits.only(np.array([1, 4])).values("name")] == ["", "żółty"]


def test_some_of_the_records(fruits):
    apples = fruits.where("name", "apple")
    assert [*apples] == [FRUITS[0], FRUITS[3]]
    assert apples[1] == FRUITS[3]
    assert fruits.places("name", "apple").tolist() == [0, 3]
    assert [*apples.only(np.array([1]))] == [FRUITS[3]]
    assert apples.where("name", "apple").places("name", "apple").tolist() == [0, 1]
    assert [*fruits.where("name", "plum")] == []


def test_records_and_lists_are_asked_alike(fruits):
    places = np.array([0, 2, 3])
    for found in (fruits, FRUITS):
        assert [*columns(found, "name", "count")] == [(fruit.name, fruit.count) for fruit in FRUITS]
        assert [*at(found, places)] == [FRUITS[place] for place in places]
    assert isinstance(at(fruits, places), Records)


def test_another_process_maps_the_file_again(fruits):
    pickled = pickle.dumps(fruits.where("name", "apple"))
    assert len(pickled) < 1000
    assert [*pickle.loads(pickled)] == [FRUITS[0], FRUITS[3]]


def test_there_may_be_none(tmp_path):
    write_records(tmp_path / "none.arrow", Fruit, [])
    none = read_records(tmp_path / "none.arrow", Fruit)
    assert ([*none], len(none), [*none.where("name", "apple")]) == ([], 0, [])


@pytest.mark.parametrize("damage", [lambda content: content[:-20], lambda content: b"\0" * len(content)])
def test_a_damaged_file_says_what_to_do(tmp_path, damage):
    path = tmp_path / "fruits.arrow"
    write_records(path, Fruit, FRUITS)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ArtifactError, match=r"fruits.arrow is damaged \(.*\). Delete it: what it held is made again."):
        read_records(path, Fruit)
