from itertools import count, islice

import pytest

from doctune.text.groups import bounded_groups


@pytest.mark.parametrize(
    ("max_items", "max_chars", "groups"),
    [
        (2, 100, [["a", "bb"], ["ccc", ""], ["dd"]]),
        (9, 3, [["a", "bb"], ["ccc"], ["", "dd"]]),
        (9, 1, [["a"], ["bb"], ["ccc"], ["", "dd"]]),
        (9, 100, [["a", "bb", "ccc", "", "dd"]]),
    ],
)
def test_a_group_ends_with_the_item_that_fills_it(max_items, max_chars, groups):
    items = ["a", "bb", "ccc", "", "dd"]
    assert [*bounded_groups(items, len, max_items=max_items, max_chars=max_chars)] == groups


def test_an_item_that_is_longer_than_a_group_ends_it():
    items = ["a" * 6, "b" * 6, "c" * 30, "d"]
    groups = [["a" * 6, "b" * 6], ["c" * 30], ["d"]]
    assert [*bounded_groups(items, len, max_items=9, max_chars=10)] == groups


def test_nothing_is_no_group_and_no_more_is_read_than_a_group():
    assert [*bounded_groups([], len, max_items=3, max_chars=9)] == []
    endless = count()
    groups = bounded_groups(map(str, endless), len, max_items=3, max_chars=100)
    assert [*islice(groups, 2)] == [["0", "1", "2"], ["3", "4", "5"]]
    assert next(endless) == 6
