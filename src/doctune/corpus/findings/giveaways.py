"""What alone gives a label away: names, paths, dated lines, keys, lines and words of one class."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from doctune.corpus.duplicates import DuplicateGroups, conflicting_groups
from doctune.corpus.findings.record import Finding, LabelledText, counted, printable

# A feature that nearly all documents of a class have and almost none elsewhere.
_SHARE_INSIDE, _SHARE_ELSEWHERE = 0.95, 0.01
# With fewer documents, inside or elsewhere, such shares come by chance. More than enough are sampled, for speed.
_MIN_VOTERS, _MAX_VOTERS = 8, 400
# A class with so many other telling features is a format of its own, and does not hang on one header.
_OTHER_FEATURES_OF_A_FORMAT = 5
_LABELS_SHOWN, _FEATURES_PER_LABEL = 20, 3
_READ_CHARS, _HEAD_LINES, _HEAD_LINE_CHARS = 4000, 5, 120
_TAG = re.compile(r"<[^<>]*>")
_WORD = re.compile(r"\w{2,40}")
_DATE = re.compile(
    r"\b(?:19|20)\d\d[-/.]\d{1,2}[-/.]\d{1,2}|\b\d{1,2}[-/.]\d{1,2}[-/.](?:19|20)\d\d\b"
    r"|\b(?:\d{1,2}\.? )?(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.? (?:\d{1,2}, )?(?:19|20)\d\d\b",
    re.IGNORECASE,
)
_TIME = re.compile(r"\b\d{1,2}:\d\d(?::\d\d)?\b")
_DIGITS = re.compile(r"\d+")
_KEY = re.compile(r"^[^\w]{0,4}([a-z][\w -]{1,30}?)\s?[:=]\s", re.IGNORECASE)
_PATH = re.compile(
    r"(?:(?<=file://)|(?<![\w.:/~<*$}\\-]))((?:/[\w.@+-]+)+)/|\b([a-z]:(?:\\[\w.@+ -]+)+)\\", re.IGNORECASE
)
# Paths that programs and settings name because of what they are, not because of where they were gathered.
_SYSTEM_FOLDERS = frozenset("bin boot dev etc lib lib64 proc run sbin sys usr windows".split())  # noqa: SIM905
_FEATURE_WORDS = {
    "name": "its own name at the beginning",
    "path": "the path {}",
    "date": "a dated line {}",
    "key": "a line {}:",
    "line": "the line {}",
    "word": "the word {}",
}


@dataclass(frozen=True)
class GiveAway:
    """A feature of one label: `kind` is name, path, date, key, line or word; shares are of different documents."""

    label: str
    kind: str
    value: str
    share_inside: float
    share_elsewhere: float
    num_inside: int

    def line(self) -> str:
        """The feature in words, with its shares."""
        words = _FEATURE_WORDS[self.kind].format(f"“{self.value}”")
        return (
            f"{self.label}: {words} in {self.share_inside:.0%} of {self.num_inside:,} documents, "
            f"elsewhere in {self.share_elsewhere:.1%}"
        )


_Feature = tuple[str, str]


def give_away_findings(
    documents: Sequence[LabelledText], texts: Sequence[str], groups: DuplicateGroups
) -> list[Finding]:
    """What alone tells a label, apart by whether it looks like a trace of how the data was gathered.

    The label's own name at the beginning of its texts and folders of a person's machine always do; dated lines do
    where the class has little else that tells it. What is left may well be what the class is about.
    """
    strong, telling = [], []
    for found in give_aways(documents, texts, groups).values():
        suspicious = [feature for feature in found if _is_trace(feature, found)]
        strong += list(enumerate(suspicious[:_FEATURES_PER_LABEL]))
        explained = set().union(*(_words_of(feature) for feature in suspicious))
        others = [feature for feature in found if not _words_of(feature) <= explained]
        telling += list(enumerate(others[:_FEATURES_PER_LABEL]))
    return [*_strong_findings(_first_of_each(strong)), *_telling_findings(_first_of_each(telling))]


def _first_of_each(ranked: Sequence[tuple[int, GiveAway]]) -> list[GiveAway]:
    """The first feature of every label, then the second ones, so that the examples show many labels."""
    return [feature for _, feature in sorted(ranked, key=lambda pair: (pair[0], pair[1].label))]


def _strong_findings(found: Sequence[GiveAway]) -> Iterator[Finding]:
    if found:
        num_labels = len({feature.label for feature in found})
        yield Finding(
            "give_aways",
            "warning",
            f"{counted(num_labels, 'label')} given away by something that looks like a trace of how the data was "
            "gathered. A model will learn that instead of the documents, and fail where it is missing. Remove it from "
            "the texts, unless new documents are sure to have it too.",
            num_labels,
            tuple(printable(feature.line()) for feature in found[:_LABELS_SHOWN]),
        )


def _telling_findings(found: Sequence[GiveAway]) -> Iterator[Finding]:
    if found:
        num_labels = len({feature.label for feature in found})
        yield Finding(
            "telling_features",
            "info",
            f"{counted(num_labels, 'label')} told by single words or lines. That is as it should be where they belong "
            "to the class, as `#include` does to C. Look whether any of them comes from how the data was gathered.",
            num_labels,
            tuple(printable(feature.line()) for feature in found[:_LABELS_SHOWN]),
        )


def _is_trace(feature: GiveAway, found: Sequence[GiveAway]) -> bool:
    own = _words_of(feature)
    if feature.kind in ("name", "path"):
        return True
    if feature.kind == "line":  # the line that the name stands in, if it is always the same one
        return any(other.kind == "name" and _words_of(other) <= own for other in found)
    independent = sum(own.isdisjoint(_words_of(other)) for other in found)
    return feature.kind == "date" and independent < _OTHER_FEATURES_OF_A_FORMAT


def _words_of(feature: GiveAway) -> set[str]:
    return set(_WORD.findall(feature.value.lower().replace("_", " ")))


def give_aways(
    documents: Sequence[LabelledText], texts: Sequence[str], groups: DuplicateGroups
) -> dict[str, list[GiveAway]]:
    """The features of each label that 95 % of its different documents have and at most 1 % elsewhere.

    Near-copies count once, groups under two labels not at all. The most suspicious come first: names, paths, dated
    lines, keys, then lines and words; among equals the ones with the larger difference in share.
    """
    voters = _voters(documents, groups)
    names = {" ".join(_WORD.findall(label.lower().replace("_", " "))): label for label in voters}
    frequent = {
        label: _frequent_features((_features(texts[p], names) for p in places), len(places))
        for label, places in voters.items()
        if len(places) >= _MIN_VOTERS
    }
    wanted = set().union(*frequent.values())
    everywhere: Counter[_Feature] = Counter()
    for places in voters.values() if wanted else ():
        for place in places:
            everywhere.update(wanted & _features(texts[place], names))
    total = sum(map(len, voters.values()))
    found = {}
    for label, counts in frequent.items():
        inside, outside = len(voters[label]), total - len(voters[label])
        if outside >= _MIN_VOTERS:
            features = (
                GiveAway(label, kind, value, count / inside, (everywhere[kind, value] - count) / outside, inside)
                for (kind, value), count in counts.items()
                if kind != "name" or value == label
            )
            found[label] = _ranked(f for f in features if f.share_elsewhere <= _SHARE_ELSEWHERE)
    return {label: features for label, features in sorted(found.items()) if features}


def _voters(documents: Sequence[LabelledText], groups: DuplicateGroups) -> dict[str, list[int]]:
    """The documents that are looked at, by label: one per group, the groups with the smallest names."""
    conflicts = conflicting_groups(groups.near, [document.label for document in documents])
    first: dict[str, int] = {}
    for place, name in enumerate(groups.near):
        if name not in conflicts:
            first.setdefault(name, place)
    voters: dict[str, list[int]] = defaultdict(list)
    for name in sorted(first):
        label = documents[first[name]].label
        if len(voters[label]) < _MAX_VOTERS:
            voters[label].append(first[name])
    return voters


def _frequent_features(found: Iterable[set[_Feature]], size: int) -> Counter[_Feature]:
    """The features that at least 95 % of `size` documents have, with how many have them.

    A feature that more documents than the rest have lacked so far is dropped at once, so few are counted.
    """
    may_lack = math.floor((1 - _SHARE_INSIDE) * size + 1e-9)
    counts: Counter[_Feature] = Counter()
    for number, features in enumerate(found):
        counts.update(features if number <= may_lack else features & counts.keys())
        if number >= may_lack:
            counts = Counter({feature: n for feature, n in counts.items() if number + 1 - n <= may_lack})
    return counts


def _features(text: str, names: Mapping[str, str]) -> set[_Feature]:
    """What might give a label away in one text; `names` are the labels by their words."""
    text = text[:_READ_CHARS]
    head = list(islice((line.strip() for line in text.splitlines() if line.strip()), _HEAD_LINES))
    found: set[_Feature] = {("word", word) for word in _WORD.findall(text.lower())}
    # In markup such as <svg> or <!DOCTYPE html> a name belongs to the format.
    plain = " ".join(_WORD.findall(_TAG.sub(" ", "\n".join(head)).lower().replace("_", " ")))
    found.update(("name", label) for name, label in names.items() if f" {name} " in f" {plain} ")
    found.update(("path", folder) for folder in _folders(text))
    for line in head:
        found.update(_line_features(line[:_HEAD_LINE_CHARS]))
    return found


def _folders(text: str) -> Iterator[str]:
    """Folders two deep and more that a text names, without those that every system has."""
    for match in _PATH.finditer(text):
        sign = "/" if match[1] else "\\"
        steps = (match[1] or match[2]).split(sign)
        if len(steps) > 2 and steps[1].lower() not in _SYSTEM_FOLDERS:
            yield from (sign.join(steps[:depth]) for depth in range(3, len(steps) + 1))


def _line_features(line: str) -> Iterator[_Feature]:
    """A line of the head with its numbers taken out, and the key before a colon."""
    dated = _TIME.sub("TIME", _DATE.sub("DATE", line))
    bare = _DIGITS.sub("0", dated)
    if dated != line:
        yield "date", bare
    elif len(bare) >= 4:
        yield "line", bare
    if key := _KEY.match(line):
        yield "key", key[1]


def _ranked(features: Iterable[GiveAway]) -> list[GiveAway]:
    kinds, found = list(_FEATURE_WORDS), list(features)
    folders = [feature.value for feature in found if feature.kind == "path"]
    # Of nested folders the deepest says most.
    shown = [
        f for f in found if f.kind != "path" or not any(g.startswith((f"{f.value}/", f"{f.value}\\")) for g in folders)
    ]
    return sorted(shown, key=lambda f: (kinds.index(f.kind), f.share_elsewhere - f.share_inside, f.value))
