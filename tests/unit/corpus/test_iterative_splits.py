from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from doctune.corpus.iterative_splits import Wanted, distribute, iterative_folds, iterative_holdout

SHARES = {"test": 0.1, "val": 0.1}
rows = st.lists(st.tuples(st.sets(st.sampled_from("abcde"), max_size=3), st.integers(0, 30)), min_size=1, max_size=80)


def as_groups(pairs):
    return [labels for labels, _ in pairs], [f"g{number}" for _, number in pairs]


def written_down(labels, wanted_labels, wanted_texts):
    """Algorithm 1 of Sechidis et al. (2011) for texts one by one, as it is printed; the first wins where lots are."""
    texts = {text: {label for label in range(labels.shape[1]) if labels[text, label]} for text in range(len(labels))}
    label_wish = [list(row) for row in wanted_labels]
    text_wish = list(wanted_texts)
    subset = {}
    while any(texts.values()):
        remaining = Counter(label for found in texts.values() for label in found)
        rarest = min(remaining, key=lambda label: (remaining[label], label))
        for text in [text for text, found in texts.items() if rarest in found]:
            most = max(wish[rarest] for wish in label_wish)
            best = [part for part, wish in enumerate(label_wish) if wish[rarest] == most]
            part = max(best, key=lambda part: (text_wish[part], -part))
            subset[text] = part
            for label in texts.pop(text):
                label_wish[part][label] -= 1
            text_wish[part] -= 1
    for text in texts:
        part = max(range(len(text_wish)), key=lambda part: (text_wish[part], -part))
        subset[text] = part
        text_wish[part] -= 1
    return [subset[text] for text in range(len(labels))]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shares", [(0.75, 0.125, 0.125), (0.25,) * 4])
def test_single_texts_are_distributed_as_the_paper_says(seed, shares):
    rng = np.random.default_rng(seed)
    labels = (rng.random((160, 7)) < [0.5, 0.3, 0.2, 0.1, 0.05, 0.05, 0.3]).astype(np.int64)
    wanted = Wanted(np.outer(shares, labels.sum(axis=0)), np.array(shares) * len(labels))
    found = distribute(labels, np.ones(len(labels), np.int64), wanted)
    assert found.tolist() == written_down(labels, wanted.labels, wanted.texts)


def test_the_rarest_label_goes_first_and_to_the_part_that_wants_most():
    # Label 1 is rarer: its two texts are spread before label 0 fills up what is left.
    labels = np.array([[1, 0], [1, 0], [1, 1], [1, 1]])
    wanted = Wanted(np.array([[2.0, 1.0], [2.0, 1.0]]), np.array([2.0, 2.0]))
    assert distribute(labels, np.ones(4, np.int64), wanted).tolist() == [0, 1, 0, 1]


def test_larger_groups_are_placed_first_and_count_with_all_their_texts():
    labels, sizes = np.array([[1], [3], [1], [1]]), np.array([1, 3, 1, 1])
    wanted = Wanted(np.array([[3.0], [3.0]]), np.array([3.0, 3.0]))
    assert distribute(labels, sizes, wanted).tolist() == [1, 0, 1, 1]


def test_texts_without_labels_fill_up_the_parts():
    parts = iterative_holdout([()] * 100, [f"g{n}" for n in range(100)], shares=SHARES, seed=0)
    assert Counter(parts) == {"train": 80, "val": 10, "test": 10}


@given(rows, st.integers(0, 5))
def test_a_group_never_crosses_parts_and_order_does_not_matter(pairs, seed):
    label_sets, groups = as_groups(pairs)
    found = iterative_holdout(label_sets, groups, shares=SHARES, seed=seed)
    of_group = dict(zip(groups, found, strict=True))
    assert [of_group[group] for group in groups] == found
    assert iterative_holdout(label_sets[::-1], groups[::-1], shares=SHARES, seed=seed)[::-1] == found


@given(rows, st.integers(2, 5), st.integers(0, 5))
def test_a_group_never_crosses_folds_and_order_does_not_matter(pairs, num_folds, seed):
    label_sets, groups = as_groups(pairs)
    found = iterative_folds(label_sets, groups, num_folds=num_folds, seed=seed)
    of_group = dict(zip(groups, found, strict=True))
    assert [of_group[group] for group in groups] == found
    assert set(found) <= set(range(num_folds))
    assert iterative_folds(label_sets[::-1], groups[::-1], num_folds=num_folds, seed=seed)[::-1] == found


def make_label_sets(seed, num_texts=1000):
    rng = np.random.default_rng(seed)
    chances = np.array([0.4, 0.3, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01])
    return [set(np.flatnonzero(row < chances).tolist()) for row in rng.random((num_texts, len(chances)))]


def ratio_error(label_sets, parts, shares):
    """How far the share of each label in each part is from that of all texts, on average (LD of Sechidis et al.)."""
    matrix = np.array([[label in found for label in range(8)] for found in label_sets])
    whole = matrix.mean(axis=0)
    of_parts = [matrix[[part == name for part in parts]].mean(axis=0) for name in shares]
    return np.mean([np.abs(share / (1 - share) - whole / (1 - whole)) for share in of_parts])


@pytest.mark.parametrize("seed", range(3))
def test_label_ratios_are_closer_than_in_a_random_split(seed):
    label_sets, groups = make_label_sets(seed), [f"g{n}" for n in range(1000)]
    names = ["train", *SHARES]
    found = iterative_holdout(label_sets, groups, shares=SHARES, seed=seed)
    shuffled = np.random.default_rng(seed).permutation(found).tolist()
    assert ratio_error(label_sets, found, names) < 0.2 * ratio_error(label_sets, shuffled, names)
    folded = iterative_folds(label_sets, groups, num_folds=5, seed=seed)
    mixed = np.random.default_rng(seed).permutation(folded).tolist()
    assert ratio_error(label_sets, folded, range(5)) < 0.2 * ratio_error(label_sets, mixed, range(5))


def test_a_label_of_three_texts_reaches_all_parts():
    label_sets = [{"rare"}] * 3 + [{"usual"}] * 97
    parts = iterative_holdout(label_sets, [f"g{n}" for n in range(100)], shares=SHARES, seed=1)
    assert sorted(parts[:3]) == ["test", "train", "val"]
    assert Counter(parts[3:]) == {"train": 77, "val": 10, "test": 10}


def test_a_label_of_two_texts_stays_in_training():
    label_sets = [{"rare"}] * 2 + [{"usual"}] * 98
    parts = iterative_holdout(label_sets, [f"g{n}" for n in range(100)], shares=SHARES, seed=1)
    assert parts[:2] == ["train", "train"]


def test_groups_can_be_kept_in_training():
    groups = [str(n) for n in range(30)]
    shares = {"test": 0.3, "val": 0.3}
    parts = iterative_holdout([{"a"}] * 30, groups, shares=shares, seed=0, only_train=groups[:10])
    assert parts[:10] == ["train"] * 10
    assert Counter(parts[10:]) == {"train": 8, "val": 6, "test": 6}


def test_another_seed_gives_other_parts():
    label_sets, groups = make_label_sets(0, 100), [str(n) for n in range(100)]
    first, second = (iterative_holdout(label_sets, groups, shares=SHARES, seed=seed) for seed in (0, 1))
    assert first != second
