"""What is wrong with a mistyped override, in a sentence instead of Hydra's internals."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from hydra.errors import MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from doctune.training.config import DATA_KINDS, MODEL_KINDS
from doctune.training.key_names import hint, known_keys

_KINDS: Mapping[str, Mapping[str, type]] = {"model": MODEL_KINDS, "data": DATA_KINDS}
_WANTED = {float: "a number", int: "a whole number", bool: "true or false", str: "a text", list: "a list"}


def mistake_in(error: Exception, groups: Sequence[str] = ()) -> str:
    """What a person is told of an error that Hydra or OmegaConf raised while it composed the configuration.

    Args:
        error: any of theirs; of one that is not known here, its own words.
        groups: the names of groups of choices, which may be meant besides keys.
    """
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        return no_choice(group, choice, error.options)
    said, cause = str(error), error.__cause__
    unknown = re.match(r"Could not override '(.+)'\.", said)
    if unknown and isinstance(cause, ConfigKeyError | ConfigAttributeError) and cause.parent_node is not None:
        return _no_key(unknown[1], cause.parent_node._get_root(), groups)
    merged = re.match(r"Error merging override (.+)", said)
    if merged and isinstance(cause, OmegaConfBaseException):
        return _no_value(merged[1], cause)
    if "LexerNoViableAlt" in said:
        return f"""{said}\nPut such a value in quotes, inside those of the shell: "key='value'"."""
    return f"{said}\n{_first_line(cause)}" if isinstance(cause, OmegaConfBaseException) else said


def is_of_a_key(error: Exception) -> bool:
    """Whether a look at all keys and their values helps."""
    return str(error).startswith(("Could not override", "Error merging override"))


def _no_key(key: str, composed: Any, groups: Sequence[str]) -> str:
    having = [*_kinds_with(key, composed)]
    if having:
        group = key.partition(".")[0]
        kind = composed[group].kind
        return f"There is no key {key} with {group}.kind={kind}, only with {' or '.join(having)}."
    near = hint([key], _candidates(key, composed, groups))
    parent = key.rpartition(".")[0]
    beside = OmegaConf.select(composed, parent) if parent and not near else None
    others = f" {parent} has {', '.join(map(str, beside))}." if isinstance(beside, DictConfig) and beside else ""
    return f"There is no key {key}.{near}{others}"


def _candidates(key: str, composed: Any, groups: Sequence[str]) -> list[str]:
    """Keys of Hydra are near only to keys of Hydra."""
    of_hydra = key.startswith("hydra")
    known = [name for name in known_keys(composed) if name.startswith("hydra.") == of_hydra]
    return [] if "/" in key else [*dict.fromkeys([*known, *groups])]


def _kinds_with(key: str, composed: Any) -> Iterator[str]:
    """Of a key that only other kinds of model or data have: those kinds."""
    group, _, rest = key.partition(".")
    name = rest.partition(".")[0]
    kinds = [kind for kind, node in _KINDS.get(group, {}).items() if name in {each.name for each in fields(node)}]
    if kinds and composed[group].kind not in kinds:
        yield from kinds


def _no_value(override: str, cause: OmegaConfBaseException) -> str:
    key, _, given = override.partition("=")
    full_key, parent = cause.full_key or "", cause.parent_node
    if override.startswith("~"):
        return f"{full_key} cannot be left out; it can be given another value."
    if key.startswith(f"{full_key}."):
        return f"There is no key {key}: {full_key} has a value and no keys of its own."
    if key == full_key and isinstance(parent, DictConfig):
        name = key.rpartition(".")[2]
        below = OmegaConf.select(parent, name, throw_on_missing=False)
        if isinstance(below, DictConfig):
            return f"{key} takes no value, its keys do: {', '.join(f'{key}.{each}' for each in map(str, below))}."
        wanted = _wanted(OmegaConf.get_type(parent), name)
        if wanted:
            return f"{key} must be {wanted}, and '{given}' was given."
    return f"{override} cannot be used: {_first_line(cause)}."


def _wanted(schema: type | None, name: str) -> str:
    """What a key of a dataclass takes, in words; empty where there are none for it."""
    declared = get_type_hints(schema).get(name) if schema is not None else None
    options = get_args(declared) if get_origin(declared) in (Union, UnionType) else (declared,)
    words = [_WANTED.get(get_origin(option) or option, "") for option in options if option is not NoneType]
    if not all(words):
        return ""
    return " or ".join([*words, *(["null"] if NoneType in options else [])])


def no_choice(group: str, choice: str, options: Sequence[str]) -> str:
    """What a person is told of a choice that a group does not have."""
    close = get_close_matches(choice, options, n=1)
    near = f" Did you mean {group}={close[0]}?" if close else ""
    return f"There is no {group}={choice}.{near} Choices: {', '.join(options)}."


def _first_line(error: Any) -> str:
    return str(error).splitlines()[0].rstrip(".")
