from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doctune.text.sentences import MAX_CHARS, sentence_around


def around(text, place):
    start = text.index(place)
    low, high = sentence_around(text, start, start + len(place))
    return text[low:high]


@pytest.mark.parametrize(
    ("text", "place", "sentence"),
    [
        ("One is here. Two is there. Three.", "Two", "Two is there."),
        ("One is here. Two is there. Three.", "One", "One is here."),
        ("One is here. Two is there. Three", "Three", "Three"),
        ("One is here. Two is there. Three.", "there.", "Two is there."),
        ("One is here. Two is there. Three.", "here. Two", "One is here. Two is there."),
        ("Is it? It is! Good.", "It is", "It is!"),
        ("Wait... What? No.", "What", "What?"),
        ("It went on… Then it stopped.", "went", "It went on…"),
        ("He met Mr. Smith and Dr. Who. They left.", "Smith", "He met Mr. Smith and Dr. Who."),
        ("J. R. R. Tolkien wrote it. We read it.", "wrote", "J. R. R. Tolkien wrote it."),
        ("The U.S. Army came. It left.", "came", "The U.S. Army came."),
        ("He lived in the U.S. The next year he left.", "lived", "He lived in the U.S."),
        ("Fruit, e.g. Apples, is good. Eat it.", "good", "Fruit, e.g. Apples, is good."),
        ("See p. 5 and No. 7 of Jan. 3. Then stop.", "See", "See p. 5 and No. 7 of Jan. 3."),
        ("The answer is no. Nobody came.", "answer", "The answer is no."),
        ("It costs 3.50 at v2.0.1 of x.com today. Fine.", "costs", "It costs 3.50 at v2.0.1 of x.com today."),
        ("It was 1990. 12 men came.", "men", "12 men came."),
        ("Yahoo! is old. So it is.", "old", "Yahoo! is old."),
        ("It took approx. five days. Good.", "took", "It took approx. five days."),
        ('He said "go." Then he went.', "went", "Then he went."),
        ('He said "go." Then he went.', "go", 'He said "go."'),
        ("(It rained.) It stopped.", "rained", "(It rained.)"),
        ("Title without stop\nThe text. More.", "text", "The text."),
        ("Title without stop\r\nThe text. More.", "Title", "Title without stop"),
        ("first line\n\n  indented line\n", "indented", "indented line"),
        ("今天下雨。明天晴。", "明天", "明天晴。"),
        ("no stop at all", "stop", "no stop at all"),
    ],
)
def test_the_sentence_around_a_place(text, place, sentence):
    assert around(text, place) == sentence


def test_white_space_at_the_ends_of_the_place_does_not_count():
    text = "One is here. Two is there. Three."
    assert sentence_around(text, 12, 17) == (13, 26)


def test_a_place_without_text_has_the_sentence_it_stands_in():
    text = "One is here. Two is there."
    assert sentence_around(text, 4, 4) == (0, 12)
    assert sentence_around(text, 13, 13) == (13, 26)
    assert sentence_around("", 0, 0) == (0, 0)


@pytest.mark.parametrize(("start", "end"), [(-1, 2), (3, 2), (0, 6)])
def test_a_place_outside_the_text_is_refused(start, end):
    with pytest.raises(ValueError, match=f"^start {start} and end {end} are no place in a text of 5 characters\\.$"):
        sentence_around("Text.", start, end)


@settings(deadline=None)
@given(st.text(alphabet="aB1 .!?…\n\"')。", max_size=60), st.data())
def test_the_sentence_holds_its_place(text, data):
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    low, high = sentence_around(text, start, end)
    assert 0 <= low <= high <= len(text)
    assert text[low:high] == text[low:high].strip()
    assert text[start:end].strip() in text[low:high]


def test_text_without_an_end_is_cut_between_words():
    text = "word " * 2000
    low, high = sentence_around(text, 5000, 5004)
    assert (low, high) == (3000, 7004)
    assert 5000 - low <= MAX_CHARS
    assert high - 5004 <= MAX_CHARS


def test_one_endless_word_is_cut_at_the_limit():
    assert sentence_around("x" * 10_000, 5000, 5001) == (5000 - MAX_CHARS, 5001 + MAX_CHARS)


@pytest.mark.parametrize("unit", ["word ", "x", ".", ".)", ". ", "!\"'", " ", "\n", "A. ", "。", "e.g. "])
def test_five_megabytes_of_anything_take_no_time(unit):
    text = unit * (5_000_000 // len(unit))
    started = time.process_time()
    for start in range(0, len(text) - 10, 500_000):
        sentence_around(text, start, start + 10)
    assert time.process_time() - started < 0.5
