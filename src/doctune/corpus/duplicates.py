"""Documents that are the same document, or nearly: they must never stand on both sides of a split.

Two texts are near-duplicates when the Jaccard similarity of their sets of word shingles reaches a threshold. Pairs are
proposed by MinHash (Broder 1997, "On the resemblance and containment of documents") with banding (Leskovec, Rajaraman
and Ullman, "Mining of Massive Datasets", section 3.4), then verified on the shingles themselves. The permutations are
those of datasketch (MIT licence).

Groups are the connected components of the verified pairs. They may chain: a is like b and b like c, but a is less like
c. Cutting such a chain would put one of its pairs on both sides of a split, so it is kept, and the threshold is bounded
instead. Among 46,000 different files of a Linux machine no member of a group was less than 0.63 similar to the group's
centre at a threshold of 0.8 (0.50 at 0.7, 0.31 at 0.6), and the largest group had 0.9 % of the files (2.9 %, 3.6 %); at
0.5 there were members with 0.12.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from doctune.errors import ConfigError

DEFAULT_THRESHOLD = 0.8
# Below it groups chain files together that have nothing in common.
MIN_THRESHOLD = 0.6
# A pair exactly at the threshold is proposed at least this often; pairs above it practically always.
_RECALL_AT_THRESHOLD = 0.999
# An estimate from P permutations has a standard deviation of sqrt(s * (1 - s) / P); lower ones are not verified.
_MARGIN_DEVIATIONS = 4.0
_SHINGLES_PER_UPDATE = 8192
_MAX_CACHED_SHINGLES = 4_000_000
_KNOWN_TOKENS = 1 << 17
# Scripts written without blanks: there each character is a token, or a whole sentence would be one.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_TOKEN = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
_MIX = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)

Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class NearPair:
    """Two different texts by their positions, `first < second`, and the Jaccard similarity of their shingles."""

    first: int
    second: int
    similarity: float


@dataclass(frozen=True)
class DuplicateGroups:
    """A group name for each text, in order.

    Attributes:
        exact: texts with the same name differ in nothing but whitespace.
        near: exact groups that are linked by near-duplicates have one name.
        pairs: the links, one fewer than a near group has exact groups; each exact group stands there with its first
            text.
    """

    exact: tuple[str, ...]
    near: tuple[str, ...]
    pairs: tuple[NearPair, ...]

    def only(self, places: Sequence[int]) -> DuplicateGroups:
        """The groups of the texts at `places`, in that order; a text may stand there twice.

        Links whose two texts are not both there are left out.
        """
        new_place = {place: new for new, place in reversed(list(enumerate(places)))}
        pairs = []
        for pair in self.pairs:
            if pair.first in new_place and pair.second in new_place:
                first, second = sorted((new_place[pair.first], new_place[pair.second]))
                pairs.append(NearPair(first, second, pair.similarity))
        pairs.sort(key=lambda pair: (pair.first, pair.second))
        exact, near = (tuple(names[place] for place in places) for names in (self.exact, self.near))
        return DuplicateGroups(exact, near, tuple(pairs))


def text_groups(texts: Iterable[str]) -> list[str]:
    """A group name for each text; texts that differ in nothing but whitespace share one."""
    return [hashlib.sha256(" ".join(text.split()).encode()).hexdigest()[:16] for text in texts]


def conflicting_groups(groups: Sequence[str], labels: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The groups whose documents carry more than one label, with those labels in sorted order."""
    found: dict[str, set[str]] = defaultdict(set)
    for group, label in zip(groups, labels, strict=True):
        found[group].add(label)
    return {group: tuple(sorted(names)) for group, names in sorted(found.items()) if len(names) > 1}


