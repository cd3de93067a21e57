"""A vocabulary is learnt once for the same documents, and anew for others."""

import pytest

from doctune.corpus import vocabularies
from doctune.corpus.store import prune
from doctune.corpus.vocabularies import wordpiece
from doctune.text.vocabulary import learn_wordpiece

TEXTS = ["the mill on the river", "a river and a mill", "grün \ud83c grüne grünes"]


@pytest.fixture
def learnt(monkeypatch):
    calls = []

    def learn(texts, vocab_size):
        calls.append((list(texts), vocab_size))
        return learn_wordpiece([text.encode("utf-8", "replace").decode() for text in texts], vocab_size)

    monkeypatch.setattr(vocabularies, "learn_wordpiece", learn)
    return calls


def test_the_same_documents_have_the_vocabulary_of_before(tmp_path, learnt):
    first, second = (wordpiece(tmp_path, TEXTS, 60) for _ in range(2))
    assert learnt == [(TEXTS, 60)]
    assert first.to_str() == second.to_str()
    assert second.encode("the river mill").tokens == ["[CLS]", "the", "river", "mill", "[SEP]"]


def test_other_documents_and_sizes_have_their_own(tmp_path, learnt):
    for texts, size in [(TEXTS, 60), (TEXTS[:2], 60), (["".join(TEXTS[:2])], 60), (TEXTS, 50)]:
        wordpiece(tmp_path, texts, size)
    assert len(learnt) == 4


def test_a_vocabulary_that_nobody_uses_is_pruned(tmp_path, learnt):
    wordpiece(tmp_path, TEXTS, 60)
    assert [entry.parent.name for entry in prune(tmp_path, -1)] == ["vocabularies"]
    wordpiece(tmp_path, TEXTS, 60)
    assert len(learnt) == 2
