"""Options that name the columns of a manifest."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from doctune.corpus.manifest_tables import ManifestColumns

_COLUMNS = ("path", "text", "label", "confidence")


def add_column_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare an option for each column."""
    for name in _COLUMNS:
        words = f"the manifest's column (default: {name})"
        parser.add_argument(f"--{name}-column", default=name, metavar="NAME", help=words)


def named_columns(args: argparse.Namespace) -> list[str]:
    """The options that name another column than the usual one."""
    return [f"--{name}-column" for name in _COLUMNS if getattr(args, f"{name}_column") != name]


def columns_of(args: argparse.Namespace) -> ManifestColumns:
    """The columns that were named; messages name these options."""
    from doctune.corpus.manifest_tables import ManifestColumns

    return ManifestColumns(**{name: getattr(args, f"{name}_column") for name in _COLUMNS}, option="--{}-column NAME")
