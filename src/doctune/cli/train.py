"""Make a run or prepare its data; every argument is a Hydra override."""

from __future__ import annotations

from collections.abc import Sequence


def run(command: str, arguments: Sequence[str]) -> int:
    """Hand the overrides to the Hydra application, which needs the training dependencies."""
    try:
        from doctune.training.app import main
    except ModuleNotFoundError as error:
        import sys

        print(f"doctune: {command} needs {error.name}: pip install 'doctune[train]'.", file=sys.stderr)
        return 2
    return main(command, arguments)
