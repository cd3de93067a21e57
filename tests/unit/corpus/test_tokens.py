import pickle

from doctune.corpus.tokens import tokenise
from doctune.text.vocabulary import learn_wordpiece
from doctune.text.windows import head_windows

TEXTS = ["one two three four five", "one", "two two"]


class Counted(list):
    """Texts that count how often they are read."""

    reads = 0

    def __iter__(self):
        Counted.reads += 1
        return super().__iter__()


def test_windows_come_back_as_they_were_cut(tmp_path):
    tokenizer = learn_wordpiece(TEXTS * 3, 100)
    tokens = tokenise(tmp_path, tokenizer, 5, "store", ["a", "b", "c"], TEXTS)
    assert [window.tolist() for window in tokens] == head_windows(tokenizer, TEXTS, 5)
    assert tokens.lengths().tolist() == [5, 3, 4]
    assert len(tokens) == 3


def test_the_same_corpus_is_tokenised_once(tmp_path):
    tokenizer = learn_wordpiece(TEXTS * 3, 100)
    tokenise(tmp_path, tokenizer, 5, "store", ["a", "b", "c"], TEXTS)
    Counted.reads = 0
    tokenizer.no_truncation()  # state that somebody left behind is no part of the key
    tokenise(tmp_path, tokenizer, 5, "store", ["a", "b", "c"], Counted(TEXTS))
    assert Counted.reads == 0


def test_a_worker_process_gets_the_files_not_a_copy(tmp_path):
    tokenizer = learn_wordpiece(TEXTS * 3, 100)
    tokens = tokenise(tmp_path, tokenizer, 5, "store", ["a", "b", "c"], TEXTS * 1)
    packed = pickle.dumps(tokens)
    assert len(packed) < 400
    assert [window.tolist() for window in pickle.loads(packed)] == [window.tolist() for window in tokens]


def test_another_window_tokenizer_or_corpus_is_another_entry(tmp_path):
    tokenizer = learn_wordpiece(TEXTS * 3, 100)
    other = learn_wordpiece(["five six seven"] * 3, 100)
    tokenise(tmp_path, tokenizer, 5, "s", list("abc"), TEXTS)
    tokenise(tmp_path, tokenizer, 6, "s", list("abc"), TEXTS)
    tokenise(tmp_path, other, 5, "s", list("abc"), TEXTS)
    tokenise(tmp_path, tokenizer, 5, "s", list("abd"), TEXTS)
    tokenise(tmp_path, tokenizer, 5, "scrubbed", list("abc"), TEXTS)
    assert len(list((tmp_path / "tokens").iterdir())) == 5