def duplicate_groups(
    texts: Sequence[str], *, threshold: float = DEFAULT_THRESHOLD, num_perm: int = 128, shingle_tokens: int = 5
) -> DuplicateGroups:
    """Exact and near-duplicate groups with the pairs that link them.

    Names are those of `text_groups`, that of a near group being the smallest of its members', so they depend on the
    texts alone, not on their order or number. Case and punctuation do not count in near-duplicates. A text with fewer
    words than one shingle has exact copies only.

    Args:
        texts: read one at a time, a near-duplicate several times; memory grows by 4 * `num_perm` bytes for each.
        threshold: the least Jaccard similarity of two near-duplicates, 0.6 to 1; 1 means exact copies only.
        num_perm: permutations of a signature; more make the proposals sharper, not the result.
        shingle_tokens: words in a shingle.

    Raises:
        ConfigError: the threshold is out of range.
    """
    if not MIN_THRESHOLD <= threshold <= 1:
        raise ConfigError(
            f"The similarity threshold of near-duplicates is {threshold}; use a number from {MIN_THRESHOLD} to 1, "
            "where 1 means exact copies only."
        )
    exact = text_groups(texts)
    if threshold == 1:
        return DuplicateGroups(tuple(exact), tuple(exact), ())
    # One text of each exact group, in the order of the names: so what follows does not depend on the order of `texts`.
    first_of = {name: place for place, name in reversed(list(enumerate(exact)))}
    names = sorted(first_of)
    places = [first_of[name] for name in names]
    links = _links(_ShingleSets(texts, places, shingle_tokens), threshold, num_perm)
    group_of = {names[member]: names[root] for member, root in enumerate(_roots(len(names), links))}
    pairs = [_placed(link, places) for link in links]
    pairs.sort(key=lambda pair: (pair.first, pair.second))
    return DuplicateGroups(tuple(exact), tuple(group_of[name] for name in exact), tuple(pairs))


def _placed(link: NearPair, places: Sequence[int]) -> NearPair:
    first, second = sorted((places[link.first], places[link.second]))
    return NearPair(first, second, link.similarity)


def similarity(first: str, second: str, *, shingle_tokens: int = 5) -> float:
    """The Jaccard similarity of the shingle sets of two texts, 0 to 1; 0 where a text has fewer words than one."""
    return _jaccard(shingles(first, shingle_tokens), shingles(second, shingle_tokens))


def shingles(text: str, shingle_tokens: int = 5) -> Hashes:
    """The set of runs of `shingle_tokens` words, as sorted 64-bit hashes; equal in every process and on every machine.

    Words are runs of letters, digits and underscores in lower case; in scripts without blanks each character is one.
    """
    words = _TOKEN.findall(text.lower())
    hashes = np.fromiter(map(_token_hash, words), np.uint64, len(words))
    runs = np.zeros(max(0, len(words) - shingle_tokens + 1), np.uint64)
    for place in range(shingle_tokens if len(runs) else 0):
        runs = (runs ^ (runs >> _HALF)) * _MIX + hashes[place : place + len(runs)]
    return np.unique(runs ^ (runs >> _HALF))


@lru_cache(maxsize=_KNOWN_TOKENS)
def _token_hash(token: str) -> int:
    """`hash` differs between processes; blake2b does not, and most tokens come again."""
    digest = hashlib.blake2b(token.encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), "little")


def _jaccard(first: Hashes, second: Hashes) -> float:
    common = len(np.intersect1d(first, second, assume_unique=True))
    return common / (len(first) + len(second) - common) if common else 0.0


class _ShingleSets(Sequence[Hashes]):
    """The shingles of some texts, made when asked for; a bounded number of recent ones is kept."""

    def __init__(self, texts: Sequence[str], places: Sequence[int], shingle_tokens: int) -> None:
        self._texts, self._places, self._shingle_tokens = texts, places, shingle_tokens
        self._kept: dict[int, Hashes] = {}
        self._num_kept = 0

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Hashes:  # type: ignore[override]  # slices are not needed
        if index not in self._kept:
            self._kept[index] = shingles(self._texts[self._places[index]], self._shingle_tokens)
            self._num_kept += len(self._kept[index])
            while self._num_kept > _MAX_CACHED_SHINGLES and len(self._kept) > 1:
                self._num_kept -= len(self._kept.pop(next(iter(self._kept))))
        return self._kept[index]


# --- proposing and verifying pairs -------------------------------------------------------------------------------


