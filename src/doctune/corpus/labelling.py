"""Which document type a file is: by its name, from a table; its content can only lower the confidence.

Confidence is 1.0 where one rule, or the strongest of several, decides and the content does not object. It is

- 0.5 (disputed) where two rules of equal strength give different types (the first listed wins), or where the content
  begins with the signature of another type, such as `%PDF-` in a `.txt`;
- 0.7 (unproven) where the rule says what its type looks like and the first 4 KiB do not.

A full name is stronger than a name pattern, a pattern stronger than a suffix, and a longer suffix (`.d.ts`) stronger
than a shorter one (`.ts`).
"""

from __future__ import annotations

import fnmatch
import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from doctune.errors import ConfigError

CERTAIN, UNPROVEN, DISPUTED = 1.0, 0.7, 0.5
_RULE_KEYS = {"type", "names", "suffixes", "looks_like"}
_SIGNATURE_KEYS = {"pattern", "types"}
_FULL_NAME, _PATTERN, _SUFFIX = 2, 1, 0
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Rule:
    """Names, name patterns and suffixes (all lower case) of one type; `looks_like` is what its first 4 KiB hold."""

    type: str
    names: tuple[str, ...]
    suffixes: tuple[str, ...]
    looks_like: re.Pattern[bytes] | None


@dataclass(frozen=True)
class Signature:
    """Content that begins like `pattern` belongs to one of `types`, whatever the file is called."""

    pattern: re.Pattern[bytes]
    types: frozenset[str]


# Strength is (kind, length); the strongest rules that fit a name decide.
_Match = tuple[tuple[int, int], Rule]


@dataclass(frozen=True)
class RuleTable:
    """A table of rules in the order of its file; `source` and `sha256` say which one it is."""

    rules: tuple[Rule, ...]
    signatures: tuple[Signature, ...]
    source: str
    sha256: str

    @property
    def types(self) -> tuple[str, ...]:
        """The types that the table can give, sorted."""
        return tuple(sorted({rule.type for rule in self.rules}))

    def label_of(self, name: str) -> tuple[str, float]:
        """The type of a file name and how sure it is; ("", 0.0) where no rule fits. Case does not matter."""
        strongest = _strongest(self._matches(name.lower()))
        if not strongest:
            return "", 0.0
        is_agreed = all(rule.type == strongest[0].type for rule in strongest)
        return strongest[0].type, CERTAIN if is_agreed else DISPUTED

    def confidence_in_content(self, type_: str, head: bytes) -> float:
        """How far the first bytes of a file bear out its type: 1.0, 0.7 or 0.5."""
        text = head.removeprefix(_BYTE_ORDER_MARK)
        if any(signature.pattern.match(text) and type_ not in signature.types for signature in self.signatures):
            return DISPUTED
        looks = self._looks.get(type_, ())
        return CERTAIN if not looks or any(look.search(text) for look in looks) else UNPROVEN

    def _matches(self, name: str) -> Iterator[_Match]:
        for rule in self._by_name.get(name, ()):
            yield (_FULL_NAME, 0), rule
        if self._any_pattern.match(name):
            for pattern, rule in self._by_pattern:
                if pattern.match(name):
                    yield (_PATTERN, 0), rule
        for suffix in _suffixes(name):
            for rule in self._by_suffix.get(suffix, ()):
                yield (_SUFFIX, len(suffix)), rule

    @cached_property
    def _by_name(self) -> dict[str, list[Rule]]:
        return _index((name, rule) for rule in self.rules for name in rule.names if not _is_pattern(name))

    @cached_property
    def _by_suffix(self) -> dict[str, list[Rule]]:
        return _index((suffix, rule) for rule in self.rules for suffix in rule.suffixes)

    @cached_property
    def _by_pattern(self) -> list[tuple[re.Pattern[str], Rule]]:
        names = [(name, rule) for rule in self.rules for name in rule.names if _is_pattern(name)]
        return [(re.compile(fnmatch.translate(name)), rule) for name, rule in names]

    @cached_property
    def _any_pattern(self) -> re.Pattern[str]:
        """One expression for all patterns, since most names fit none of them."""
        return re.compile("|".join(pattern.pattern for pattern, _ in self._by_pattern) or r"(?!)")

    @cached_property
    def _looks(self) -> dict[str, list[re.Pattern[bytes]]]:
        """What each type looks like; a type with a rule that asks for nothing is borne out by anything."""
        looks: dict[str, list[re.Pattern[bytes]]] = defaultdict(list)
        undemanding = {rule.type for rule in self.rules if rule.looks_like is None}
        for rule in self.rules:
            if rule.looks_like is not None and rule.type not in undemanding:
                looks[rule.type].append(rule.looks_like)
        return dict(looks)


def _strongest(matches: Iterator[_Match]) -> list[Rule]:
    found = list(matches)
    best = max((strength for strength, _ in found), default=None)
    return [rule for strength, rule in found if strength == best]


def _suffixes(name: str) -> Iterator[str]:
    """`.tar.gz` and `.gz` of `a.tar.gz`; the dot that hides a file begins no suffix."""
    start = name.find(".", 1)
    while start != -1:
        yield name[start:]
        start = name.find(".", start + 1)


