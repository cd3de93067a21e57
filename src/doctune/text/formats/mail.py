"""E-mail (RFC 5322 and MIME) through the standard library: headers that people read, then the text parts."""

from __future__ import annotations

from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage

from doctune.text.encoding import decode
from doctune.text.markup import html_text
from doctune.text.reading import Reading, describe
from doctune.text.refusal import Refused

_HEADERS = ("Subject", "From", "To", "Cc", "Date")


def read(reading: Reading) -> Iterator[str]:
    """Subject, people and date, the body (plain rather than HTML), and attached texts and messages by their text."""
    message = message_from_bytes(reading.content(), _class=EmailMessage, policy=policy.default)
    yield from _message_text(message, reading)


def _message_text(message: EmailMessage, reading: Reading) -> Iterator[str]:
    for name in _HEADERS:
        value = _header(message, name)
        if value:
            yield f"{name}: {value}\n"
    yield "\n"
    for part in _text_parts(message):
        try:
            yield from _part_text(part)
        except (LookupError, ValueError, KeyError) as error:
            reading.lose("a part of the message", Refused("damaged", describe(error)))


def _header(message: EmailMessage, name: str) -> str:
    try:
        return str(message.get(name, ""))
    except (ValueError, IndexError, AttributeError, TypeError):
        # Malformed addresses make the standard parser fail in several ways; the raw header still has the words.
        return next((value for key, value in message.raw_items() if key.lower() == name.lower()), "")


def _text_parts(message: EmailMessage) -> Iterator[EmailMessage]:
    """Text parts in order; of alternatives only the plain one, where there is one."""
    if message.get_content_type() == "multipart/alternative":
        parts = [part for part in message.iter_parts() if isinstance(part, EmailMessage)]
        plain = [part for part in parts if part.get_content_type() == "text/plain"]
        for chosen in plain[:1] or parts[-1:]:
            yield from _text_parts(chosen)
    elif message.is_multipart():
        for part in message.iter_parts():
            if isinstance(part, EmailMessage):
                yield from _text_parts(part)
    elif message.get_content_maintype() == "text":
        yield message


def _part_text(part: EmailMessage) -> Iterator[str]:
    content = part.get_payload(decode=True)
    assert isinstance(content, bytes)
    charset = part.get_content_charset()
    try:
        text = content.decode(charset) if charset else decode(content)
    except (LookupError, UnicodeDecodeError):
        text = decode(content)
    if part.get_content_subtype() == "html":
        yield from html_text([text])
    else:
        yield f"{text}\n"
