"""Show why a document has its label, or a question its answer: what each word of the text adds to the score.

An argument that names a file is read like any other document, everything else is taken as a text. The words are found
by layer integrated gradients (Sundararajan et al. 2017) against padding in place of the text; that their attributions
add up to the score is checked and said. Of a long document the weights of its chunks come first, then the words of
those that count most. For an answer its start and its end are explained.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from doctune.cli.rows import format_of
from doctune.documents import Document
from doctune.errors import ArtifactError, ConfigError, DataError
from doctune.files import write_text
from doctune.inference.explanation import MOST_STEPS
from doctune.text.extract import ExtractSettings
from doctune.text.prepare import prepare_text
from doctune.text.sandbox import extract_files

if TYPE_CHECKING:
    from doctune.inference.artifact import Artifact
    from doctune.inference.explainer import Explainer
    from doctune.inference.explanation import Explanation
    from doctune.labels import Labels

EXAMPLE = "doctune explain outputs/2026-01-31/12-00-00 letter.pdf --out why.html"
FORMATS = ("text", "json", "html")
STEPS, TOP_CHUNKS = 50, 3
_NAMES_SHOWN = 20
_SUFFIX = re.compile(r"\.\w{1,8}$")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `doctune explain`."""
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="a finished run's folder, or its model/ folder")
    add("items", nargs="+", metavar="FILE|TEXT", help="files, and texts in quotation marks")
    add("--label", metavar="NAME", help="why (or why not) this label; default: the predicted one")
    add("--target", metavar="NAME", help="of a model that tells several: which one; default: its first")
    add("--question", metavar="TEXT", help="what is asked, for a model that answers questions")
    add(
        "--steps",
        type=int,
        default=STEPS,
        metavar="N",
        help=f"points between padding and text at which gradients are taken (default: {STEPS}); doubled, up to 400, "
        "while the attributions are more than 5 %% off",
    )
    add(
        "--top-chunks",
        type=int,
        metavar="K",
        help=f"of a long document, the chunks whose words are explained (default: {TOP_CHUNKS})",
    )
    add("--format", choices=FORMATS, help="default: what the suffix of --out says, else text")
    add("--out", type=Path, metavar="FILE", help="where to write; without it, standard output")


def run(args: argparse.Namespace) -> int:
    """Explain one document after the other, and show it."""
    from doctune.inference.artifact import load_artifact

    _refuse_impossible(args)
    artifact = load_artifact(args.run)
    _refuse_unfit(args, artifact)
    documents = _documents(args.items, _settings(artifact))
    explainer = _explainer(artifact, args)
    file_format = args.format or format_of(args.out, FORMATS, "text")
    is_shown_at_once = file_format == "text" and args.out is None
    left_out: list[Document] = []
    explained: list[Explanation] = []
    for explanation in _explained(explainer, documents, left_out):
        explained.append(explanation)
        if is_shown_at_once:
            _print_text(explanation)
    if not explained:
        raise DataError("Nothing was explained: in none of the documents is there a text that the model can read.")
    if is_shown_at_once:
        _print_legend()
    else:
        _write(_rendered(explained, left_out, file_format), args.out, len(explained))
    return 0


def _refuse_impossible(args: argparse.Namespace) -> None:
    if not 1 <= args.steps <= MOST_STEPS:
        raise ConfigError(f"--steps is {args.steps:,}; take from 1 to {MOST_STEPS:,}, such as {STEPS}.")
    if args.top_chunks is not None and args.top_chunks < 1:
        raise ConfigError(f"--top-chunks is {args.top_chunks}; explain at least 1 chunk.")
    if args.question is not None and not args.question.strip():
        raise ConfigError("--question is empty; write what you want to know: --question 'Who …?'")
    if args.out is not None and args.out.is_dir():
        raise ConfigError(f"--out {args.out} is a folder; name a file in it, such as {args.out / 'why.html'}.")


def _refuse_unfit(args: argparse.Namespace, artifact: Artifact) -> None:
    """Refuse what this model has no use for."""
    from doctune.inference.artifact import refuse_writer

    refuse_writer(artifact)
    is_reader = artifact.task == "question_answering"
    if is_reader and args.question is None:
        raise ConfigError(f"{args.run} answers questions: ask one with --question 'Who …?'")
    if is_reader and args.label is not None:
        raise ConfigError(f"--label is for classifiers, and {args.run} answers questions: leave it out.")
    if not is_reader and args.question is not None:
        raise ConfigError(f"--question is for readers, and {args.run} was trained for {artifact.task}: leave it out.")
    if artifact.chunks is None and args.top_chunks is not None:
        raise ConfigError(f"--top-chunks is for long documents, and {args.run} reads no chunks: leave it out.")
    if args.target is not None and not artifact.targets:
        raise ConfigError(f"--target is for models that tell several, and {args.run} tells one: leave it out.")
    _refuse_unknown("target", args.target, [target.spec.name for target in artifact.targets])
    _refuse_unknown("label", args.label, _labels(args, artifact).names)