def _index(pairs: Iterator[tuple[str, Rule]]) -> dict[str, list[Rule]]:
    index: dict[str, list[Rule]] = defaultdict(list)
    for key, rule in pairs:
        index[key].append(rule)
    return dict(index)


def _is_pattern(name: str) -> bool:
    return any(character in name for character in "*?[")


# --- reading a table ---------------------------------------------------------------------------------------------


def shipped_rules_text() -> str:
    """The table that comes with doctune, as its file has it."""
    return resources.files("doctune.corpus").joinpath("rules.yaml").read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def shipped_rules() -> RuleTable:
    """The table that comes with doctune."""
    return parse_rules(shipped_rules_text(), "shipped")


def load_rules(path: Path) -> RuleTable:
    """Read an edited table.

    Raises:
        ConfigError: it is missing, is no YAML, or a rule is malformed; the message names the rule and the key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problem = getattr(error, "strerror", None) or "not UTF-8"
        raise ConfigError(
            f"The rules file {path} cannot be read: {problem}. `doctune scan --print-rules > {path.name}` makes one."
        ) from error
    return parse_rules(text, str(path))


def parse_rules(text: str, source: str) -> RuleTable:
    """A table from YAML text; `source` names it in messages.

    Raises:
        ConfigError: as `load_rules`.
    """
    table = _yaml_mapping(text, source)
    _require_known(table, {"rules", "signatures"}, source)
    rules = tuple(_parse_rule(entry, f"{source}, rule {number}") for number, entry in _entries(table, "rules", source))
    if not rules:
        raise ConfigError(f"{source} has no rules; `doctune scan --print-rules` shows how they look.")
    known = {rule.type for rule in rules}
    signatures = tuple(
        _parse_signature(entry, known, f"{source}, signature {number}")
        for number, entry in _entries(table, "signatures", source)
    )
    return RuleTable(rules, signatures, source, hashlib.sha256(text.encode()).hexdigest())


def _yaml_mapping(text: str, source: str) -> dict[str, Any]:
    try:
        table = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(table, dict):
        raise ConfigError(f"{source} must be a YAML mapping with a list under `rules`.")
    return table


def _entries(table: dict[str, Any], key: str, source: str) -> Iterator[tuple[int, dict[str, Any]]]:
    entries = table.get(key) or []
    if not isinstance(entries, list):
        raise ConfigError(f"{source}: `{key}` must be a list.")
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict):
            raise ConfigError(f"{source}: entry {number} of `{key}` must be a mapping; found {entry!r}.")
        yield number, entry


def _parse_rule(entry: dict[str, Any], where: str) -> Rule:
    _require_known(entry, _RULE_KEYS, where)
    type_ = entry.get("type")
    if not isinstance(type_, str) or not type_.strip():
        raise ConfigError(f"{where}: `type` must be a name, such as python_script; found {type_!r}.")
    names, suffixes = _texts(entry, "names", where), _texts(entry, "suffixes", where)
    if not names and not suffixes:
        raise ConfigError(f"{where} ({type_}) has neither `names` nor `suffixes`, so that it fits no file.")
    for suffix in suffixes:
        if not suffix.startswith(".") or len(suffix) < 2:
            raise ConfigError(f"{where} ({type_}): the suffix {suffix!r} must start with a dot, as in '.py'.")
    return Rule(type_, names, suffixes, _expression(entry.get("looks_like"), f"{where} ({type_}): `looks_like`"))


def _parse_signature(entry: dict[str, Any], known: set[str], where: str) -> Signature:
    _require_known(entry, _SIGNATURE_KEYS, where)
    pattern = _expression(entry.get("pattern"), f"{where}: `pattern`")
    types = entry.get("types")
    if pattern is None or not isinstance(types, list) or not types:
        raise ConfigError(f"{where} needs a `pattern` and a list of `types`.")
    unknown = [type_ for type_ in types if type_ not in known]
    if unknown:
        raise ConfigError(f"{where}: no rule gives the type {unknown[0]!r}.")
    return Signature(pattern, frozenset(types))


def _texts(entry: dict[str, Any], key: str, where: str) -> tuple[str, ...]:
    values = entry.get(key) or []
    if not isinstance(values, list) or not all(isinstance(value, str) and value for value in values):
        raise ConfigError(f"{where}: `{key}` must be a list of texts; found {values!r}.")
    return tuple(value.lower() for value in values)


def _expression(value: object, where: str) -> re.Pattern[bytes] | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise ConfigError(f"{where} must be a regular expression; found {value!r}.")
    try:
        return re.compile(value.encode(), re.IGNORECASE | re.MULTILINE)
    except re.error as error:
        raise ConfigError(f"{where} is not a regular expression: {error}.") from error


def _require_known(entry: dict[str, Any], known: set[str], where: str) -> None:
    unknown = sorted(str(key) for key in entry if key not in known)
    if unknown:
        raise ConfigError(f"{where}: there is no key {unknown[0]!r}; the keys are {', '.join(sorted(known))}.")
