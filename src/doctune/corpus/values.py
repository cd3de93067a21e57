"""What a value from somebody's file is, in words that a person without Python knows."""

from __future__ import annotations

_NAMES = {
    "dict": "an object",
    "list": "a list",
    "str": "text",
    "int": "a number",
    "float": "a number",
    "bool": "true or false",
    "NoneType": "null",
    "bytes": "binary data",
}


def kind_in_words(value: object) -> str:
    """The kind of a value, such as "a list"."""
    name = type(value).__name__
    return _NAMES.get(name, f"a {name}")
