"""Texts that occur more than once: exact and near copies, under two labels, or on both sides of a split."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

from doctune.corpus.account import AccountRow
from doctune.corpus.duplicates import DuplicateGroups, NearPair, conflicting_groups
from doctune.corpus.findings.record import (
    Finding,
    LabelledText,
    Severity,
    SplitRow,
    counted,
    examples,
    places_by_name,
)
from doctune.corpus.splits import PARTS, leaking_groups

# From this share of the documents on, copies are worth acting on; below it worth knowing.
_MANY_COPIES = 0.01


def duplicate_findings(documents: Sequence[LabelledText], groups: DuplicateGroups) -> list[Finding]:
    """Exact copies, and near-copies that are not exact ones."""
    return [*_exact_findings(documents, groups), *_near_findings(documents, groups)]


def _exact_findings(documents: Sequence[LabelledText], groups: DuplicateGroups) -> Iterator[Finding]:
    repeated = sorted(
        (places for places in places_by_name(groups.exact).values() if len(places) > 1), key=_largest_first
    )
    copies = sum(len(places) - 1 for places in repeated)
    if copies:
        yield Finding(
            "exact_duplicates",
            _copies_severity(copies, documents),
            f"{counted(copies, 'document is an exact copy', 'documents are exact copies')} of another "
            f"({counted(len(repeated), 'text')} more than once). A copy counts twice in training and in every score, "
            "and makes its class look larger than it is. Keep one of each; splits hold copies together in any case.",
            copies,
            examples(_group_line([documents[place].path for place in places], "=") for places in repeated),
        )


def _near_findings(documents: Sequence[LabelledText], groups: DuplicateGroups) -> Iterator[Finding]:
    linked = sorted(_links_by_group(groups).values(), key=lambda links: (-len(links), links[0].first))
    if linked:
        copies = len(groups.pairs)
        yield Finding(
            "near_duplicates",
            _copies_severity(copies, documents),
            f"{counted(copies, 'text is a near-copy', 'texts are near-copies')} of another, in "
            f"{counted(len(linked), 'group')}. They add little to training, and on both sides of a split they would "
            "make scores look better than they are. Splits hold them together; keep one of each where they are the "
            "same document.",
            copies,
            examples(
                f"{documents[best.first].path} ~ {documents[best.second].path} ({best.similarity:.2f})"
                + (f", {len(links) - 1:,} more in the group" if len(links) > 1 else "")
                for links in linked
                for best in [max(links, key=lambda link: link.similarity)]
            ),
        )


def _copies_severity(copies: int, documents: Sequence[LabelledText]) -> Severity:
    return "warning" if copies >= _MANY_COPIES * len(documents) else "info"


def _largest_first(places: Sequence[int]) -> tuple[int, int]:
    return -len(places), places[0]


def _links_by_group(groups: DuplicateGroups) -> dict[str, list[NearPair]]:
    links: dict[str, list[NearPair]] = defaultdict(list)
    for pair in groups.pairs:
        links[groups.near[pair.first]].append(pair)
    return links


def _group_line(shown: Sequence[str], sign: str) -> str:
    more = f" {sign} {len(shown) - 2:,} more" if len(shown) > 2 else ""
    return f"{shown[0]} {sign} {shown[1]}{more}"


# --- the same under two names ------------------------------------------------------------------------------------


def label_conflict_findings(
    documents: Sequence[LabelledText], groups: DuplicateGroups, left_out: Sequence[AccountRow] = ()
) -> list[Finding]:
    """One path, one text, or one near-copy under two labels."""
    return [
        *_path_conflicts(left_out),
        *_exact_conflicts(documents, groups),
        *_near_conflicts(documents, groups),
    ]


def _path_conflicts(left_out: Sequence[AccountRow]) -> Iterator[Finding]:
    """A manifest rejects all rows of such a path, so they stand among what was left out."""
    labels: dict[str, set[str]] = defaultdict(set)
    for row in left_out:
        if row.status == "rejected" and row.label:
            labels[row.path].add(row.label)
    found = {path: sorted(names) for path, names in sorted(labels.items()) if len(names) > 1}
    if found:
        yield Finding(
            "path_under_two_labels",
            "error",
            f"{counted(len(found), 'path')} under two labels. Any of them may be wrong, so none of these rows is "
            "used. Decide for one label each.",
            len(found),
            examples(f"{path}: {', '.join(names)}" for path, names in found.items()),
        )


def _exact_conflicts(documents: Sequence[LabelledText], groups: DuplicateGroups) -> Iterator[Finding]:
    labels = [document.label for document in documents]
    conflicts = conflicting_groups(groups.exact, labels)
    if conflicts:
        places = places_by_name(groups.exact)
        yield Finding(
            "same_content_two_labels",
            "error",
            f"{counted(len(conflicts), 'text')} under two labels. No model can be right about both, and whichever is "
            "wrong teaches an error. Decide for one label each; until then they stay out of validation and test.",
            len(conflicts),
            examples(
                " = ".join(f"{documents[place].path} ({labels[place]})" for place in _one_per(labels, places[name]))
                for name in conflicts
            ),
        )


def _near_conflicts(documents: Sequence[LabelledText], groups: DuplicateGroups) -> Iterator[Finding]:
    labels = defaultdict(set)
    for document, name in zip(documents, groups.exact, strict=True):
        labels[name].add(document.label)
    crossing = [p for p in groups.pairs if labels[groups.exact[p.first]] != labels[groups.exact[p.second]]]
    if crossing:
        crossing.sort(key=lambda pair: (-pair.similarity, pair.first, pair.second))
        yield Finding(
            "near_duplicates_two_labels",
            "warning",
            f"{counted(len(crossing), 'pair')} of near-copies under two labels. Either one label is wrong, or the "
            "labels hang on the few words in which the texts differ. Look at them; splits hold them together.",
            len(crossing),
            examples(_label_line(documents, pair) for pair in crossing),
        )


def _one_per(names: Sequence[str], places: Iterable[int]) -> list[int]:
    """The first of `places` that has each name, in the order of the names."""
    first: dict[str, int] = {}
    for place in places:
        if names[place]:
            first.setdefault(names[place], place)
    return [first[name] for name in sorted(first)]


def _label_line(documents: Sequence[LabelledText], pair: NearPair) -> str:
    first, second = documents[pair.first], documents[pair.second]
    return f"{first.path} ({first.label}) ~ {second.path} ({second.label}), {pair.similarity:.2f}"


# --- parts -------------------------------------------------------------------------------------------------------


def leak_findings(
    documents: Sequence[LabelledText], groups: DuplicateGroups, splits: Sequence[SplitRow] = ()
) -> list[Finding]:
    """Groups of copies on both sides of a split: the documents' own parts, or those (and folds) of given splits."""
    rows = _rows_of(documents, splits)
    parts = [row.part if row else "" for row in rows] if splits else [document.part for document in documents]
    folds = [f"fold {row.fold}" if row and row.fold is not None else "" for row in rows]
    return [
        *_leaks("leak_between_parts", "parts", documents, groups, [part if part in PARTS else "" for part in parts]),
        *_leaks("leak_between_folds", "folds", documents, groups, folds),
    ]