def _links(sets: _ShingleSets, threshold: float, num_perm: int) -> list[NearPair]:
    """A spanning forest of the graph of near-duplicates; positions are those in `sets`."""
    signatures, sizes = _signatures(sets, num_perm)
    bands = _band_keys(signatures, rows_per_band(threshold, num_perm))
    least = threshold - _MARGIN_DEVIATIONS * math.sqrt(threshold * (1 - threshold) / num_perm)
    forest = _Forest(len(sets))
    links = []
    for band in range(len(bands)):
        for bucket in _buckets(bands[band], sizes > 0):
            for first, others in _new_pairs(bucket, bands[:band], forest):
                likely = others[(signatures[others] == signatures[first]).mean(axis=1) >= least]
                for second in likely.tolist():
                    if forest.root[first] == forest.root[second]:
                        continue
                    found = _jaccard(sets[first], sets[second])
                    if found >= threshold:
                        forest.join(first, second)
                        links.append(NearPair(first, second, found))
    return links


def _signatures(sets: _ShingleSets, num_perm: int) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """MinHash signatures, shape (N, num_perm), and the sizes of the sets, shape (N,)."""
    from datasketch import MinHash

    permutations = MinHash(num_perm).permutations
    signatures = np.empty((len(sets), num_perm), np.uint32)
    sizes = np.zeros(len(sets), np.int64)
    for place, hashes in enumerate(sets):
        minhash = MinHash(num_perm, hashfunc=_itself, permutations=permutations, scheme="affine32")
        for start in range(0, len(hashes), _SHINGLES_PER_UPDATE):
            minhash.update_batch(hashes[start : start + _SHINGLES_PER_UPDATE].astype(np.uint32).tolist())
        signatures[place], sizes[place] = minhash.hashvalues, len(hashes)
    return signatures, sizes


def _itself(value: int) -> int:
    return value


def rows_per_band(threshold: float, num_perm: int) -> int:
    """The most rows with which a pair at the threshold still shares one of `num_perm // rows` bands in 999 of 1000."""
    return max(
        (rows for rows in range(1, num_perm + 1) if _chance(threshold, rows, num_perm) >= _RECALL_AT_THRESHOLD),
        default=1,
    )


def _chance(similarity: float, rows: int, num_perm: int) -> float:
    return 1 - (1 - similarity**rows) ** (num_perm // rows)


def _band_keys(signatures: NDArray[np.uint32], rows: int) -> Hashes:
    """A hash of each band of each signature, shape (bands, N); a collision only proposes a pair too many."""
    num_bands = signatures.shape[1] // rows
    keys = np.zeros((num_bands, len(signatures)), np.uint64)
    for band in range(num_bands):
        for row in range(band * rows, (band + 1) * rows):
            keys[band] = (keys[band] ^ (keys[band] >> _HALF)) * _MIX + signatures[:, row]
    return keys


def _buckets(keys: Hashes, is_in: NDArray[np.bool_]) -> Iterator[NDArray[np.int64]]:
    """The positions that share a key, at least two each, in ascending order."""
    members = np.flatnonzero(is_in)
    ordered = members[np.argsort(keys[members], kind="stable")]
    starts = np.flatnonzero(np.diff(keys[ordered])) + 1
    yield from (bucket for bucket in np.split(ordered, starts) if len(bucket) > 1)


def _new_pairs(
    bucket: NDArray[np.int64], earlier_bands: Hashes, forest: _Forest
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Each member with those after it that no earlier band has proposed and that are not linked to it already."""
    for place, first in enumerate(bucket[:-1].tolist()):
        others = bucket[place + 1 :]
        others = others[forest.root[others] != forest.root[first]]
        if len(others):
            others = others[~(earlier_bands[:, others] == earlier_bands[:, [first]]).any(axis=0)]
        if len(others):
            yield first, others


class _Forest:
    """Components that grow together; `root` of a member is the smallest member of its component."""

    def __init__(self, size: int) -> None:
        self.root = np.arange(size)
        self._members: dict[int, list[int]] = {}

    def join(self, first: int, second: int) -> None:
        small, large = sorted((int(self.root[first]), int(self.root[second])))
        moved = self._members.pop(large, [large])
        self.root[moved] = small
        self._members.setdefault(small, [small]).extend(moved)


def _roots(size: int, links: Iterable[NearPair]) -> list[int]:
    """The smallest member of the component of each of `size` members."""
    forest = _Forest(size)
    for link in links:
        forest.join(link.first, link.second)
    return [int(root) for root in forest.root]
