import numpy as np

from doctune.reports.confusions import confused_in_sets, confused_pairs


def sets(*rows):
    return np.array([[letter == "1" for letter in row] for row in rows])


def test_mistakes_are_listed_the_most_frequent_first_and_equal_ones_in_label_order():
    confusion = np.array([[5, 2, 0], [3, 1, 2], [0, 0, 0]])
    assert confused_pairs(confusion, "abc") == [
        {"truth": "b", "predicted": "a", "count": 3, "support": 6},
        {"truth": "a", "predicted": "b", "count": 2, "support": 7},
        {"truth": "b", "predicted": "c", "count": 2, "support": 6},
    ]


def test_in_sets_a_missed_label_is_paired_with_each_that_was_said_and_does_not_apply():
    truth, said = sets("110", "100", "100", "001"), sets("001", "011", "110", "001")
    assert confused_in_sets(truth, said, "abc") == [
        {"truth": "a", "predicted": "c", "count": 2, "support": 3},
        {"truth": "a", "predicted": "b", "count": 1, "support": 3},
        {"truth": "b", "predicted": "c", "count": 1, "support": 1},
    ]


def test_a_label_that_is_only_missed_or_only_added_is_no_pair():
    assert confused_in_sets(sets("10", "01"), sets("00", "11"), "ab") == []
