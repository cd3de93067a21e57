"""Which keys a composed configuration has, and which are nearest to one that it does not have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import SequenceMatcher
from typing import Any

from omegaconf import DictConfig, OmegaConf

_LIKE_ENOUGH = 0.58
_NEARLY_AS_LIKE = 0.1
_MOST_HINTS = 3


def hint(keys: Iterable[str], known: Iterable[str]) -> str:
    """A question that names the known keys nearest to mistyped ones, with a space before it; empty without any."""
    names = [*known]
    nearest = dict.fromkeys(name for key in keys for name in nearest_keys(key, names))
    return f" Did you mean {' or '.join(nearest)}?" if nearest else ""


def nearest_keys(key: str, known: Iterable[str]) -> list[str]:
    """The most alike of the known keys, and those that are nearly as much so.

    Whole keys and last names count alike: `lr` is near `optim.lr`, and `split.xyzzy` is not near `split.val`.
    """
    likeness = {name: _likeness(key, name) for name in known}
    bound = max(_LIKE_ENOUGH, max(likeness.values(), default=0.0) - _NEARLY_AS_LIKE)
    ranked = sorted(likeness, key=lambda name: -likeness[name])
    return [name for name in ranked if likeness[name] >= bound][:_MOST_HINTS]


def known_keys(composed: Any) -> Iterator[str]:
    """The groups at the top, and all keys with a value."""
    yield from composed
    for key in composed:
        yield from _values_below(composed, key, key)


def _values_below(parent: Any, key: Any, path: str) -> Iterator[str]:
    node = None if OmegaConf.is_missing(parent, key) or OmegaConf.is_interpolation(parent, key) else parent[key]
    if isinstance(node, DictConfig):
        for name in map(str, node):
            yield from _values_below(node, name, f"{path}.{name}")
    elif not str(key).startswith("_") and "." in path:
        yield path


def _likeness(key: str, name: str) -> float:
    whole = SequenceMatcher(None, key, name).ratio()
    last = SequenceMatcher(None, key.rpartition(".")[2], name.rpartition(".")[2]).ratio()
    return (whole + last) / 2
