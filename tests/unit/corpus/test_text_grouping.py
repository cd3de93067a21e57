import json

import pytest

from doctune.corpus.duplicates import duplicate_groups
from doctune.corpus.text_grouping import groups_of_texts

LONG = "the quick brown fox jumps over the lazy dog and runs far away into the deep dark wood"
TEXTS = [LONG, "short", f"{LONG} again", " short "]


def test_groups_are_those_of_the_texts_and_come_from_the_cache_the_next_time(tmp_path):
    expected = duplicate_groups(TEXTS, threshold=0.8)
    assert groups_of_texts(tmp_path, TEXTS, 0.8) == expected
    assert len(expected.pairs) == 1
    (saved,) = (tmp_path / "groups").rglob("groups.json")
    groups = json.loads(saved.read_text())
    saved.write_text(json.dumps(groups | {"near": ["x"] * 4}))
    assert groups_of_texts(tmp_path, TEXTS, 0.8).near == ("x",) * 4


@pytest.mark.parametrize(("texts", "threshold"), [(TEXTS[::-1], 0.8), (TEXTS, 0.9), (["ab", "c"], 0.8)])
def test_other_texts_orders_and_thresholds_have_groups_of_their_own(tmp_path, texts, threshold):
    groups_of_texts(tmp_path, TEXTS, 0.8)
    groups_of_texts(tmp_path, ["a", "bc"], 0.8)
    assert groups_of_texts(tmp_path, texts, threshold) == duplicate_groups(texts, threshold=threshold)
    assert len([*(tmp_path / "groups").iterdir()]) == 3
