"""What a text is to be labelled with: any number of targets, each with one label per text or with any number of them.

Shapes: N texts, L labels of one target.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from doctune.errors import ConfigError, DataError
from doctune.labels import Labels

SINGLE, MULTI = "single", "multi"
KINDS = (SINGLE, MULTI)
# In the arrays of `truth`: nobody has said what the label is.
MISSING = -1


@dataclass(frozen=True)
class TargetSpec:
    """One target as a model learns it.

    Attributes:
        name: of its column, or as the configuration calls it.
        kind: single: each text has one of the labels; multi: each has any number of them, also none.
        labels: in id order.

    Raises:
        ValueError: no such kind.
    """

    name: str
    kind: str
    labels: Labels

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind={self.kind!r} is not a choice: {', '.join(KINDS)}.")

    @property
    def is_multi(self) -> bool:
        """Whether a text may have any number of labels."""
        return self.kind == MULTI


@dataclass(frozen=True)
class LabelledText:
    """One text with what is known of its labels.

    Attributes:
        id: from its column, or made from the text when all tables are read.
        targets: the label names by target: one name for a single-label target, any number in sorted order for a
            multi-label one. A target that is missing for this text is not among them; () says that no label applies.
        place: where it stands, such as "train.tsv:12".
    """

    id: str
    text: str
    targets: Mapping[str, tuple[str, ...]]
    place: str = ""


@dataclass(frozen=True)
class TargetColumn:
    """A target that stands in a column of its own.

    Attributes:
        name: of the target.
        kind: single or multi.
        column: the column's name; "": that of the target.
        separator: for multi: what stands between the labels of a text value. Lists need none.
        label_names: where values are label ids: the names in id order. (): values are names themselves.
        names_file: where those names come from, for messages.

    Raises:
        ConfigError: no such kind, an empty separator, or a label name that stands there twice.
    """

    name: str
    kind: str = SINGLE
    column: str = ""
    separator: str = ","
    label_names: tuple[str, ...] = ()
    names_file: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(
                f"data.targets.{self.name}.kind={self.kind!r} is not a choice: single (one label per text) or multi "
                "(any number of them)."
            )
        if not self.separator:
            raise ConfigError(
                f"data.targets.{self.name}.separator is empty; name what stands between labels, such as ,"
            )
        _refuse_repeats(self.name, self.names_file, self.label_names)

    @property
    def source(self) -> str:
        """The column to read."""
        return self.column or self.name


@dataclass(frozen=True)
class DerivedTarget:
    """A target that follows from another one: each of that one's labels belongs to a group, and groups are the labels.

    A multi-label target has the groups of all labels of a text (their union). A single-label one has the one group
    that they share; labels of several groups give it `mixed`, and no label at all none: the target is then missing.

    Attributes:
        name: of the target.
        kind: single or multi.
        source: the target that it follows from.
        groups: the labels of each group; every label of the source belongs to exactly one.
        mixed: for single: the group of texts whose labels belong to several, such as "ambiguous"; a new one, or one of
            `groups`. None: the target is missing for them.

    Raises:
        ConfigError: no such kind, no group, a label in two groups, or `mixed` for a multi-label target.
    """

    name: str
    source: str
    groups: Mapping[str, tuple[str, ...]]
    kind: str = SINGLE
    mixed: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(
                f"data.targets.{self.name}.kind={self.kind!r} is not a choice: single (one label per text) or multi "
                "(any number of them)."
            )
        if not self.groups:
            raise ConfigError(f"data.targets.{self.name}.groups is empty; name the labels of each group.")
        if self.mixed is not None and self.kind == MULTI:
            raise ConfigError(
                f"data.targets.{self.name}.mixed={self.mixed} is for single-label targets; a multi-label one has all "
                "groups of a text. Leave it out."
            )
        _refuse_shared_labels(self)

    def group_names(self) -> tuple[str, ...]:
        """The labels of this target in id order: the groups as they are given, and `mixed`."""
        extra = () if self.mixed is None or self.mixed in self.groups else (self.mixed,)
        return (*self.groups, *extra)

    def derive(self, labels: Sequence[str]) -> tuple[str, ...] | None:
        """What the labels of the source say of this target; None: nothing.

        Raises:
            DataError: a label belongs to no group.
        """
        found = tuple(sorted({self._group_of(label) for label in labels}))
        if self.kind == MULTI or len(found) == 1:
            return found
        return (self.mixed,) if found and self.mixed is not None else None

    def _group_of(self, label: str) -> str:
        for group, labels in self.groups.items():
            if label in labels:
                return group
        raise DataError(
            f"The label {label!r} of {self.source!r} belongs to no group of {self.name!r}. "
            f"Put it into one, old or new: data.targets.{self.name}.groups."
        )


Target = TargetColumn | DerivedTarget


def check_targets(targets: Sequence[Target]) -> None:
    """Refuse targets that contradict each other.

    Raises:
        ConfigError: no target, two of one name, or one that follows from a target that does not stand in a column.
    """
    if not targets:
        raise ConfigError(
            "data.targets is empty; name at least one column to learn, such as +data.targets.emotion.kind=multi."
        )
    names = [target.name for target in targets]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ConfigError(f"data.targets names {', '.join(repeated)} more than once; give each target its own name.")
    columns = {target.name: target for target in targets if isinstance(target, TargetColumn)}
    for target in targets:
        if isinstance(target, DerivedTarget):
            _check_source(target, columns)


def target_specs(targets: Sequence[Target], texts: Iterable[LabelledText]) -> tuple[TargetSpec, ...]:
    """The targets with their labels: as a names file or the groups have them in order, else those that occur, sorted.

    A label that occurs although no file and no group names it (the one that small classes are merged into) comes last.
    """
    occurring: dict[str, set[str]] = {target.name: set() for target in targets}
    for text in texts:
        for name, labels in text.targets.items():
            occurring[name].update(labels)
    return tuple(
        TargetSpec(target.name, target.kind, _ordered(_named(target), occurring[target.name])) for target in targets
    )


def truth(spec: TargetSpec, texts: Sequence[LabelledText]) -> NDArray[np.int64]:
    """What is known of one target.

    Returns:
        Single: label ids (N,), MISSING where the target is. Multi: 0 or 1 for each label, (N, L), rows of MISSING where
        the target is.
    """
    found = np.full((len(texts), len(spec.labels)) if spec.is_multi else len(texts), MISSING, dtype=np.int64)
    for row, text in enumerate(texts):
        labels = text.targets.get(spec.name)
        if labels is None:
            continue
        if spec.is_multi:
            found[row] = 0
            found[row, spec.labels.encode(labels)] = 1
        else:
            found[row] = spec.labels.id_of(labels[0])
    return found


def is_known(known: NDArray[np.int64]) -> NDArray[np.bool_]:
    """For which texts, (N,), an array of `truth` knows the target."""
    return (known if known.ndim == 1 else known[:, 0]) != MISSING


def label_counts(spec: TargetSpec, texts: Iterable[LabelledText]) -> tuple[int, ...]:
    """How many texts have each label, (L,)."""
    counts = Counter(label for text in texts for label in text.targets.get(spec.name, ()))
    return tuple(counts[name] for name in spec.labels.names)


def describe(text: LabelledText) -> str:
    """The labels of a text in words: "emotion: anger, joy; sentiment: mixed"; "-" where no label applies."""
    return "; ".join(f"{name}: {', '.join(labels) or '-'}" for name, labels in text.targets.items())


def read_label_names(path: Path) -> tuple[str, ...]:
    """The names of label ids: line n, from 0, of a text file names id n.

    Raises:
        DataError: the file cannot be read, is empty, or has a blank line before its end.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(
            f"There is no file of label names at {path}. It names label id n in its line n, from 0."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a file of label names: {error}.") from error
    names = tuple(line.strip() for line in text.rstrip().split("\n"))
    if names == ("",):
        raise DataError(f"{path} is empty; it must name label id n in its line n, from 0.")
    if "" in names:
        raise DataError(f"{path}, line {names.index('') + 1} is blank, but names label id {names.index('')}.")
    return names


def _refuse_repeats(target: str, file: str, names: Sequence[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ConfigError(
            f"{file or 'label_names'} of data.targets.{target} names {', '.join(repeated)} more than once; each label "
            "id needs a name of its own."
        )


def _refuse_shared_labels(target: DerivedTarget) -> None:
    group_of: dict[str, str] = {}
    for group, labels in target.groups.items():
        for label in labels:
            first = group_of.setdefault(label, group)
            if first != group:
                raise ConfigError(
                    f"data.targets.{target.name}.groups has {label!r} in both {first!r} and {group!r}; a label belongs "
                    "to one group."
                )


def _check_source(target: DerivedTarget, columns: Mapping[str, TargetColumn]) -> None:
    if target.source not in columns:
        raise ConfigError(
            f"data.targets.{target.name}.source={target.source} is no target that stands in a column; those are: "
            f"{', '.join(columns) or 'none'}."
        )
    known = columns[target.source].label_names
    if not known:
        return
    grouped = [label for labels in target.groups.values() for label in labels]
    if unknown := sorted(set(grouped) - set(known)):
        raise ConfigError(
            f"data.targets.{target.name}.groups has labels that {target.source!r} has not: {', '.join(unknown)}. "
            f"Known: {', '.join(known)}."
        )
    if left := [label for label in known if label not in grouped]:
        raise ConfigError(
            f"data.targets.{target.name}.groups lacks labels of {target.source!r}: {', '.join(left)}. "
            "Put each into a group, old or new."
        )


def _named(target: Target) -> tuple[str, ...]:
    return target.group_names() if isinstance(target, DerivedTarget) else target.label_names


def _ordered(named: Sequence[str], occurring: Iterable[str]) -> Labels:
    return Labels((*named, *sorted(set(occurring) - set(named))))
