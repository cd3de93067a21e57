"""Text in any common encoding is decoded exactly, and alike however much of it is read."""

import io

import pytest

from doctune.text.encoding import BLOCK_BYTES, decode_blocks, is_text

RUSSIAN = "Все люди рождаются свободными и равными в своём достоинстве и правах. Они наделены разумом и совестью. " * 3
JAPANESE = "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。" * 3
GERMAN = (
    "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen begabt. " * 3
)


def decoded(content):
    return "".join(decode_blocks(io.BytesIO(content)))


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (GERMAN, "utf-8"), (GERMAN, "utf-8-sig"), (GERMAN, "utf-16"), (GERMAN, "utf-16-le"), (GERMAN, "utf-16-be"),
        (GERMAN, "utf-32"), (GERMAN, "cp1252"), (RUSSIAN, "cp1251"), (RUSSIAN, "koi8-r"),
        (JAPANESE, "shift_jis"), (JAPANESE, "euc-jp"), (JAPANESE, "iso2022-jp"),
    ],
)  # fmt: skip
def test_common_encodings_are_recognised(text, encoding):
    assert decoded(text.encode(encoding)) == text


def test_a_character_that_a_block_cuts_is_whole():
    text = "x" * (BLOCK_BYTES - 1) + "é" + "y" * BLOCK_BYTES + "é"
    assert decoded(text.encode()) == text


def test_the_first_letter_beyond_ascii_decides_however_late_it_comes():
    text = "plain " * BLOCK_BYTES + RUSSIAN
    assert decoded(text.encode("cp1251")) == text


def test_a_declared_encoding_wins_over_a_guess():
    text = '<?xml version="1.0" encoding="iso-8859-2"?><a>Zażółć</a>'
    assert decoded(text.encode("iso-8859-2")) == text


def test_one_stray_byte_does_not_make_utf8_something_else():
    content = RUSSIAN.encode() + b"\xff" + RUSSIAN.encode()
    assert decoded(content) == f"{RUSSIAN}\ufffd{RUSSIAN}"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"words\n", True),
        (GERMAN.encode("utf-16-le"), True),
        (b"\x00\x01\x02\x03", False),
        (bytes(range(1, 32)), False),
    ],
)
def test_binaries_are_told_from_texts(content, expected):
    assert is_text(content) is expected
