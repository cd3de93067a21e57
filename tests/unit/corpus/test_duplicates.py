import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doctune.corpus import duplicates
from doctune.corpus.duplicates import (
    DuplicateGroups,
    NearPair,
    conflicting_groups,
    duplicate_groups,
    rows_per_band,
    shingles,
    similarity,
    text_groups,
)
from doctune.errors import ConfigError


def near_duplicate_groups(texts, **settings):
    return list(duplicate_groups(texts, **settings).near)


VOCABULARY = [f"{first}{second}" for first in "bcdfghjklmnpqrstvwxz" for second in ("an", "elu", "iro", "osta", "um")]


def text_of(seed, words=200):
    return " ".join(random.Random(seed).choices(VOCABULARY, k=words))


def with_word(text, place, word="CHANGED"):
    words = text.split()
    words[place % len(words)] = word
    return " ".join(words)


def test_texts_that_differ_in_whitespace_are_one_group():
    first, second, third = text_groups(["a  b\n", " a b", "a c"])
    assert first == second != third


def test_a_text_under_two_labels_is_a_conflict():
    assert conflicting_groups(["g", "h", "g"], ["y", "x", "x"]) == {"g": ("x", "y")}


def test_similarity_is_the_jaccard_index_of_the_shingles():
    assert similarity("a b c d e f", "a b c d e g") == 1 / 3  # abcde in common; bcdef, bcdeg
    assert similarity("A, b: c -- d (e)", "a b c d e") == 1.0
    assert similarity("a b c d", "a b c d") == 0.0


def test_shingles_are_the_same_in_every_process_and_version():
    assert shingles("the quick brown fox jumps over").tolist() == [6419325420640209099, 7436627688002914971]


def test_scripts_without_blanks_are_cut_into_characters():
    first = "今日は天気がいいから散歩しましょう"
    assert len(shingles(first)) == len(first) - 4
    assert similarity(first, first[:-1] + "か") == (len(first) - 5) / (len(first) - 3)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), places=st.lists(st.integers(0, 10_000), min_size=1, max_size=3))
def test_a_copy_with_one_word_changed_shares_the_group(seed, places):
    original = text_of(seed)
    copies = [with_word(original, place) for place in places]
    groups = near_duplicate_groups([original, *copies, text_of(seed + 1)])
    assert len(set(groups[:-1])) == 1
    assert groups[-1] != groups[0]


@settings(max_examples=25, deadline=None)
@given(seeds=st.lists(st.integers(0, 10_000), min_size=2, max_size=12, unique=True))
def test_unrelated_texts_share_nothing_and_are_named_as_exact_ones(seeds):
    texts = [text_of(seed) for seed in seeds]
    assert near_duplicate_groups(texts) == text_groups(texts)


@settings(max_examples=25, deadline=None)
@given(data=st.data(), families=st.lists(st.integers(0, 50), min_size=1, max_size=6, unique=True))
def test_groups_depend_neither_on_order_nor_on_what_else_there_is(data, families):
    texts = [with_word(text_of(seed), place) for seed in families for place in range(seed % 4 + 1)]
    group_of = dict(zip(texts, near_duplicate_groups(texts), strict=True))
    shuffled = data.draw(st.permutations(texts))
    assert near_duplicate_groups(shuffled) == [group_of[text] for text in shuffled]
    assert near_duplicate_groups([*texts, text_of(999)])[:-1] == [group_of[text] for text in texts]


def test_a_group_is_named_after_its_smallest_member_and_linked_by_verified_pairs():
    original = text_of(1)
    texts = [original, text_of(2), with_word(original, 9), original + "\n", with_word(original, 90)]
    found = duplicate_groups(texts)
    assert found.exact == tuple(text_groups(texts))
    assert found.near == (min(found.exact[place] for place in (0, 2, 4)), found.exact[1], *[found.near[0]] * 3)
    assert len(found.pairs) == 2  # three different texts in one group
    assert all(pair.first < pair.second and {pair.first, pair.second} <= {0, 2, 4} for pair in found.pairs)
    assert all(pair.similarity == similarity(texts[pair.first], texts[pair.second]) for pair in found.pairs)


def test_similar_but_below_the_threshold_is_not_a_copy():
    original = text_of(3)
    changed = original
    for place in (10, 50, 90, 130, 170):
        changed = with_word(changed, place)
    assert 0.75 < similarity(original, changed) < 0.8
    assert len(set(near_duplicate_groups([original, changed]))) == 2
    assert duplicate_groups([original, changed], threshold=0.75).pairs == (
        NearPair(0, 1, similarity(original, changed)),
    )


def test_a_chain_is_one_group_so_that_none_of_its_links_is_split():
    steps = [text_of(4)]
    for place in (10, 40, 70, 100, 130, 160):
        steps.append(with_word(steps[-1], place))
    assert similarity(steps[0], steps[-1]) < 0.8
    assert len(set(near_duplicate_groups(steps))) == 1


def test_texts_shorter_than_a_shingle_have_exact_copies_only():
    texts = ["one two three", "one two four", "one  two three", "", " ", "!?"]
    assert near_duplicate_groups(texts) == text_groups(texts)
    assert near_duplicate_groups([]) == []


def test_threshold_one_means_exact_copies_only():
    texts = [text_of(5), text_of(5).upper()]
    assert near_duplicate_groups(texts, threshold=1) == text_groups(texts)
    assert len(set(near_duplicate_groups(texts))) == 1


def test_results_do_not_depend_on_how_many_shingles_are_kept(monkeypatch):
    texts = [with_word(text_of(seed), place) for seed in range(6) for place in range(4)]
    expected = duplicate_groups(texts)
    monkeypatch.setattr(duplicates, "_MAX_CACHED_SHINGLES", 300)
    monkeypatch.setattr(duplicates, "_SHINGLES_PER_UPDATE", 7)
    assert duplicate_groups(texts) == expected


@pytest.mark.parametrize(("threshold", "rows"), [(0.6, 3), (0.8, 5), (0.9, 8)])
def test_bands_are_as_sharp_as_the_recall_allows(threshold, rows):
    assert rows_per_band(threshold, 128) == rows


@pytest.mark.parametrize("threshold", [0.59, 1.01])
def test_a_threshold_out_of_range_is_refused(threshold):
    with pytest.raises(ConfigError) as refused:
        near_duplicate_groups(["a"], threshold=threshold)
    assert str(refused.value) == (
        f"The similarity threshold of near-duplicates is {threshold}; use a number from 0.6 to 1, "
        "where 1 means exact copies only."
    )


def test_groups_of_some_texts_keep_their_names_and_links():
    groups = DuplicateGroups(("a", "b", "c", "b"), ("a", "a", "c", "a"), (NearPair(0, 1, 0.9),))
    assert groups.only([1, 2, 0, 0]) == DuplicateGroups(
        ("b", "c", "a", "a"), ("a", "c", "a", "a"), (NearPair(0, 2, 0.9),)
    )
    assert groups.only([1, 2]).pairs == ()
