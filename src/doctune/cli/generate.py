"""Text from a language model that was tuned on instructions.

The prompt is shown to the model as its training conversations were. Without --prompt it is read from standard input.
The likeliest token is taken every time, unless --temperature draws.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from doctune.errors import ConfigError

EXAMPLE = "doctune generate outputs/2026-01-31/12-00-00 --prompt 'How many clips did Natalia sell?'"
_MAX_NEW_TOKENS = 256


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `doctune generate`."""
    parser.add_argument("run", type=Path, metavar="RUN", help="a finished run's folder, or its model/ folder")
    parser.add_argument(
        "--prompt",
        dest="prompts",
        action="append",
        metavar="TEXT",
        help="what is asked; may be given several times, and each is answered (default: standard input)",
    )
    parser.add_argument(
        "--max-new-tokens",
        type=int,
        default=_MAX_NEW_TOKENS,
        metavar="N",
        help="tokens of an answer at most (default: %(default)s)",
    )
    parser.add_argument(
        "--temperature",
        type=float,
        default=0.0,
        metavar="T",
        help="draw tokens instead of taking the likeliest; 1 as likely as the model says, below it safer (default: 0)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per prompt: prompt, text, tokens, ended")


def run(args: argparse.Namespace) -> int:
    """Generate, and print it."""
    _check(args)
    prompts = args.prompts or [sys.stdin.read()]
    if not all(prompt.strip() for prompt in prompts):
        raise ConfigError("The prompt is empty; write what you want to know: --prompt 'What …?'")
    try:
        from doctune.inference.generation import Sampling
        from doctune.inference.generator import load_generator
    except ModuleNotFoundError as error:
        raise ConfigError(f"Generating needs {error.name}: pip install 'doctune[train]'.") from error

    found = load_generator(args.run).generate(prompts, Sampling(args.max_new_tokens, args.temperature))
    for prompt, completion in zip(prompts, found, strict=True):
        if args.json:
            row = {
                "prompt": prompt,
                "text": completion.text,
                "tokens": completion.num_tokens,
                "ended": completion.is_ended,
            }
            print(json.dumps(row))
            continue
        print(_printable(completion.text))
        if not completion.is_ended:
            print(
                f"doctune: cut after {completion.num_tokens:,} tokens; --max-new-tokens allows more.", file=sys.stderr
            )
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.max_new_tokens < 1:
        raise ConfigError(f"--max-new-tokens is {args.max_new_tokens}; ask for at least 1.")
    if not 0 <= args.temperature < float("inf"):
        raise ConfigError(f"--temperature is {args.temperature:g}; it must not be negative.")


def _printable(text: str) -> str:
    """What the terminal's encoding lacks, as escapes."""
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
