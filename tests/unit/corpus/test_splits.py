from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from doctune.corpus.splits import folds, holdout, leaking_groups, small_classes

documents = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 40)), min_size=1, max_size=200)


@given(documents, st.integers(0, 5))
def test_a_group_never_crosses_parts_and_order_does_not_matter(pairs, seed):
    labels, groups = [label for label, _ in pairs], [f"g{number}" for _, number in pairs]
    parts = holdout(labels, groups, shares={"test": 0.2, "val": 0.1}, seed=seed)
    of_group = dict(zip(groups, parts, strict=True))
    assert [of_group[group] for group in groups] == parts

    turned = holdout(labels[::-1], groups[::-1], shares={"test": 0.2, "val": 0.1}, seed=seed)
    assert turned[::-1] == parts


def test_class_shares_are_kept():
    labels = ["a"] * 200 + ["b"] * 50
    parts = holdout(labels, [str(n) for n in range(250)], shares={"test": 0.2, "val": 0.1}, seed=1)
    assert Counter(zip(labels, parts, strict=True)) == {
        ("a", "train"): 140,
        ("a", "val"): 20,
        ("a", "test"): 40,
        ("b", "train"): 35,
        ("b", "val"): 5,
        ("b", "test"): 10,
    }


def test_three_documents_are_enough_for_all_parts():
    assert sorted(holdout(["a"] * 3, ["x", "y", "z"], shares={"test": 0.1, "val": 0.1}, seed=0)) == [
        "test",
        "train",
        "val",
    ]


def test_big_groups_do_not_overshoot_a_part():
    groups = ["big"] * 50 + [str(n) for n in range(50)]
    parts = holdout(["a"] * 100, groups, shares={"test": 0.1, "val": 0.1}, seed=0)
    assert Counter(parts) == {"train": 80, "val": 10, "test": 10}
    assert set(parts[:50]) == {"train"}


def test_where_every_group_is_too_big_the_smallest_are_held_out():
    groups = ["x"] * 10 + ["y"] * 11 + ["z"] * 30
    parts = holdout(["a"] * 51, groups, shares={"test": 0.1, "val": 0.1}, seed=0)
    assert (parts[0], parts[10], parts[21]) == ("test", "val", "train")


def test_another_seed_gives_other_parts():
    labels, groups = ["a"] * 100, [str(n) for n in range(100)]
    first, second = (holdout(labels, groups, shares={"test": 0.1, "val": 0.1}, seed=seed) for seed in (0, 1))
    assert first != second


def test_groups_can_be_kept_in_training():
    groups = [str(n) for n in range(30)]
    parts = holdout(["a"] * 30, groups, shares={"test": 0.3, "val": 0.3}, seed=0, only_train=groups[:10])
    assert parts[:10] == ["train"] * 10


def test_copies_count_once_when_classes_are_counted():
    assert small_classes(["a"] * 5 + ["b"] * 3, ["x", "x", "x", "y", "y", "p", "q", "r"]) == {"a": 2}


@given(documents, st.integers(2, 6), st.integers(0, 5))
def test_a_group_never_crosses_folds_and_order_does_not_matter(pairs, num_folds, seed):
    labels, groups = [label for label, _ in pairs], [f"g{number}" for _, number in pairs]
    found = folds(labels, groups, num_folds=num_folds, seed=seed)
    of_group = dict(zip(groups, found, strict=True))
    assert [of_group[group] for group in groups] == found
    assert folds(labels[::-1], groups[::-1], num_folds=num_folds, seed=seed)[::-1] == found


def test_folds_keep_class_shares_and_sizes():
    labels = ["a"] * 52 + ["b"] * 23
    found = folds(labels, [str(n) for n in range(75)], num_folds=5, seed=3)
    counts = Counter(zip(labels, found, strict=True))
    assert sorted(counts[("a", fold)] for fold in range(5)) == [10, 10, 10, 11, 11]
    assert sorted(counts[("b", fold)] for fold in range(5)) == [4, 4, 5, 5, 5]
    assert sorted(Counter(found).values()) == [15] * 5


def test_a_group_in_two_parts_is_a_leak():
    assert leaking_groups(["g", "h", "g", "i"], ["train", "val", "test", "val"]) == {"g": ("test", "train")}
