"""Options that name the columns of a manifest."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from doctune.corpus.manifest import ManifestColumns

_COLUMNS = ("path", "text", "label", "confidence")


def add_column_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare an option for each column."""
    for name in _COLUMNS:
        parser.add_argument(f"--{name}-column", default=name, metavar="NAME", help=f"default: {name}")


def columns_of(args: argparse.Namespace) -> ManifestColumns:
    """The columns that were named; messages name these options."""
    from doctune.corpus.manifest import ManifestColumns

    return ManifestColumns(**{name: getattr(args, f"{name}_column") for name in _COLUMNS}, option="--{}-column NAME")
