import pytest

from doctune.corpus import grouping
from doctune.corpus.store import TextStore
from doctune.documents import Document

LONG = " ".join(f"word{number}" for number in range(200))
TEXTS = [LONG, LONG.replace("word100", "other"), "something else entirely", "something  else entirely\n"]


@pytest.fixture
def filled(tmp_path):
    paths = [tmp_path / f"{number}.txt" for number in range(len(TEXTS))]
    for path, text in zip(paths, TEXTS, strict=True):
        path.write_text(text)
    store = TextStore(tmp_path / "cache", "k")
    entries = store.fill(paths, lambda asked: (Document(str(p), "ok", "", "text", p.read_text()) for p in asked))
    return store, [entry.content for entry in entries]


def test_near_copies_share_a_group(filled):
    groups = grouping.groups_of(*filled, threshold=0.8)
    first, second, third, fourth = groups.near
    assert first == second
    assert third == fourth
    assert first != third
    assert len(set(groups.exact)) == 3


def test_groups_are_worked_out_once(filled, monkeypatch):
    store, contents = filled
    found = grouping.groups_of(store, contents, 0.8)
    monkeypatch.setattr(grouping, "duplicate_groups", lambda *_, **__: pytest.fail("worked out again"))
    assert grouping.groups_of(store, contents[::-1], 0.8).near == found.near[::-1]


def test_another_threshold_has_other_groups(filled):
    store, contents = filled
    first, second, *_ = grouping.groups_of(store, contents, 1.0).near
    assert first != second