def _leaks(
    kind: str, noun: str, documents: Sequence[LabelledText], groups: DuplicateGroups, sides: Sequence[str]
) -> Iterator[Finding]:
    """The groups on more than one side; documents on no side ("") leak nothing."""
    placed = [place for place, side in enumerate(sides) if side]
    found = leaking_groups([groups.near[place] for place in placed], [sides[place] for place in placed])
    if found:
        members = places_by_name(groups.near)
        yield Finding(
            kind,
            "error",
            f"{counted(len(found), 'group')} of copies or near-copies in more than one of the {noun}. What is "
            "learnt on one side is recognised on the other, so that scores say nothing about new documents. Make "
            "splits that hold each group together, as doctune does by itself.",
            len(found),
            examples(
                " ~ ".join(f"{documents[place].path} ({sides[place]})" for place in _one_per(sides, members[name]))
                for name in found
            ),
        )


def split_findings(documents: Sequence[LabelledText], splits: Sequence[SplitRow]) -> list[Finding]:
    """What is wrong with given splits, leaks aside: rows twice, rows of other documents, documents without a row."""
    if not splits:
        return []
    rows = _rows_of(documents, splits)
    known = {id(row) for row in rows}
    others = [
        f"{document.path}: {row.label} in the splits, {document.label} here"
        for document, row in zip(documents, rows, strict=True)
        if row and row.label != document.label
    ]
    unknown = [row.path for row in splits if id(row) not in known]
    missing = [document.path for document, row in zip(documents, rows, strict=True) if not row]
    other_data = "They were made for other data, or for files that have changed since; make them anew."
    found = [
        _split_finding("split_repeats", "error", _repeats(splits), "twice in the splits. Make them anew."),
        _split_finding("split_unknown", "error", unknown, f"in the splits and not among the usable ones. {other_data}"),
        _split_finding("split_other_labels", "error", others, f"labelled differently in the splits. {other_data}"),
        _split_finding("split_missing", "warning", missing, "not in the splits. A run with them leaves these out."),
    ]
    return [finding for finding in found if finding.count]


def _rows_of(documents: Sequence[LabelledText], splits: Sequence[SplitRow]) -> list[SplitRow | None]:
    """The row of each document: by its id, which stays when a file moves, else by its path."""
    by_id, by_path = {row.id: row for row in splits}, {row.path: row for row in splits}
    return [by_id.get(document.id) or by_path.get(document.path) for document in documents]


def _repeats(splits: Sequence[SplitRow]) -> list[str]:
    ids, paths = Counter(row.id for row in splits), Counter(row.path for row in splits)
    return sorted({row.path for row in splits if ids[row.id] > 1 or paths[row.path] > 1})


def _split_finding(kind: str, severity: Severity, found: Sequence[str], message: str) -> Finding:
    sentence = f"{counted(len(found), 'document')} {message}"
    return Finding(kind, severity, sentence, len(found), examples(sorted(found)))
