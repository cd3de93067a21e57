"""Questions -> training, validation and test by article, a sample of them if wanted, and an account of every one."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from doctune.corpus.account import LEFT_OUT, AccountRow, write_account
from doctune.corpus.division import LabelledDocument, SplitSettings, read_saved_parts, write_splits
from doctune.corpus.duplicates import text_groups
from doctune.corpus.sieve import Sieve
from doctune.corpus.splits import PARTS, folds, holdout, leaking_groups
from doctune.corpus.squad import Question, SquadFile
from doctune.errors import DataError
from doctune.files import write_json

log = logging.getLogger(__name__)

_EXAMPLES = 3


@dataclass(frozen=True)
class QuestionCorpus:
    """The questions of all parts, by article, within an article in the order of the file.

    Attributes:
        source: the file that trains.
        documents: the questions as documents with part, fold and group, in the same order; `label` is the article,
            `content` identifies all of the question.
        account: a row for every question of the source, used or left out.
    """

    source: Path
    questions: tuple[Question, ...]
    documents: tuple[LabelledDocument, ...]
    account: tuple[AccountRow, ...]

    @property
    def is_v2(self) -> bool:
        """Whether there are impossible questions among those used."""
        return any(question.is_impossible for question in self.questions)

    def part(self, name: str) -> tuple[Question, ...]:
        """The questions of "train", "val" or "test"."""
        pairs = zip(self.questions, self.documents, strict=True)
        return tuple(question for question, document in pairs if document.part == name)

    def left_out(self) -> list[AccountRow]:
        """The rows of the account that are in no part."""
        return [row for row in self.account if row.part == LEFT_OUT]

    def write(self, folder: Path) -> None:
        """Write `splits.parquet`, `account.csv` and `audit.json`."""
        write_account(self.account, folder / "account.csv")
        write_json(folder / "audit.json", self.totals())
        write_splits(self.documents, folder / "splits.parquet")

    def totals(self) -> dict[str, Any]:
        """Counts: rows, parts and reasons of the account; articles, contexts, questions and impossible ones per part.

        `misaligned` counts answers that do not stand where the file says: of questions judged by text, or left out.
        """
        parts = {name: self.part(name) for name in PARTS}
        reasons = Counter(row.status for row in self.left_out())
        judged_by_text = sum(not question.is_trainable for question in self.questions)
        return {
            "rows": len(self.account),
            "parts": {name: len(questions) for name, questions in parts.items()} | {LEFT_OUT: len(self.left_out())},
            "left_out_reasons": dict(reasons.most_common()),
            "articles": {name: len({q.article for q in questions}) for name, questions in parts.items()},
            "contexts": {name: len({q.context for q in questions}) for name, questions in parts.items()},
            "questions": {name: len(questions) for name, questions in parts.items()},
            "impossible": {name: sum(q.is_impossible for q in questions) for name, questions in parts.items()},
            "misaligned": judged_by_text + reasons["misaligned_answer"],
        }


@dataclass(frozen=True)
class _Placed:
    """A question on its way to a part; `context_name` is the same for contexts that differ only in whitespace."""

    question: Question
    path: str
    context_name: str
    group: str
    part: str = ""
    fold: int | None = None

    def document(self) -> LabelledDocument:
        q = self.question
        return LabelledDocument(
            q.id, self.path, q.article, q.content, self.part, self.context_name, self.group, self.fold
        )


def _row(placed: _Placed, part: str, status: str, reason: str) -> AccountRow:
    return AccountRow(placed.path, placed.question.article, part, status, reason, placed.group)


def prepare_questions(
    train: SquadFile,
    judge: SquadFile | None,
    *,
    split: SplitSettings,
    max_questions: int | None = None,
    max_judge_questions: int | None = None,
) -> QuestionCorpus:
    """Give every question its part, or the reason why it has none.

    Articles stay whole, and articles that share a context stay together. A training question whose answer is not where
    the file says is left out; in the other parts it stays, for it can be judged by its text.

    Args:
        train: what is divided, or, beside `judge`, trains and gives the validation part.
        judge: the test part. Questions of `train` whose context or id it has too are left out.
        split: shares are of questions, though only whole articles move.
        max_questions: the training part is at most so many questions, the same ones whatever their order; None is all.
        max_judge_questions: the same for the validation and the test part, each.

    Raises:
        DataError: too few articles, a fold beside `judge`, or a saved split that is unusable or leaks.
    """
    if judge is not None and split.fold is not None:
        raise DataError(
            f"split.fold={split.fold} would take the test part from {train.path}, but {judge.path} is the test part. "
            "Leave out split.fold (split=holdout), or give the training file alone."
        )
    learning, judging = _placed_of(train, judge)
    sieve = Sieve(learning, _row)
    if judge is not None:
        sieve.leave_out("in_test_file", _stands_in(judging, judge.path.name))
        _warn_of_shared_articles(sieve.kept, judging, judge.path)
    _divide(sieve, judging, train.path, split)
    sieve.leave_out("misaligned_answer", _cannot_train(_misaligned(train, judge)))
    _require_all_parts(str(train.path) if split.file is None else f"split.file={split.file}", sieve)
    for part in PARTS:
        cap = max_questions if part == "train" else max_judge_questions
        sieve.leave_out("sampled_out", _not_sampled(sieve.kept, part, cap, split.seed))
    rejected = _rejected(train, _name(train, judge)) + (_rejected(judge, _name(judge, train)) if judge else [])
    used = sorted(sieve.kept, key=lambda each: each.question.article)
    account = sorted([*rejected, *sieve.left_out, *map(_used, used)], key=lambda row: (row.path, row.reason))
    return QuestionCorpus(
        train.path,
        tuple(each.question for each in used),
        tuple(each.document() for each in used),
        tuple(account),
    )


def article_groups(titles: Sequence[str], context_names: Sequence[str]) -> list[str]:
    """The group of each question: articles that share a context are one, named after the first title in sorted order.

    Args:
        titles: the article of each question.
        context_names: the context of each question, equal names for equal contexts (`duplicates.text_groups`).
    """
    root = {title: title for title in titles}
    first_with: dict[str, str] = {}
    for title, context in zip(titles, context_names, strict=True):
        one, other = sorted((_root(root, title), _root(root, first_with.setdefault(context, title))))
        root[other] = one
    return [_root(root, title) for title in titles]


def _root(root: dict[str, str], title: str) -> str:
    while root[title] != title:
        root[title] = title = root[root[title]]
    return title


# --- before the division -----------------------------------------------------------------------------------------


def _placed_of(train: SquadFile, judge: SquadFile | None) -> tuple[list[_Placed], list[_Placed]]:
    """The questions of both files; an article that stands in both has a group in each."""
    learning = _placed(train, _name(train, judge))
    if judge is None:
        return learning, []
    taken = {each.group for each in learning}
    judging = _placed(judge, _name(judge, train))
    return learning, [
        replace(each, group=f"{each.group} ({_name(judge, train)})") if each.group in taken else each
        for each in judging
    ]


def _placed(file: SquadFile, name: str) -> list[_Placed]:
    names = _context_names(file.questions)
    groups = article_groups([question.article for question in file.questions], names)
    return [
        _Placed(question, f"{name}#{question.id}", context, group)
        for question, context, group in zip(file.questions, names, groups, strict=True)
    ]


def _name(file: SquadFile, other: SquadFile | None) -> str:
    """A file's name in the account; its whole path where the other file has the same name."""
    return str(file.path) if other is not None and other.path.name == file.path.name else file.path.name


