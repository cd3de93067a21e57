"""Preparation makes texts alike and hides personal data, and does nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doctune.text.prepare import has_iban_checksum, has_luhn_checksum, prepare_text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\r\nb\rc\x0cd", "a\nb\nc\nd"),
        ("cafe\u0301", "café"),
        ("a  b\u00a0\u2003c \t d", "a b c\td"),
        ("def f():\n    return  1\n\tx", "def f():\n    return 1\n\tx"),
        ("a   \n\n\n\n\nb", "a\n\nb"),
        ("\ufeffso\u00adft\u200b \x00\x07bell", "soft bell"),
        ("lone \ud800 surrogate", "lone \ufffd surrogate"),
    ],
)
def test_normalisation(text, expected):
    assert prepare_text(text) == expected


@given(st.text())
def test_preparing_twice_changes_nothing_more(text):
    once = prepare_text(text)
    assert prepare_text(once) == once


def test_nothing_changes_when_nothing_is_asked_for():
    assert prepare_text(" a \r\n", normalise=False) == " a \r\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mail jane.doe+x@mail.example.org now", "mail [EMAIL] now"),
        ("pay 4111 1111 1111 1111 now", "pay [CARD] now"),
        ("order 4111 1111 1111 1112 now", "order 4111 1111 1111 1112 now"),
        ("DE89 3704 0044 0532 0130 00", "[IBAN]"),
        ("GB83WEST12345698765432", "GB83WEST12345698765432"),
        ("host 192.168.0.1, not 999.1.1.1", "host [IP], not 999.1.1.1"),
        ("host 2001:db8::8a2e:370:7334 up at 12:30:15", "host [IP] up at 12:30:15"),
        ("call +49 30 901820 or (555) 123-4567", "call [PHONE] or [PHONE]"),
        ("Tel. 030 / 901 820 22", "Tel. [PHONE]"),
        ("in 2024-01-15 we sold 1,234,567 units at 12.50", "in 2024-01-15 we sold 1,234,567 units at 12.50"),
        ("key AKIAIOSFODNN7EXAMPLE end", "key [KEY] end"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nrest", "[KEY]\nrest"),
        ("-----BEGIN PRIVATE KEY-----\nMIIE cut", "[KEY]"),
    ],
)
def test_scrubbing(text, expected):
    assert prepare_text(text, scrub=True) == expected


def test_checksums():
    assert has_luhn_checksum("378282246310005")
    assert not has_luhn_checksum("0000000000000000")
    assert has_iban_checksum("GB82WEST12345698765432")
