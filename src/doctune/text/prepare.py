"""Text as the model gets it: the same preparation in training and in inference.

Everything here is local: what becomes of a character depends on at most `CONTEXT_CHARS` characters after it. That is
why the prepared text of a prefix, but for its last `CONTEXT_CHARS`, is a prefix of the prepared text of the whole.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Callable

CONTEXT_CHARS = 1024
# All of these begin with one set of characters: a search for a set is several times as fast as one for alternatives.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u200b\ufeff\ufffe\uffff]")
_LINE_ENDS = re.compile(r"[\r\x0b\x0c\x85\u2028\u2029](?:(?<=\r)\n)?")
_WIDE_BLANKS = "\u00a0\u2000-\u200a\u202f\u205f\u3000"
# A single blank is what it should be already: matching only the others is ten times as fast.
_BLANK = rf"[\t {_WIDE_BLANKS}]"
_BLANKS = re.compile(rf"{_BLANK}(?:(?<=[^\n\t {_WIDE_BLANKS}]{_BLANK}){_BLANK}+|(?<=[{_WIDE_BLANKS}]))")
_BLANKS_AT_END = re.compile(r"[ \t]+\n")
_EMPTY_LINES = re.compile(r"\n{3,}")
_SURROGATES = re.compile(r"[\ud800-\udfff]")


def prepare_text(text: str, *, normalise: bool = True, scrub: bool = False) -> str:
    """Normalise unicode and whitespace, then replace personal data if asked to.

    Indentation at line starts is kept (code and tables need it); other runs of blanks become one, a tab if one is
    among them. At most one empty line separates paragraphs.
    """
    if normalise:
        text = _normalise(text)
    return scrub_personal_data(text) if scrub else text


def _normalise(text: str) -> str:
    if not text.isascii():
        text = unicodedata.normalize("NFC", _SURROGATES.sub("\ufffd", text))
    text = _LINE_ENDS.sub("\n", text)
    text = _CONTROL.sub("", text)
    text = _BLANKS.sub(lambda run: "\t" if "\t" in run[0] else " ", text)
    text = _BLANKS_AT_END.sub("\n", text)
    return _EMPTY_LINES.sub("\n\n", text).strip("\n \t")


def scrub_personal_data(text: str) -> str:
    """Replace e-mail addresses, phone and card numbers, IBANs, IP addresses and keys by `[EMAIL]`, `[PHONE]`, ...

    Card numbers and IBANs count only with a right checksum, IP addresses only if they can be one. Names and postal
    addresses are not found: this lowers the risk of storing personal data, it does not make text anonymous.
    """
    for pattern, placeholder, is_genuine in _PERSONAL:
        text = pattern.sub(lambda match: placeholder if is_genuine(match[0]) else match[0], text)  # noqa: B023
    return text


def _always(_: str) -> bool:
    return True


def has_luhn_checksum(number: str) -> bool:
    """Whether the digits of a payment card number (ISO/IEC 7812) add up."""
    digits = [int(character) for character in number if character.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return 13 <= len(digits) <= 19 and len(set(digits)) > 1 and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def has_iban_checksum(number: str) -> bool:
    """Whether an IBAN (ISO 13616) has the remainder 1 modulo 97."""
    compact = re.sub(r"[ -]", "", number)
    if not 15 <= len(compact) <= 34:
        return False
    return int("".join(str(int(character, 36)) for character in compact[4:] + compact[:4])) % 97 == 1


def _is_ip_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_phone_number(text: str) -> bool:
    return 8 <= sum(character.isdigit() for character in text) <= 15


# Every pattern but the key block is bounded well below CONTEXT_CHARS; an open key block hides all that follows it.
_PERSONAL: tuple[tuple[re.Pattern[str], str, Callable[[str], bool]], ...] = (
    (
        re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|\Z)", re.S),
        "[KEY]",
        _always,
    ),
    (
        re.compile(
            r"\b(?:AKIA[0-9A-Z]{16}|gh[pousr]_[0-9A-Za-z]{36,255}|github_pat_\w{22,255}|sk-[\w-]{20,200}"
            r"|xox[abeprs]-[\w-]{10,200}|AIza[\w-]{35}|hf_[0-9A-Za-z]{30,60}"
            r"|eyJ[\w-]{8,120}\.eyJ[\w-]{8,200}\.[\w-]{8,200})"
        ),
        "[KEY]",
        _always,
    ),
    (
        re.compile(r"(?<![\w.+%-])[\w.+%-]{1,64}@(?:[\w-]{1,63}\.){1,5}[^\W\d_]{2,24}\b"),
        "[EMAIL]",
        _always,
    ),
    (re.compile(r"\b[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]{1,4}){3,8}\b"), "[IBAN]", has_iban_checksum),
    (re.compile(r"(?<![\d.-])\d(?:[ -]?\d){12,18}(?![\d-])"), "[CARD]", has_luhn_checksum),
    (
        re.compile(r"(?<![\w.])(?:\d{1,3}(?:\.\d{1,3}){3}|(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{1,4})(?![\w:]|\.\d)"),
        "[IP]",
        _is_ip_address,
    ),
    (
        re.compile(r"(?<![\w.,/-])(?:\+|00)[1-9]\d{0,2}(?:[ ./-]?\(?\d{1,5}\)?){2,6}(?![\w-])"),
        "[PHONE]",
        _is_phone_number,
    ),
    (
        re.compile(r"(?<![\w.,/-])(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4}(?![\w-])"),
        "[PHONE]",
        _always,
    ),
    (
        re.compile(r"(?<![\w.,/-])\(?0[1-9]\d{1,4}\)?[ /-]{1,3}\d{2,5}(?:[ -]?\d{2,5}){1,3}(?![\w-])"),
        "[PHONE]",
        _is_phone_number,
    ),
)