def _context_names(questions: Iterable[Question]) -> list[str]:
    contexts = [question.context for question in questions]
    distinct = list(dict.fromkeys(contexts))
    names = dict(zip(distinct, text_groups(distinct), strict=True))
    return [names[context] for context in contexts]


def _stands_in(judging: Sequence[_Placed], name: str) -> Callable[[_Placed], str]:
    contexts = {each.context_name for each in judging}
    ids = {each.question.id for each in judging}

    def reason(each: _Placed) -> str:
        if each.context_name in contexts:
            return f"its context stands in {name}, too"
        return f"its id stands in {name}, too" if each.question.id in ids else ""

    return reason


def _warn_of_shared_articles(learning: Sequence[_Placed], judging: Sequence[_Placed], path: Path) -> None:
    shared = sorted({each.question.article for each in learning} & {each.question.article for each in judging})
    if shared:
        log.warning(
            "%d articles of %s also train, with other contexts (such as %s): its scores may flatter.",
            len(shared),
            path,
            ", ".join(shared[:_EXAMPLES]),
        )


# --- the division ------------------------------------------------------------------------------------------------


def _divide(sieve: Sieve[_Placed], judging: Sequence[_Placed], path: Path, split: SplitSettings) -> None:
    if split.file is not None:
        sieve.kept += judging
        _divide_by_file(sieve, split.file)
    elif judging:
        _require_groups(sieve.kept, path, 2, "training and validation")
        test = [replace(each, part="test") for each in judging]
        sieve.kept = [*_held_out(sieve.kept, {"val": split.val}, split.seed), *test]
    elif split.fold is None:
        _require_groups(sieve.kept, path, split.min_groups(), "training, validation and test")
        sieve.kept = _held_out(sieve.kept, {"test": split.test, "val": split.val}, split.seed)
    else:
        _require_groups(sieve.kept, path, split.min_groups(), f"{split.num_folds} folds (split.folds)")
        sieve.kept = _folded(sieve.kept, split)


