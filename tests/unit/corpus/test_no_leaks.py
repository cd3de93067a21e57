"""Planted near-copies never stand on both sides, from the texts to the parts."""

from hypothesis import given, settings
from hypothesis import strategies as st

from doctune.corpus.division import LabelledDocument, SplitSettings, divide
from doctune.corpus.duplicates import duplicate_groups

WORDS = [f"word{number}" for number in range(400)]


def original(number: int) -> str:
    return " ".join(WORDS[(number * 37 + place * (number + 3)) % 400] for place in range(120))


def near_copy(text: str, place: int) -> str:
    words = text.split()
    return " ".join([*words[:place], "changed", *words[place + 1 :]])


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 119)), max_size=12), st.integers(0, 9))
def test_no_planted_copy_crosses_a_hold_out_or_a_fold(planted, seed):
    texts = [original(number) for number in range(20)] + [near_copy(original(n), place) for n, place in planted]
    family = [*range(20), *(number for number, _ in planted)]
    near = duplicate_groups(texts, threshold=0.8).near
    documents = [
        LabelledDocument(f"d{place}", f"/{place}", "ab"[family[place] % 2], f"c{place}", "", f"t{place}", near[place])
        for place in range(len(texts))
    ]
    splits = [SplitSettings(seed=seed), *(SplitSettings(seed=seed, num_folds=4, fold=fold) for fold in range(4))]
    for split in splits:
        found = {document.id: document.part for document in divide(documents, split).documents}
        for place, number in enumerate(family):
            assert found[f"d{place}"] == found[f"d{number}"]
