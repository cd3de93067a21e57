import pytest

from doctune.reports.phrases import listed


@pytest.mark.parametrize(("words", "said"), [(["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")])
def test_words_stand_as_in_a_sentence(words, said):
    assert listed(words) == said
