"""Answer questions from documents, with the reader of a finished run.

An answer is a passage of a document. It is shown with its probability among all that could be answered, its file, page
and characters, and the sentence around it, where it stands between » and «. Several documents are read as one: the best
answers of all are shown. A file that cannot be read is named and left out. That there is no answer is an answer, too:
the exit status is 0.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from doctune.documents import Answer, Document
from doctune.errors import ConfigError, DataError
from doctune.text.extract import ExtractSettings, extract
from doctune.text.sandbox import extract_files
from doctune.text.walk import walk_files

EXAMPLE = "doctune ask outputs/2026-01-31/12-00-00 --document contract.pdf annexes/ --question 'When does it end?'"
_STDIN = Path("-")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `doctune ask`."""
    parser.add_argument("run", type=Path, metavar="RUN", help="a finished run's folder, or its model/ folder")
    parser.add_argument(
        "--document",
        dest="documents",
        required=True,
        nargs="+",
        action="extend",
        type=Path,
        metavar="FILE",
        help="files, and folders to read recursively; `-` is standard input",
    )
    parser.add_argument(
        "--question",
        dest="questions",
        required=True,
        action="append",
        metavar="TEXT",
        help="what is asked; may be given several times, and each is answered",
    )
    parser.add_argument("--top", type=int, default=1, metavar="N", help="answers to a question (default: 1)")
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="P",
        help="give no answer whose probability is below this, 0 to 1 (default: what training chose, for a model that "
        "may give no answer; others always answer)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per question: question, answers")


def run(args: argparse.Namespace) -> int:
    """Ask, and print what is answered."""
    _check(args)
    files = _files(args.documents)
    from doctune.inference.engine import load

    engine = load(args.run)
    settings = replace(engine.artifact.extract, max_chars=None)
    counts: Counter[str] = Counter()
    documents = _with_text(_documents(files, settings, with_stdin=_STDIN in args.documents), counts)
    answers = engine.answer_all(args.questions, documents, args.top, args.threshold)
    if not counts["ok"]:
        raise DataError(f"No text was found in any of the documents ({_total(counts)}), so nothing can be answered.")
    for question, found in zip(args.questions, answers, strict=True):
        print(as_json(question, found) if args.json else _printable(as_text(question, found, args.threshold)))
    return 0


def as_json(question: str, answers: Sequence[Answer]) -> str:
    """A question with its answers as a line of JSON."""
    rows = [asdict(replace(answer, score=round(answer.score, 6))) for answer in answers]
    return json.dumps({"question": question, "answers": rows})


def as_text(question: str, answers: Sequence[Answer], threshold: float | None = None) -> str:
    """A question with its answers for a person."""
    if not answers:
        limit = "" if threshold is None else f" whose probability is at least {threshold:g}"
        return f"{question}\n  no answer: nothing was found{limit}"
    return "\n".join([question, *(_paragraph(answer) for answer in answers)])


def _paragraph(answer: Answer) -> str:
    page = "" if answer.page is None else f", page {answer.page}"
    return (
        f"  {_on_one_line(answer.text)} (probability {answer.score:.3f})\n"
        f"    {answer.path}{page}, characters {answer.start} to {answer.end}\n"
        f"    {_on_one_line(_marked(answer))}"
    )


def _marked(answer: Answer) -> str:
    start, end = answer.start - answer.sentence_start, answer.end - answer.sentence_start
    return f"{answer.sentence[:start]}»{answer.sentence[start:end]}«{answer.sentence[end:]}"


def _on_one_line(text: str) -> str:
    return " ".join(text.split())


def _check(args: argparse.Namespace) -> None:
    if not all(question.strip() for question in args.questions):
        raise ConfigError("--question is empty; write what you want to know: --question 'Who …?'")
    if args.top < 1:
        raise ConfigError(f"--top is {args.top}; ask for at least 1 answer.")
    if args.threshold is not None and not 0 <= args.threshold <= 1:
        raise ConfigError(f"--threshold is {args.threshold:g}; a probability is from 0 to 1.")


def _files(paths: Iterable[Path]) -> list[Path]:
    """All files to read besides standard input.

    Raises:
        DataError: a path does not exist, or folders without any file are all there is.
    """
    named = [path for path in paths if path != _STDIN]
    files = list(walk_files(named))
    if named and not files:
        raise DataError(f"There is no file in {', '.join(map(str, named))}.")
    return files


def _documents(files: Sequence[Path], settings: ExtractSettings, *, with_stdin: bool) -> Iterator[Document]:
    if with_stdin:
        yield extract(sys.stdin.buffer.read(), settings, name="-")
    yield from extract_files(files, settings)


def _with_text(documents: Iterable[Document], counts: Counter[str]) -> Iterator[Document]:
    """The documents that can be asked, counted by status; what is wrong with any of them is said on stderr."""
    for document in documents:
        counts[document.status] += 1
        if document.status != "ok":
            print(f"doctune: {document.path} is left out ({document.status}): {document.reason}", file=sys.stderr)
            continue
        if document.reason:
            print(f"doctune: {document.path}: {document.reason}", file=sys.stderr)
        yield document


def _total(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} {status}" for status, count in counts.most_common())


def _printable(text: str) -> str:
    """What the terminal's encoding lacks, and bytes of file names that are none, as escapes."""
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
