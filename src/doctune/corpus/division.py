"""Documents -> training, validation and test, by a hold-out, a fold, or a split that another run has saved."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from doctune.corpus.batches import batched
from doctune.corpus.duplicates import conflicting_groups
from doctune.corpus.splits import MIN_GROUPS, PARTS, folds, holdout, leaking_groups, small_classes
from doctune.errors import DataError
from doctune.files import written_whole

MERGED_LABEL = "other"
_EXAMPLES = 3
_ROWS_PER_GROUP = 8192


@dataclass(frozen=True)
class SplitSettings:
    """How documents are divided.

    Attributes:
        val, test: shares of the documents; with folds, `val` is taken from the documents outside the fold.
        small_classes: what happens to classes too small for all parts: "fail", "drop" or "merge" (into "other").
        num_folds, fold: where `fold` is given, that fold of so many is the test part.
        file: a splits.parquet of another run, whose parts are used as they are.
    """

    val: float = 0.1
    test: float = 0.1
    seed: int = 42
    small_classes: str = "fail"
    num_folds: int = 5
    fold: int | None = None
    file: Path | None = None

    def min_groups(self) -> int:
        """How many different documents a class needs."""
        return MIN_GROUPS if self.fold is None else max(MIN_GROUPS, self.num_folds)


# From so many documents on, one split says nearly as much as folds do.
MANY_DOCUMENTS = 10_000


def advice_on_folds(num_documents: int, settings: SplitSettings) -> str | None:
    """What one split would give and cost in place of folds; None where folds are worth their time, or not asked for."""
    if settings.fold is None or num_documents <= MANY_DOCUMENTS:
        return None
    judged = round(settings.test * num_documents)
    margin = 1.96 * math.sqrt(0.9 * 0.1 / judged)
    return (
        f"{settings.num_folds} folds of {num_documents:,} documents take {settings.num_folds} trainings. One split "
        f"(split=holdout) judges {judged:,} of them after one: at 90 % accuracy the 95 % interval is ±{margin:.1%}."
    )


@dataclass(frozen=True, slots=True)
class LabelledDocument:
    """One usable document; `id` is taken from its content, `content` is its key in the store.

    Documents with one `text` differ in nothing but whitespace; those with one `group` are copies or near-copies (both
    are empty until they are grouped). `remark` is what extraction had to say of a text that it gave.
    `fold` is None where there are no folds, and for documents that may only train.
    """

    id: str
    path: str
    label: str
    content: str
    part: str
    text: str = ""
    group: str = ""
    fold: int | None = None
    remark: str = ""


@dataclass(frozen=True)
class Division:
    """Documents with their parts; those left out with a status and a reason.

    `conflicts` are texts under more than one label: they train, and judge nothing. `merged` counts the different
    documents of each class that became part of "other".
    """

    documents: tuple[LabelledDocument, ...]
    left_out: tuple[tuple[LabelledDocument, str, str], ...]
    conflicts: Mapping[str, tuple[str, ...]]
    merged: Mapping[str, int]


def divide(documents: Sequence[LabelledDocument], settings: SplitSettings) -> Division:
    """Give every document its part.

    Raises:
        DataError: classes too small, fewer than two classes, or a saved split that is unusable or leaks.
    """
    if settings.file is not None:
        return _by_saved_split(documents, settings.file)
    conflicts = conflicting_groups([d.text for d in documents], _labels(documents))
    only_train = {d.group for d in documents if d.text in conflicts}
    small = _small_classes(documents, only_train, settings.min_groups())
    if small and settings.small_classes == "fail":
        raise DataError(_too_small(small, settings.min_groups()))
    kept, left_out = list(documents), []
    if settings.small_classes == "merge":
        kept = [replace(d, label=MERGED_LABEL) if d.label in small else d for d in documents]
        _require_mergeable(kept, only_train, settings.min_groups())
    elif small:
        reason = f"its class has fewer than {settings.min_groups()} different documents"
        left_out = [(d, "small_class", reason) for d in documents if d.label in small]
        kept = [d for d in documents if d.label not in small]
    _require_two_classes(kept)
    merged = small if settings.small_classes == "merge" else {}
    return Division(tuple(with_parts(kept, settings, only_train)), tuple(left_out), conflicts, merged)


def fingerprint(documents: Iterable[LabelledDocument]) -> str:
    """What identifies documents, their labels, parts and contents; not where they lie."""
    digest = hashlib.sha256()
    for document in documents:
        digest.update(f"{document.id}\0{document.label}\0{document.part}\0{document.content}\n".encode())
    return digest.hexdigest()[:16]


def write_splits(documents: Sequence[LabelledDocument], path: Path) -> None:
    """Write `splits.parquet`, from which another run can take the same parts."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from doctune.corpus.records import columns  # it needs pyarrow

    texts = ("id", "path", "label", "group", "part")
    schema = pa.schema([*((name, pa.string()) for name in texts), ("fold", pa.int32())])
    with written_whole(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for some in batched(columns(documents, *schema.names), _ROWS_PER_GROUP):
            writer.write_table(pa.table([*zip(*some, strict=True)], schema=schema))


def with_parts(
    documents: Sequence[LabelledDocument], settings: SplitSettings, only_train: Collection[str] = ()
) -> list[LabelledDocument]:
    """The documents with their parts, and with folds their folds, by label and group; groups in `only_train` train."""
    labels, groups = _labels(documents), _groups(documents)
    if settings.fold is None:
        shares = {"test": settings.test, "val": settings.val}
        parts = holdout(labels, groups, shares=shares, seed=settings.seed, only_train=only_train)
        return [replace(d, part=part) for d, part in zip(documents, parts, strict=True)]
    numbers = folds(labels, groups, num_folds=settings.num_folds, seed=settings.seed)
    folded = [
        replace(d, fold=None if d.group in only_train else number) for d, number in zip(documents, numbers, strict=True)
    ]
    rest = [d for d in folded if d.fold != settings.fold]
    shares = {"val": settings.val}
    inner = holdout(_labels(rest), _groups(rest), shares=shares, seed=settings.seed, only_train=only_train)
    part_of = {d.id: part for d, part in zip(rest, inner, strict=True)}
    return [replace(d, part=part_of.get(d.id, "test")) for d in folded]


def _by_saved_split(documents: Sequence[LabelledDocument], file: Path) -> Division:
    saved = read_saved_parts(file)
    known = [replace(d, part=saved[d.id]) for d in documents if d.id in saved]
    left_out = [(d, "not_in_split", f"{file} does not have it") for d in documents if d.id not in saved]
    _refuse_leaks(known, file)
    conflicts = conflicting_groups([d.text for d in known], _labels(known))
    kept = [d for d in known if d.part == "train" or d.text not in conflicts]
    reason = "its text stands under two labels, so it may judge nothing"
    left_out += [(d, "two_labels", reason) for d in known if d.part != "train" and d.text in conflicts]
    _require_two_classes(kept)
    _require_all_parts(kept, file)
    return Division(tuple(kept), tuple(left_out), conflicts, {})


def read_saved_parts(file: Path) -> dict[str, str]:
    """The part of each id in a `splits.parquet`.

    Raises:
        DataError: it cannot be read, or has parts that are none.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if file.is_dir():
        raise DataError(f"split.file={file} is a folder; name the splits.parquet in it.")
    try:
        rows = pq.read_table(file, columns=["id", "part"]).to_pylist()
    except (OSError, pa.ArrowException) as error:
        first = str(error).splitlines()[0]
        raise DataError(f"split.file={file} is not a splits.parquet that can be read: {first}") from error
    unknown = sorted({str(row["part"]) for row in rows} - {*PARTS})
    if unknown:
        raise DataError(f"split.file={file} has parts that are none: {', '.join(unknown)}. Known: {', '.join(PARTS)}.")
    return {row["id"]: row["part"] for row in rows}


def _refuse_leaks(documents: Sequence[LabelledDocument], file: Path) -> None:
    leaks = leaking_groups(_groups(documents), [d.part for d in documents])
    if not leaks:
        return
    examples = [
        " and ".join(f"{d.path} ({d.part})" for d in documents if d.group == group) for group in list(leaks)[:_EXAMPLES]
    ]
    raise DataError(
        f"split.file={file} leaks: {len(leaks)} groups of copies stand in more than one part, such as "
        f"{'; '.join(examples)}. Make a new split (leave split.file out), or remove the copies."
    )


def _require_all_parts(documents: Sequence[LabelledDocument], file: Path) -> None:
    missing = [part for part in PARTS if not any(d.part == part for d in documents)]
    if missing:
        raise DataError(f"split.file={file} gives these documents no {' and no '.join(missing)} part.")
    untrained = sorted({d.label for d in documents} - {d.label for d in documents if d.part == "train"})
    if untrained:
        raise DataError(f"split.file={file} leaves no training document of: {', '.join(untrained)}.")


def _too_small(small: Mapping[str, int], needed: int) -> str:
    counted = ", ".join(f"{label} ({count})" for label, count in small.items())
    return (
        f"Every class must reach all parts, so it needs {needed} documents that are not copies of each other. "
        f"Too small: {counted}. Add documents, leave such classes out with split.small_classes=drop, "
        f"or put them together as {MERGED_LABEL!r} with split.small_classes=merge."
    )


def _small_classes(documents: Sequence[LabelledDocument], only_train: Collection[str], needed: int) -> dict[str, int]:
    """Classes too small for all parts; documents that may only train do not help them."""
    judging = [d for d in documents if d.group not in only_train]
    absent = dict.fromkeys({d.label for d in documents} - {d.label for d in judging}, 0)
    return dict(sorted((absent | small_classes(_labels(judging), _groups(judging), needed)).items()))


def _require_mergeable(documents: Sequence[LabelledDocument], only_train: Collection[str], needed: int) -> None:
    small = _small_classes(documents, only_train, needed)
    if small:
        raise DataError(
            f"Even together the small classes have only {small[MERGED_LABEL]} different documents of {needed}. "
            "Leave them out with split.small_classes=drop."
        )


def _require_two_classes(documents: Sequence[LabelledDocument]) -> None:
    names = sorted({document.label for document in documents})
    if len(names) < 2:
        found = f"only {names[0]!r} is" if names else "none is"
        raise DataError(f"A classifier needs at least two classes with enough usable documents; {found} left.")


def _labels(documents: Sequence[LabelledDocument]) -> list[str]:
    return [document.label for document in documents]


def _groups(documents: Sequence[LabelledDocument]) -> list[str]:
    return [document.group for document in documents]