def _folded(placed: Sequence[_Placed], split: SplitSettings) -> list[_Placed]:
    """As `division.divide` has it: the fold is the test part, and validation comes out of the rest."""
    numbers = folds(_one_label(placed), _groups(placed), num_folds=split.num_folds, seed=split.seed)
    numbered = [replace(each, fold=number) for each, number in zip(placed, numbers, strict=True)]
    rest = _held_out([each for each in numbered if each.fold != split.fold], {"val": split.val}, split.seed)
    part_of = {each.question.id: each.part for each in rest}
    return [replace(each, part=part_of.get(each.question.id, "test")) for each in numbered]


def _held_out(placed: Sequence[_Placed], shares: dict[str, float], seed: int) -> list[_Placed]:
    parts = holdout(_one_label(placed), _groups(placed), shares=shares, seed=seed)
    return [replace(each, part=part) for each, part in zip(placed, parts, strict=True)]


def _one_label(placed: Sequence[_Placed]) -> list[str]:
    return ["question"] * len(placed)


def _groups(placed: Sequence[_Placed]) -> list[str]:
    return [each.group for each in placed]


def _divide_by_file(sieve: Sieve[_Placed], file: Path) -> None:
    saved = read_saved_parts(file)
    sieve.leave_out("not_in_split", lambda each: "" if each.question.id in saved else f"{file} does not have it")
    sieve.kept = [replace(each, part=saved[each.question.id]) for each in sieve.kept]
    leaks = leaking_groups(_groups(sieve.kept), [each.part for each in sieve.kept])
    if leaks:
        examples = "; ".join(f"{group} ({' and '.join(parts)})" for group, parts in list(leaks.items())[:_EXAMPLES])
        raise DataError(
            f"split.file={file} leaks: articles, or articles with a text in common, stand in more than one part "
            f"({len(leaks)} in all), such as {examples}. Make a new split (leave split.file out)."
        )


def _require_groups(placed: Sequence[_Placed], path: Path, needed: int, what: str) -> None:
    found = len(set(_groups(placed)))
    if found >= needed:
        return
    articles = "one article" if found == 1 else f"{found} articles"
    raise DataError(
        f"Questions are divided by article, and {path} has {articles} without a text in common, where {what} need "
        f"{needed}. Add articles, or give texts that have nothing to do with each other titles of their own."
    )


# --- after the division ------------------------------------------------------------------------------------------


def _misaligned(train: SquadFile, judge: SquadFile | None) -> dict[str, str]:
    # Where an id stands in both files, only that of the file that judges is still in use.
    return {**train.misaligned, **(judge.misaligned if judge else {})}


def _cannot_train(misaligned: Mapping[str, str]) -> Callable[[_Placed], str]:
    def reason(each: _Placed) -> str:
        return "" if each.part != "train" or each.question.is_trainable else misaligned[each.question.id]

    return reason


def _require_all_parts(source: str, sieve: Sieve[_Placed]) -> None:
    missing = [part for part in PARTS if not any(each.part == part for each in sieve.kept)]
    if missing:
        reasons = Counter(row.status for row in sieve.left_out).most_common()
        counted = ", ".join(f"{count} {status}" for status, count in reasons)
        raise DataError(
            f"{source} leaves no question for the {' and the '.join(missing)} part; left out: {counted or 'none'}."
        )


def _not_sampled(placed: Sequence[_Placed], part: str, cap: int | None, seed: int) -> Callable[[_Placed], str]:
    """Only the questions with the smallest hashes stay, so that their order in the file does not matter."""
    ids = [each.question.id for each in placed if each.part == part]
    chosen = set(sorted(ids, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())[:cap])

    def reason(each: _Placed) -> str:
        is_in = each.part != part or each.question.id in chosen
        return "" if is_in else f"not in a sample of {cap} of the {len(ids)} questions of the {part} part"

    return reason


def _rejected(file: SquadFile, name: str) -> list[AccountRow]:
    return [AccountRow(f"{name}#{r.id}", r.article, LEFT_OUT, r.status, r.reason, "") for r in file.rejected]


def _used(each: _Placed) -> AccountRow:
    remark = "" if each.question.is_trainable else "judged by its text: its answer is not where the file says"
    return _row(each, each.part, "ok", remark)
