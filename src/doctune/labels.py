"""Ordered label names <-> ids: the only place where they meet."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from doctune.errors import ArtifactError, DataError


@dataclass(frozen=True)
class Labels:
    """Label names in id order: the id of a name is its place."""

    names: tuple[str, ...]

    @classmethod
    def from_values(cls, values: Iterable[str]) -> Labels:
        """The distinct values in sorted order, so that ids never depend on the order of the rows."""
        return cls(tuple(sorted(set(values))))

    @classmethod
    def load(cls, path: Path) -> Labels:
        """Read `labels.json`: a JSON list of names in id order.

        Raises:
            ArtifactError: the file is missing or is not such a list.
        """
        try:
            names = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{path} cannot be read as a JSON list of label names: {error}.") from error
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ArtifactError(f"{path} must hold a JSON list of label names in id order.")
        return cls(tuple(names))

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.names)}

    def id_of(self, name: str) -> int:
        """The id of a name.

        Raises:
            DataError: no such label; the message lists those that exist.
        """
        if name not in self._ids:
            raise DataError(f"The label {name!r} is not one of the {len(self)} known: {', '.join(self.names)}.")
        return self._ids[name]

    def encode(self, names: Sequence[str]) -> list[int]:
        """The ids of several names, in order."""
        return [self.id_of(name) for name in names]

    @property
    def id2label(self) -> dict[int, str]:
        """The mapping that transformers keeps in `config.json`."""
        return dict(enumerate(self.names))
