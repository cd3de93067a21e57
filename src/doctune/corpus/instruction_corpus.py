"""Conversations -> training, validation and test, and an account of every row.

Parts are given by file, or made here, whole groups of copies and near-copies together. A validation or test part that
is a file of its own is used as it is; what is removed for its sake are the training conversations that it repeats.

Shapes: N conversations, S sequences of them (see `text.chat.render`).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from doctune.corpus.account import LEFT_OUT, AccountRow, write_account
from doctune.corpus.division import LabelledDocument, SplitSettings, read_saved_parts, with_parts, write_splits
from doctune.corpus.duplicates import DEFAULT_THRESHOLD, text_groups
from doctune.corpus.instruction_tokens import InstructionTokens, tokenise_conversations
from doctune.corpus.instructions import Instruction, InstructionFile
from doctune.corpus.sieve import Sieve
from doctune.corpus.splits import PARTS, holdout, leaking_groups
from doctune.corpus.text_grouping import groups_of_texts
from doctune.errors import DataError
from doctune.files import write_json
from doctune.text.chat import Rendered, Template, TemplateRefusedError, render

LEAVE_OUT, TRUNCATE = "leave_out", "truncate"
_EXAMPLES = 3


@dataclass(frozen=True)
class InstructionParts:
    """The files by part; a part without a file comes out of the training files."""

    train: tuple[InstructionFile, ...]
    val: tuple[InstructionFile, ...] = ()
    test: tuple[InstructionFile, ...] = ()

    def of(self, part: str) -> tuple[InstructionFile, ...]:
        """The files of "train", "val" or "test"."""
        return {"train": self.train, "val": self.val, "test": self.test}[part]

    def given(self) -> list[str]:
        """The judged parts that have files of their own."""
        return [part for part in ("val", "test") if self.of(part)]


@dataclass(frozen=True)
class Reading:
    """How conversations become tokens.

    Attributes:
        tokenizer: of the model.
        template: how it shows conversations.
        max_length: tokens of the longest sequence.
        too_long: what happens to longer ones: "leave_out" the conversation, or "truncate" it at the end.
    """

    tokenizer: Tokenizer
    template: Template
    max_length: int
    too_long: str = LEAVE_OUT


@dataclass(frozen=True)
class PlacedInstruction:
    """A conversation on its way to a part: `given` is the part of its file, `number` its place among all that were
    read, `group` names its copies and near-copies."""

    example: Instruction
    given: str
    file: str
    number: int
    id: str = ""
    exact: str = ""
    group: str = ""
    part: str = ""
    fold: int | None = None

    def document(self) -> LabelledDocument:
        """What splits and predictions know of it; the label is its form."""
        example = self.example
        content = hashlib.sha256(json.dumps([asdict(each) for each in example.messages]).encode()).hexdigest()
        return LabelledDocument(
            self.id, example.place, example.form, content, self.part, self.exact, self.group, self.fold
        )


@dataclass(frozen=True)
class InstructionCorpus:
    """The conversations of all parts, in the order of their files.

    Attributes:
        source: the first training file.
        documents: the same as documents with part, fold and group; `label` is the form.
        numbers: of each among the conversations of `tokens`.
        tokens: of all conversations that were read.
        account: a row for every row of the files.
        num_truncated: conversations in use that were cut at `data.max_length`.
    """

    source: Path
    examples: tuple[Instruction, ...]
    documents: tuple[LabelledDocument, ...]
    numbers: tuple[int, ...]
    tokens: InstructionTokens
    account: tuple[AccountRow, ...]
    num_truncated: int

    def part(self, name: str) -> tuple[Instruction, ...]:
        """The conversations of "train", "val" or "test"."""
        pairs = zip(self.examples, self.documents, strict=True)
        return tuple(example for example, document in pairs if document.part == name)

    def part_documents(self, name: str) -> tuple[LabelledDocument, ...]:
        """The same as documents, in the same order."""
        return tuple(document for document in self.documents if document.part == name)

    def sequences(self, name: str) -> list[tuple[int, ...]]:
        """The numbers of the sequences of each conversation of a part that have something to learn."""
        learnt = self.tokens.num_learnt()
        pairs = zip(self.numbers, self.documents, strict=True)
        return [
            tuple(sequence for sequence in self.tokens.of(number) if learnt[sequence])
            for number, document in pairs
            if document.part == name
        ]

    def left_out(self) -> list[AccountRow]:
        """The rows of the account that are in no part."""
        return [row for row in self.account if row.part == LEFT_OUT]

    def write(self, folder: Path) -> None:
        """Write `splits.parquet`, `account.csv` and `audit.json`."""
        write_account(self.account, folder / "account.csv")
        write_json(folder / "audit.json", self.totals())
        write_splits(self.documents, folder / "splits.parquet")

    def totals(self) -> dict[str, Any]:
        """Counts: rows, parts and reasons of the account; forms and tokens per part; copies; what was truncated."""
        members = Counter(document.group for document in self.documents)
        return {
            "rows": len(self.account),
            "parts": {name: len(self.part(name)) for name in PARTS} | {LEFT_OUT: len(self.left_out())},
            "left_out_reasons": dict(Counter(row.status for row in self.left_out()).most_common()),
            "forms": {name: dict(Counter(each.form for each in self.part(name)).most_common()) for name in PARTS},
            "tokens": {name: self._num_tokens(name) for name in PARTS},
            "duplicate_groups": sum(count > 1 for count in members.values()),
            "duplicate_texts": sum(count for count in members.values() if count > 1),
            "truncated": self.num_truncated,
        }

    def _num_tokens(self, name: str) -> dict[str, int]:
        chosen = [sequence for sequences in self.sequences(name) for sequence in sequences]
        return {
            "all": int(self.tokens.lengths()[chosen].sum()),
            "learnt": int(self.tokens.num_learnt()[chosen].sum()),
        }


def prepare_instructions(
    files: InstructionParts,
    reading: Reading,
    *,
    split: SplitSettings,
    cache: Path,
    duplicate_threshold: float = DEFAULT_THRESHOLD,
    max_unusable: float = 0.2,
    max_train: int | None = None,
) -> InstructionCorpus:
    """Give every conversation its part, or the reason why it has none.

    A training conversation that stands, as a copy or near-copy, in the file of another part is left out, and so is a
    validation one that stands in the test file. Those that are divided here keep groups of copies in one part.

    Args:
        files: at least one for training.
        reading: how they become tokens.
        split: shares are of the conversations that divide; each form is divided alike.
        cache: the cache folder, where tokens and duplicate groups are kept.
        duplicate_threshold: see `duplicates.duplicate_groups`; the system's turns are not compared.
        max_unusable: the largest share of rows that may be rejected.
        max_train: train on a sample of so many, the same ones whatever their order; None: all.

    Raises:
        DataError: too many rejected rows, a part without conversations, a fold beside files of other parts, or a saved
            split that leaks.
    """
    names = _names(files)
    _refuse_too_many_rejected(files, max_unusable)
    placed = _placed(files, names)
    rendered, refused = _rendered(placed, reading.template)
    tokens = tokenise_conversations(cache, reading.tokenizer, reading.max_length, rendered)
    sieve = Sieve(placed, _row)
    sieve.leave_out("template", lambda each: refused.get(each.number, ""))
    sieve.leave_out("too_long", _is_too_long(tokens, reading))
    _require_any(files, sieve)
    sieve.kept = _grouped(sieve.kept, cache, duplicate_threshold)
    for judging, learning in (("test", ("train", "val")), ("val", ("train",))):
        if files.of(judging):
            sieve.leave_out(f"in_{judging}_file", _stands_in(sieve.kept, judging, learning))
    _divide(sieve, split, files.given())
    _sample_training(sieve, max_train, split.seed)
    _require_all_parts(files.train[0].path, sieve)
    return _corpus(files, names, sieve, tokens)


def describe_instructions(corpus: InstructionCorpus) -> str:
    """A line of totals: "80 train, 10 val, 10 test; left out: 3 empty; 9,000 tokens to learn; 2 truncated"."""
    parts = ", ".join(f"{len(corpus.part(part)):,} {part}" for part in PARTS)
    reasons = Counter(row.status for row in corpus.left_out()).most_common()
    left_out = ", ".join(f"{count:,} {status}" for status, count in reasons)
    totals = corpus.totals()
    return "; ".join(
        [
            parts,
            *([f"left out: {left_out}"] if left_out else []),
            f"{totals['tokens']['train']['learnt']:,} tokens to learn",
            *([f"{corpus.num_truncated:,} cut at the longest length"] if corpus.num_truncated else []),
        ]
    )


def _row(placed: PlacedInstruction, part: str, status: str, reason: str) -> AccountRow:
    return AccountRow(placed.example.place, placed.example.form, part, status, reason, placed.group)


# --- before the division -----------------------------------------------------------------------------------------


def _names(files: InstructionParts) -> dict[Path, str]:
    """What each file is called in the account: its name, or its whole path where two have the same name."""
    paths = [file.path for part in PARTS for file in files.of(part)]
    repeated = sorted({str(path) for path in paths if paths.count(path) > 1})
    if repeated:
        raise DataError(
            f"{repeated[0]} is given more than once among data.train, data.val and data.test; give it once."
        )
    shared = Counter(path.name for path in paths)
    return {path: path.name if shared[path.name] == 1 else str(path) for path in paths}


def _refuse_too_many_rejected(files: InstructionParts, max_unusable: float) -> None:
    for file in (file for part in PARTS for file in files.of(part)):
        total = len(file.examples) + len(file.rejected)
        if len(file.rejected) <= max_unusable * total:
            continue
        counted = ", ".join(f"{n} {why}" for why, n in Counter(row.status for row in file.rejected).most_common())
        raise DataError(
            f"{len(file.rejected)} of {total} rows of {file.path} cannot be used ({counted}), more than "
            f"data.max_unusable={max_unusable} allows. The first: {file.rejected[0].reason}. "
            "Mend the file, or raise data.max_unusable to go on without them."
        )


def _placed(files: InstructionParts, names: Mapping[Path, str]) -> list[PlacedInstruction]:
    rows = [
        (replace(example, place=_renamed(example.place, names[file.path])), part, names[file.path])
        for part in PARTS
        for file in files.of(part)
        for example in file.examples
    ]
    contents = text_groups(json.dumps([asdict(each) for each in example.messages]) for example, _, _ in rows)
    copies: Counter[str] = Counter()
    placed = []
    for number, ((example, part, file), content) in enumerate(zip(rows, contents, strict=True)):
        copies[content] += 1
        name = content if copies[content] == 1 else f"{content}-{copies[content]}"
        placed.append(PlacedInstruction(example, part, file, number, name))
    return placed


def _renamed(place: str, file: str) -> str:
    return f"{file}:{place.rpartition(':')[2]}"


def _rendered(
    placed: Sequence[PlacedInstruction], template: Template
) -> tuple[list[tuple[Rendered, ...]], dict[int, str]]:
    """The texts of each conversation, none where the template refuses it, and why, by its number."""
    rendered: list[tuple[Rendered, ...]] = []
    refused: dict[int, str] = {}
    for each in placed:
        try:
            rendered.append(render(each.example.messages, template))
        except TemplateRefusedError as reason:
            rendered.append(())
            refused[each.number] = str(reason)
    return rendered, refused


def _is_too_long(tokens: InstructionTokens, reading: Reading) -> Callable[[PlacedInstruction], str]:
    lengths, learnt, limit = tokens.full_lengths(), tokens.num_learnt(), reading.max_length

    def reason(each: PlacedInstruction) -> str:
        own = list(tokens.of(each.number))
        longest = int(lengths[own].max())
        if longest <= limit:
            return ""
        if reading.too_long == LEAVE_OUT:
            return f"it has {longest:,} tokens, more than data.max_length={limit}"
        # What is cut is the end, where the completion stands.
        return "" if learnt[own].any() else f"its prompt alone has the {limit} tokens of data.max_length"

    return reason


def _require_any(files: InstructionParts, sieve: Sieve[PlacedInstruction]) -> None:
    if not any(each.given == "train" for each in sieve.kept):
        first = next(row for row in sieve.left_out)
        raise DataError(
            f"No conversation of {files.train[0].path} can be used; the first: {first.path}: {first.reason}. "
            "Longer ones need a larger data.max_length, or data.too_long=truncate."
        )


def _grouped(placed: Sequence[PlacedInstruction], cache: Path, threshold: float) -> list[PlacedInstruction]:
    groups = groups_of_texts(cache, [each.example.spoken for each in placed], threshold)
    named = zip(placed, groups.exact, groups.near, strict=True)
    return [replace(each, exact=exact, group=near) for each, exact, near in named]


def _stands_in(
    placed: Sequence[PlacedInstruction], judging: str, learning: Collection[str]
) -> Callable[[PlacedInstruction], str]:
    exact = {each.exact: each.example.place for each in reversed(placed) if each.given == judging}
    near = {each.group: each.example.place for each in reversed(placed) if each.given == judging}

    def reason(each: PlacedInstruction) -> str:
        if each.given not in learning:
            return ""
        if each.exact in exact:
            return f"it stands in {exact[each.exact]}, too"
        return f"it is nearly {near[each.group]}" if each.group in near else ""

    return reason


# --- the division and after it -----------------------------------------------------------------------------------


def _divide(sieve: Sieve[PlacedInstruction], split: SplitSettings, given: Collection[str]) -> None:
    if split.file is not None:
        _divide_by_file(sieve, split.file)
        return
    sieve.kept = [replace(each, part=each.given) for each in sieve.kept]
    shares = {part: share for part, share in (("test", split.test), ("val", split.val)) if part not in given}
    dividing = [each for each in sieve.kept if each.given == "train"]
    if not shares:
        return
    if split.fold is not None:
        by_id = {document.id: document for document in with_parts([each.document() for each in dividing], split)}
        divided = [replace(each, part=by_id[each.id].part, fold=by_id[each.id].fold) for each in dividing]
    else:
        forms, groups = [each.example.form for each in dividing], [each.group for each in dividing]
        parts = holdout(forms, groups, shares=shares, seed=split.seed)
        divided = [replace(each, part=part) for each, part in zip(dividing, parts, strict=True)]
    sieve.kept = [*divided, *(each for each in sieve.kept if each.given != "train")]


def _divide_by_file(sieve: Sieve[PlacedInstruction], file: Path) -> None:
    saved = read_saved_parts(file)
    sieve.leave_out("not_in_split", lambda each: "" if each.id in saved else f"{file} does not have it")
    sieve.kept = [replace(each, part=saved[each.id]) for each in sieve.kept]
    leaks = leaking_groups([each.group for each in sieve.kept], [each.part for each in sieve.kept])
    if leaks:
        places = [
            " and ".join(f"{each.example.place} ({each.part})" for each in sieve.kept if each.group == group)
            for group in list(leaks)[:_EXAMPLES]
        ]
        raise DataError(
            f"split.file={file} leaks: {len(leaks)} groups of copies stand in more than one part, such as "
            f"{'; '.join(places)}. Make a new split (leave split.file out), or remove the copies."
        )


def _sample_training(sieve: Sieve[PlacedInstruction], max_train: int | None, seed: int) -> None:
    """Only those with the smallest hashes stay, so that their order in the file does not matter."""
    if max_train is None:
        return
    ids = [each.id for each in sieve.kept if each.part == "train"]
    chosen = set(sorted(ids, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())[:max_train])
    reason = f"not in a sample of {max_train} of the {len(ids)} conversations of the training part"
    sieve.leave_out("not_sampled", lambda each: "" if each.part != "train" or each.id in chosen else reason)


def _require_all_parts(source: Path, sieve: Sieve[PlacedInstruction]) -> None:
    missing = [part for part in PARTS if not any(each.part == part for each in sieve.kept)]
    if missing:
        counted = ", ".join(f"{n} {why}" for why, n in Counter(row.status for row in sieve.left_out).most_common())
        raise DataError(
            f"{source} leaves no conversation for the {' and the '.join(missing)} part; left out: {counted or 'none'}. "
            "Copies and near-copies stay together: a higher data.duplicate_threshold, up to 1, sees fewer of them."
        )


def _corpus(
    files: InstructionParts, names: Mapping[Path, str], sieve: Sieve[PlacedInstruction], tokens: InstructionTokens
) -> InstructionCorpus:
    kept = sorted(sieve.kept, key=lambda each: each.number)
    lengths, cut = tokens.full_lengths(), tokens.lengths()
    truncated = {
        each.id for each in kept if (lengths[list(tokens.of(each.number))] > cut[list(tokens.of(each.number))]).any()
    }
    rejected = [
        AccountRow(_renamed(row.place, names[file.path]), "", LEFT_OUT, row.status, row.reason, "")
        for part in PARTS
        for file in files.of(part)
        for row in file.rejected
    ]
    used = [
        _row(each, each.part, "truncated", "cut at data.max_length")
        if each.id in truncated
        else _row(each, each.part, "ok", "")
        for each in kept
    ]
    account = sorted([*rejected, *sieve.left_out, *used], key=lambda row: _line(row.path))
    return InstructionCorpus(
        files.train[0].path,
        tuple(each.example for each in kept),
        tuple(each.document() for each in kept),
        tuple(each.number for each in kept),
        tokens,
        tuple(account),
        len(truncated),
    )


def _line(place: str) -> tuple[str, int]:
    file, _, line = place.rpartition(":")
    return file, int(line)
