"""Word pieces become words of the text, and what they add is kept to the last bit."""

import math

import pytest

from doctune.inference.explanation import Completeness, Piece, merge_words, passage


def words_of(text, *spans):
    """The words that tokens at these places become, and which tokens each has (token i adds 2 to the power of i)."""
    tokens = [Piece(start, end, 2.0**number) for number, (start, end) in enumerate(spans)]
    return [(text[word.start : word.end], word.attribution) for word in merge_words(text, tokens)]


def test_the_pieces_of_a_word_are_summed():
    assert words_of("unbelievable news", (0, 2), (2, 9), (9, 12), (13, 17)) == [("unbelievable", 7.0), ("news", 8.0)]


def test_punctuation_between_words_stays_alone():
    assert words_of("f(x)=a_1;", (0, 1), (1, 2), (2, 3), (3, 5), (5, 6), (6, 7), (7, 8), (8, 9)) == [
        ("f", 1.0),
        ("(", 2.0),
        ("x", 4.0),
        (")=", 8.0),
        ("a_1", 112.0),
        (";", 128.0),
    ]


def test_the_bytes_of_one_character_are_one_piece():
    assert words_of("a 🙂 b", (0, 1), (2, 3), (2, 3), (2, 3), (4, 5)) == [("a", 1.0), ("🙂", 14.0), ("b", 16.0)]


def test_scripts_without_blanks_keep_their_tokens():
    assert words_of("我们在", (0, 1), (1, 2), (2, 3)) == [("我", 1.0), ("们", 2.0), ("在", 4.0)]
    assert words_of("größe", (0, 3), (3, 5)) == [("größe", 3.0)]


def test_a_word_that_the_window_cuts_is_as_long_as_what_was_read():
    assert words_of("half a wordlessness", (0, 4), (5, 6), (7, 11)) == [("half", 1.0), ("a", 2.0), ("word", 4.0)]


def test_a_token_without_characters_keeps_its_attribution():
    assert math.fsum(value for _, value in words_of("a  b", (0, 1), (2, 2), (3, 4))) == 7.0


def test_a_passage_is_the_part_of_the_text_that_was_read():
    found = passage("text", "one two three", [Piece(4, 7, 1.0), Piece(8, 13, 2.0)])
    assert (found.text, found.start) == ("two three", 4)
    assert [found.characters(word) for word in found.words] == ["two", "three"]


@pytest.mark.parametrize(
    ("score", "baseline", "total", "relative", "holds"),
    [
        (3.0, 1.0, 2.0, 0.0, True),
        (3.0, 1.0, 2.0625, 0.03125, True),
        (1.0, 3.0, -2.5, 0.25, False),
        (1.0, 1.0, 0.0, 0.0, True),
        (1.0, 1.0, 0.5, None, False),
    ],
)
def test_the_delta_is_a_share_of_the_difference(score, baseline, total, relative, holds):
    check = Completeness(score, baseline, total, 50)
    assert (check.relative_delta, check.holds) == (relative, holds)
    assert check.delta == total - (score - baseline)
