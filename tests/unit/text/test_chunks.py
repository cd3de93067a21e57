import tracemalloc

import pytest
from tokenizers import ByteLevelBPETokenizer, processors

from doctune.errors import ConfigError
from doctune.text import chunks
from doctune.text.chunks import Chunk, ChunkedText, chosen_chunks, chunk
from doctune.text.vocabulary import learn_wordpiece

WORDS = ["alpha", "beta", "gamma", "delta"]
TEXT = " ".join(WORDS[number % 4] for number in range(20))
LINES = (
    "Take 2 eggs, sugar.\n\n  Bake it;  serve\twarm.\r\n2026-01-03;9.00;EUR\nÉtude in 漢字, 😀 and \u00a0 more\n" * 30
)
CLS, SEP = 2, 3


@pytest.fixture(scope="module")
def wordpiece():
    return learn_wordpiece([TEXT, LINES] * 2, 400)


@pytest.fixture(scope="module")
def bytelevel():
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator([TEXT, LINES], 400, special_tokens=["<s>", "<pad>", "</s>"])
    bpe.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return bpe._tokenizer


@pytest.fixture(params=["wordpiece", "bytelevel"])
def tokenizer(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(chunks, "_PIECE_CHARS", 50)
    monkeypatch.setattr(chunks, "_CHARS_AT_ONCE", 400)
    monkeypatch.setattr(chunks, "chars_for_window", lambda num_tokens: num_tokens)


def only(tokenizer, text, **settings):
    """The chunks of one text."""
    (found,) = chunk(tokenizer, [text], **settings)
    return found


def windows_of(tokenizer, text, length, stride):
    """What the tokenizer itself makes of the whole text."""
    tokenizer.enable_truncation(length, stride=stride)
    encoding = tokenizer.encode(text)
    return [tuple(window.ids) for window in (encoding, *encoding.overflowing)]


def test_neighbours_share_the_stride_and_each_has_its_special_tokens(wordpiece):
    a, b, c, d = (wordpiece.token_to_id(word) for word in WORDS)
    found = only(wordpiece, "alpha beta gamma delta alpha beta", chunk_length=6, stride=2, max_chunks=9)
    assert [each.ids for each in found.chunks] == [(CLS, a, b, c, d, SEP), (CLS, c, d, a, b, SEP)]
    assert found.num_available == 2
    assert not found.is_estimated


def test_a_chunk_says_which_characters_it_stands_for(wordpiece):
    text = "alpha  beta gamma\n delta "
    found = only(wordpiece, text, chunk_length=4, max_chunks=9)
    assert [text[each.start : each.end] for each in found.chunks] == ["alpha  beta", "gamma\n delta"]
    assert found.chunks[1].start == 12


@pytest.mark.parametrize("text", ["", "  \n "])
def test_a_text_without_tokens_is_one_chunk_of_special_tokens(wordpiece, text):
    for keep in ("head", "spread", "head_tail"):
        found = only(wordpiece, text, chunk_length=8, max_chunks=3, keep=keep)
        assert found == ChunkedText((Chunk((CLS, SEP), 0, 0),), 1)


def test_one_word_is_one_chunk(wordpiece):
    found = only(wordpiece, "alpha", chunk_length=3, max_chunks=1, keep="spread")
    assert found == ChunkedText((Chunk((CLS, wordpiece.token_to_id("alpha"), SEP), 0, 5),), 1)


@pytest.mark.parametrize("stride", [0, 1, 5])
@pytest.mark.parametrize("length", [8, 31])
def test_chunks_are_those_that_the_tokenizer_cuts_itself(tokenizer, small_pieces, length, stride):
    for text in (TEXT, LINES, "a", "alpha" * 100, LINES.replace(" ", "")):
        expected = windows_of(tokenizer, text, length, stride)
        found = only(tokenizer, text, chunk_length=length, stride=stride, max_chunks=10_000, keep="spread")
        assert [each.ids for each in found.chunks] == expected
        assert found.num_available == len(expected)
        head = only(tokenizer, text, chunk_length=length, stride=stride, max_chunks=3)
        assert [each.ids for each in head.chunks] == expected[:3]
        assert (head.num_available > 3) == (len(expected) > 3)


def test_spans_do_not_depend_on_the_pieces(tokenizer, monkeypatch):
    settings = {"chunk_length": 16, "stride": 3, "max_chunks": 50, "keep": "spread"}
    whole = only(tokenizer, LINES, **settings)
    monkeypatch.setattr(chunks, "_PIECE_CHARS", 40)
    assert only(tokenizer, LINES, **settings) == whole
    assert len(whole.chunks) == 50


@pytest.mark.parametrize(
    ("keep", "max_chunks", "chosen"),
    [
        ("head", 4, [0, 1, 2, 3]),
        ("spread", 4, [0, 3, 6, 9]),
        ("spread", 3, [0, 5, 9]),
        ("spread", 1, [0]),
        ("head_tail", 4, [0, 1, 8, 9]),
        ("head_tail", 5, [0, 1, 2, 8, 9]),
        ("head_tail", 1, [0]),
        ("spread", 10, list(range(10))),
        ("head_tail", 12, list(range(10))),
    ],
)
def test_what_is_kept_of_ten_chunks(wordpiece, keep, max_chunks, chosen):
    assert chosen_chunks(10, max_chunks, keep) == chosen
    everything = only(wordpiece, TEXT, chunk_length=4, max_chunks=10, keep="spread")
    found = only(wordpiece, TEXT, chunk_length=4, max_chunks=max_chunks, keep=keep)
    assert found.chunks == tuple(everything.chunks[number] for number in chosen)
    assert found.num_available == everything.num_available == 10


@pytest.mark.parametrize("num_available", [21, 22, 39, 1000])
def test_spread_never_keeps_a_chunk_twice(num_available):
    chosen = chosen_chunks(num_available, 20, "spread")
    assert len(set(chosen)) == 20
    assert chosen == sorted(chosen)
    assert (chosen[0], chosen[-1]) == (0, num_available - 1)


def test_results_come_in_the_order_of_the_texts(wordpiece, small_pieces):
    texts = [TEXT, "", LINES, "beta", LINES + TEXT]
    for keep in ("head", "head_tail"):
        settings = {"chunk_length": 10, "stride": 2, "max_chunks": 4, "keep": keep}
        assert list(chunk(wordpiece, texts, **settings)) == [only(wordpiece, text, **settings) for text in texts]


def test_only_the_beginning_is_tokenised_for_the_first_chunks(wordpiece):
    class Counting:
        """The tokenizer, counting the characters that it is given."""

        num_chars = 0

        def __getattr__(self, name):
            return getattr(wordpiece, name)

        def encode_batch(self, texts, **settings):
            self.num_chars += sum(map(len, texts))
            return wordpiece.encode_batch(texts, **settings)

    counting = Counting()
    found = only(counting, (TEXT + " ") * 10_000, chunk_length=66, stride=2, max_chunks=4)
    assert len(found.chunks) == 4
    assert 2000 < counting.num_chars < 2100
    assert found.is_estimated
    assert found.num_available == pytest.approx(200_000 / 62, rel=0.01)


def test_more_is_read_where_the_beginning_has_few_tokens(wordpiece):
    text = "alpha" + " " * 5000 + "beta gamma " + " " * 5000 + "delta"
    found = only(wordpiece, text, chunk_length=4, max_chunks=1)
    assert found.chunks[0].end == text.index("beta") + 4
    assert found.num_available == 2


def test_white_space_after_the_last_word_is_no_further_chunk(wordpiece):
    assert only(wordpiece, "alpha beta" + " " * 9000, chunk_length=4, max_chunks=1).num_available == 1


def test_a_large_text_is_held_as_numbers_not_as_the_tokenizers_result(wordpiece, monkeypatch):
    monkeypatch.setattr(chunks, "_CHARS_AT_ONCE", 64 * 1024)
    text = "alpha beta gamma delta.\n" * 20_000
    num_tokens = 100_000
    tracemalloc.start()
    found = only(wordpiece, text, chunk_length=512, stride=64, max_chunks=20, keep="spread")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.num_available == 1 + -(-(num_tokens - 510) // 446)
    assert (found.chunks[0].start, found.chunks[-1].end) == (0, len(text) - 1)
    assert peak < 60 * num_tokens  # bytes; lists of ids and of pairs of places alone would take some 150 per token


def test_the_tokenizers_own_limits_do_not_count(wordpiece):
    wordpiece.enable_truncation(5)
    wordpiece.enable_padding(length=50)
    found = only(wordpiece, TEXT, chunk_length=22, max_chunks=1)
    assert len(found.chunks[0].ids) == 22


@pytest.mark.parametrize("stride", [-1, 6, 100])
def test_a_stride_that_leads_nowhere_is_refused(wordpiece, stride):
    with pytest.raises(ConfigError) as caught:
        chunk(wordpiece, [TEXT], chunk_length=8, stride=stride, max_chunks=2)
    assert str(caught.value) == (
        f"stride={stride} with chunk_length=8: a chunk has 6 tokens besides the 2 special ones, so the stride must be "
        "from 0 to 5. Give a smaller stride or a larger chunk_length."
    )


def test_a_chunk_without_room_for_a_token_is_refused(wordpiece):
    with pytest.raises(
        ConfigError,
        match=r"^chunk_length=2: beside the 2 special tokens there is no room for the text\. Give at least 3\.$",
    ):
        chunk(wordpiece, [TEXT], chunk_length=2, max_chunks=2)


def test_other_choices_are_refused(wordpiece):
    with pytest.raises(ValueError, match=r"^keep='tail' is not a choice: head, spread, head_tail\.$"):
        chunk(wordpiece, [TEXT], chunk_length=8, max_chunks=2, keep="tail")
    with pytest.raises(ValueError, match=r"^max_chunks=0: every document needs at least one chunk\.$"):
        chunk(wordpiece, [TEXT], chunk_length=8, max_chunks=0)
