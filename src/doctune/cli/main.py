"""`doctune COMMAND …`: finds the command, runs it, turns errors into sentences and exit codes.

Exit status: 0 done, 1 a failed run, gate or strict finding, 2 a mistake by the caller, 130 interrupted.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from doctune import __version__
from doctune.errors import DoctuneError

# Each command is the module `doctune.cli.<name>`, its dashes as underscores, with EXAMPLE, add_arguments(parser) and
# run(args) -> exit code.
COMMANDS = {
    "scan": "folders -> training manifest",
    "extract": "files -> text",
    "audit": "findings about a manifest or a folder per class",
    "status": "where a run stands",
    "compare": "runs side by side, with a significance test and release gates",
    "predict": "labels for files, folders, or text on stdin",
    "ask": "an answer from documents",
    "generate": "text from an instruction-tuned run",
    "explain": "why a document has its label, a question its answer",
    "evaluate": "scores of a finished run, again or on new labelled data",
    "export": "the model of a run as ONNX, and quantised",
    "serve": "the model of a run over HTTP",
    "folds": "what the folds of a multirun say together",
    "cascade-tune": "the stages and thresholds of a cascade, with the frontier of accuracy and latency",
}
# These are configured with Hydra: their arguments are overrides, which Hydra parses itself.
HYDRA_COMMANDS = {
    "train": "make a run (Hydra overrides, as `python train.py`)",
    "prepare": "extract, store and split the data without training (Hydra overrides)",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in HYDRA_COMMANDS:
        from doctune.cli import train

        return train.run(arguments[0], arguments[1:])
    if arguments and not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
        return _unknown_command(arguments[0])
    try:
        return _run_command(arguments)
    except DoctuneError as error:
        print(f"doctune: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except OSError as error:  # a path that the caller gave cannot be read or written
        print(f"doctune: {error.filename or ''}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("doctune: interrupted", file=sys.stderr)
        return 130


def _run_command(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="doctune",
        description="Fine-tune transformers on your own documents, and use what was trained.",
        epilog="`doctune COMMAND --help` explains each one, with an example.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"doctune {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in HYDRA_COMMANDS.items():
        commands.add_parser(name, help=summary, add_help=False)
    wanted = arguments[0] if arguments else ""
    for name, summary in COMMANDS.items():
        if name == wanted:  # only this command's module is imported, so that each starts fast
            module = importlib.import_module(f"doctune.cli.{name.replace('-', '_')}")
            module.add_arguments(_subparser(commands, name, summary, module))
        else:
            commands.add_parser(name, help=summary)
    args = parser.parse_args(arguments)
    return int(module.run(args))


def _subparser(commands: Any, name: str, summary: str, module: ModuleType) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=module.__doc__,
        epilog=f"example:\n  {module.EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def _unknown_command(name: str) -> int:
    known = [*HYDRA_COMMANDS, *COMMANDS]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean `doctune {close[0]}`?" if close else ""
    print(f"doctune: there is no command {name!r}.{hint} Commands: {', '.join(known)}.", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