def _labels(args: argparse.Namespace, artifact: Artifact) -> Labels:
    """Those of the model, or of the target that is explained."""
    if not artifact.targets:
        return artifact.labels
    specs = [target.spec for target in artifact.targets]
    return next(spec.labels for spec in specs if args.target in (None, spec.name))


def _refuse_unknown(kind: str, given: str | None, names: Sequence[str]) -> None:
    if given is None or given in names:
        return
    close = difflib.get_close_matches(given, names, n=1)
    hint = f" Did you mean --{kind} {close[0]}?" if close else ""
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    raise ConfigError(
        f"--{kind} {given}: the model has no such {kind}.{hint} It has {', '.join(names[:_NAMES_SHOWN])}{more}."
    )


def _settings(artifact: Artifact) -> ExtractSettings:
    """How files are read: as in training, but an answer may be anywhere in a text."""
    return replace(artifact.extract, max_chars=None) if artifact.reading else artifact.extract


def _documents(items: Sequence[str], settings: ExtractSettings) -> Iterator[Document]:
    """The files and texts, in the order given.

    Raises:
        DataError: a folder, or what looks like a path and does not exist; before anything is read.
    """
    sources = [Path(item) if _is_file(item) else item for item in items]
    return _in_order(sources, settings)


def _in_order(sources: Sequence[Path | str], settings: ExtractSettings) -> Iterator[Document]:
    files = extract_files((source for source in sources if isinstance(source, Path)), settings)
    num_texts = 0
    for source in sources:
        if isinstance(source, Path):
            yield next(files)
        else:
            num_texts += 1
            yield _typed(source, f"text {num_texts}", settings)


def _is_file(item: str) -> bool:
    if os.path.isdir(item):
        raise DataError(f"{item} is a folder; name the files in it that are to be explained.")
    if os.path.lexists(item):
        return True
    has_separator = os.sep in item or "/" in item
    has_blank = re.search(r"\s", item) is not None
    if (_SUFFIX.search(item) and (has_separator or not has_blank)) or (os.path.isabs(item) and not has_blank):
        raise DataError(f"{item}: there is no such file. If it is a text, put a blank at its end.")
    return False


def _typed(text: str, name: str, settings: ExtractSettings) -> Document:
    prepared = prepare_text(text, normalise=settings.normalise, scrub=settings.scrub)
    if not prepared:
        return Document(name, "empty", "there is no text in it", "text", "")
    return Document(name, "ok", "", "text", prepared)


def _explainer(artifact: Artifact, args: argparse.Namespace) -> Explainer:
    try:
        from doctune.inference.explainer import Wanted, load_explainer
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        raise ArtifactError(f"Explanations need {missing}: pip install 'doctune[explain]'.") from error
    wanted = Wanted(args.label, args.target, args.question, args.steps, args.top_chunks or TOP_CHUNKS)
    return load_explainer(artifact, wanted)


def _explained(explainer: Explainer, documents: Iterator[Document], left_out: list[Document]) -> Iterator[Explanation]:
    """An explanation for each document that has one; the others are named on stderr and added to `left_out`."""
    for document in documents:
        explanation = explainer.explain(document) if document.status == "ok" else None
        if explanation is not None:
            yield explanation
            continue
        if document.status == "ok":
            document = replace(document, status="empty", reason="there is no word in it that the model knows", text="")
        left_out.append(document)
        print(f"doctune: {document.path} is left out ({document.status}): {document.reason}", file=sys.stderr)


def _rendered(explained: Sequence[Explanation], left_out: Sequence[Document], file_format: str) -> str:
    if file_format == "json":
        from doctune.reports.explain import for_programs

        return json.dumps(for_programs(explained, left_out), indent=2, allow_nan=False) + "\n"
    if file_format == "html":
        from doctune.reports.explain_page import page

        return page(explained, left_out)
    from doctune.reports.explain_text import LEGEND, as_text

    return "".join(as_text(explanation) for explanation in explained) + LEGEND


def _write(text: str, out: Path | None, num_explained: int) -> None:
    if out is None:
        print(_printable(text), end="")
        return
    write_text(out, text)
    print(f"doctune: {num_explained} explained, written to {out}", file=sys.stderr)


def _print_text(explanation: Explanation) -> None:
    from doctune.reports.explain_text import as_text

    print(_printable(as_text(explanation, is_colored=sys.stdout.isatty())), end="", flush=True)


def _print_legend() -> None:
    from doctune.reports.explain_text import LEGEND

    print(_printable(LEGEND), end="")


def _printable(text: str) -> str:
    """What the terminal's encoding lacks, and bytes of file names that are none, as escapes."""
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
