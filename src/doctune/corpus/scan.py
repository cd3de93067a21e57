"""Folders -> labelled files: walks what is there, labels it, and says what became of every entry.

Only regular files are ever opened, and of those only the first 4 KiB. Links are not followed. The result depends on
what lies under the roots and on the seed, never on the order in which the operating system lists it.
"""

from __future__ import annotations

import csv
import fnmatch
import hashlib
import os
import stat
import sys
import sysconfig
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from doctune.corpus.labelling import CERTAIN, RuleTable, shipped_rules
from doctune.errors import ConfigError, DataError
from doctune.files import write_json, written_whole

LabelBy = Literal["rules", "folder", "suffix"]
LABEL_BY: tuple[str, ...] = get_args(LabelBy)
HEAD_BYTES = 4096
# Their regular files are the kernel's, not documents; reading some of them blocks or has effects.
KERNEL_FOLDERS = frozenset({"/proc", "/sys", "/dev"})
VERSION_CONTROL_FOLDERS = frozenset({".git", ".hg", ".svn", ".bzr"})
# Windows marks cloud placeholders as reparse points too; only these two lead elsewhere.
_LINK_TAGS = {getattr(stat, name, None) for name in ("IO_REPARSE_TAG_SYMLINK", "IO_REPARSE_TAG_MOUNT_POINT")} - {None}
# NONBLOCK and NOFOLLOW: a file that became a pipe or a link since it was listed must neither hang nor mislead.
_OPEN_FLAGS = os.O_RDONLY
for _flag in ("O_NONBLOCK", "O_NOFOLLOW", "O_NOCTTY", "O_CLOEXEC", "O_BINARY"):
    _OPEN_FLAGS |= getattr(os, _flag, 0)

Tick = Callable[[str], None]


@dataclass(frozen=True)
class Entry:
    """One thing under a root: `reason` is empty for a regular file, else why it is passed over.

    `relative` is the path below the root with forward slashes; `num_bytes` is 0 where the entry is passed over.
    """

    path: str
    relative: str
    num_bytes: int
    reason: str = ""


@dataclass(frozen=True)
class ScanOptions:
    """What is labelled how, and what is left out. None means no limit; sizes are in bytes, both ends included."""

    label_by: LabelBy = "rules"
    max_per_class: int | None = None
    min_per_class: int = 1
    min_bytes: int = 1
    max_bytes: int | None = None
    min_confidence: float = 0.0
    exclude: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()
    text_only: bool = False
    seed: int = 0


@dataclass(frozen=True)
class LabelledFile:
    """A line of the manifest; `path` is absolute."""

    path: str
    label: str
    confidence: float


@dataclass(frozen=True)
class ScanResult:
    """The files of a manifest in the order of their paths, and the counts of all that was passed over, by reason."""

    roots: tuple[str, ...]
    options: ScanOptions
    rules: RuleTable
    files: tuple[LabelledFile, ...]
    passed_over: dict[str, int] = field(default_factory=dict)
    dropped_classes: dict[str, int] = field(default_factory=dict)

    @property
    def label_counts(self) -> dict[str, int]:
        """Files per label, in the order of the labels."""
        return dict(sorted(Counter(file.label for file in self.files).items()))


@dataclass(frozen=True)
class _Candidate:
    """A file that has a label by its name or place; `order` is where the seed puts it within its class."""

    order: bytes
    path: str
    confidence: float


def scan(
    roots: Sequence[Path],
    options: ScanOptions,
    *,
    rules: RuleTable | None = None,
    outputs: Sequence[Path] = (),
    tick: Tick = lambda stage: None,
) -> ScanResult:
    """Label the files under `roots`; a root inside another one is walked once.

    Args:
        roots: existing folders.
        options: how to label and what to leave out.
        rules: the table for `label_by="rules"`; None is the shipped one.
        outputs: files that this scan is about to write, so that a second scan does not find the first one's.
        tick: called with "found" for every entry and "read" for every file opened.

    Raises:
        DataError: a root is no folder, or nothing under the roots can be labelled.
        ConfigError: an option is out of range.
    """
    _require_sound(options)
    table = rules or shipped_rules()
    passed_over: Counter[str] = Counter()
    classes = _collect(_distinct_folders(roots), options, table, _absolute(outputs), passed_over, tick)
    files, dropped = [], {}
    for label in sorted(classes):
        kept = _choose(label, classes[label], options, table, passed_over, tick)
        if len(kept) < options.min_per_class:
            dropped[label] = len(kept)
            passed_over["class_too_small"] += len(kept)
        else:
            files += kept
    shown = tuple(os.path.abspath(root) for root in roots)
    counts = {reason: count for reason, count in sorted(passed_over.items()) if count}
    if not files:
        raise DataError(_nothing_found(shown, options, counts))
    ordered = tuple(sorted(files, key=lambda file: file.path))
    return ScanResult(shown, options, table, ordered, counts, {k: v for k, v in dropped.items() if v})


def stats_path(manifest: Path) -> Path:
    """Where the statistics of a manifest stand: `<stem>_stats.json` beside it."""
    return manifest.with_name(f"{manifest.stem}_stats.json")


def write_manifest(result: ScanResult, manifest: Path) -> Path:
    """Write the manifest (path, label, confidence) and its statistics, each whole; gives the path of the latter."""
    with written_whole(manifest) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        plain = csv.writer(file, lineterminator="\n")
        # csv quotes a name with its own line end only; a lone carriage return (macOS has "Icon\r") would split the row
        quoted = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
        plain.writerow(("path", "label", "confidence"))
        for row in result.files:
            (quoted if "\r" in row.path else plain).writerow((row.path, row.label, row.confidence))
    write_json(stats_path(manifest), _stats(result, manifest))
    return stats_path(manifest)


def _stats(result: ScanResult, manifest: Path) -> dict[str, Any]:
    options = asdict(result.options)
    if result.options.label_by == "rules":
        options |= {"rules": result.rules.source, "rules_sha256": result.rules.sha256}
    return {
        "manifest": str(manifest),
        "roots": list(result.roots),
        "total": len(result.files),
        "labels": result.label_counts,
        "below_full_confidence": sum(file.confidence < CERTAIN for file in result.files),
        "passed_over": result.passed_over,
        "dropped_classes": result.dropped_classes,
        "options": options,
    }


# --- walking -----------------------------------------------------------------------------------------------------


def walk(
    root: Path | str,
    *,
    is_excluded: Callable[[str], bool] = lambda relative: False,
    seen_folders: set[tuple[int, int]] | None = None,
) -> Iterator[Entry]:
    """Every file under `root`, and every entry that is passed over, folder by folder in the order of their names.

    Args:
        root: a folder; a link to one is followed here, and nowhere below.
        is_excluded: told the relative path of a file or folder; a folder that is excluded is not entered.
        seen_folders: (device, inode) of folders walked before, which are passed over; kept up to date here. It also
            breaks the loops that bind mounts can make.
    """
    seen = set() if seen_folders is None else seen_folders
    pending = [(os.path.abspath(root), "")]
    while pending:
        folder, prefix = pending.pop()
        reason = _folder_reason(folder, seen)
        names, reason = _list_folder(folder) if not reason else ([], reason)
        if reason:
            yield Entry(folder, prefix.rstrip("/"), 0, reason)
        below = []
        for name in names:
            entry, is_folder = _inspect(os.path.join(folder, name), prefix + name, is_excluded)
            if is_folder:
                below.append((entry.path, f"{entry.relative}/"))
            else:
                yield entry
        pending.extend(reversed(below))


def _list_folder(folder: str) -> tuple[list[str], str]:
    try:
        with os.scandir(folder) as found:
            return sorted(entry.name for entry in found), ""
    except OSError:
        return [], "unreadable"


def _folder_reason(folder: str, seen: set[tuple[int, int]]) -> str:
    if folder in KERNEL_FOLDERS:
        return "kernel_filesystem"
    try:
        info = os.stat(folder)
    except OSError:
        return "unreadable"
    identity = (info.st_dev, info.st_ino)
    if identity in seen:
        return "folder_seen_before"
    seen.add(identity)
    return ""


def _inspect(path: str, relative: str, is_excluded: Callable[[str], bool]) -> tuple[Entry, bool]:
    """What an entry is, without opening it, and whether it is a folder to enter."""
    try:
        path.encode()
        info = os.lstat(path)
    except UnicodeEncodeError:
        return Entry(path, relative, 0, "undecodable_name"), False
    except OSError:
        return Entry(path, relative, 0, "unreadable"), False
    is_folder = stat.S_ISDIR(info.st_mode)
    reason = _kind_reason(info) or _name_reason(relative, is_folder, is_excluded)
    size = 0 if reason or is_folder else info.st_size
    return Entry(path, relative, size, reason), is_folder and not reason


def _kind_reason(info: os.stat_result) -> str:
    if stat.S_ISLNK(info.st_mode) or getattr(info, "st_reparse_tag", 0) in _LINK_TAGS:
        return "link"
    return "" if stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode) else "device_pipe_or_socket"


def _name_reason(relative: str, is_folder: bool, is_excluded: Callable[[str], bool]) -> str:
    if is_folder and relative.rpartition("/")[2] in VERSION_CONTROL_FOLDERS:
        return "version_control"
    return "excluded" if is_excluded(relative) else ""


def read_head(path: str) -> bytes:
    """The first 4 KiB of a regular file.

    Raises:
        OSError: it cannot be read, or is no regular file any more.
    """
    descriptor = os.open(path, _OPEN_FLAGS)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path} is no longer a regular file")
        return os.read(descriptor, HEAD_BYTES)
    finally:
        os.close(descriptor)


# --- choosing ----------------------------------------------------------------------------------------------------


def _collect(
    roots: Sequence[str],
    options: ScanOptions,
    rules: RuleTable,
    outputs: frozenset[str],
    passed_over: Counter[str],
    tick: Tick,
) -> dict[str, list[_Candidate]]:
    """The files of each class as far as names and sizes tell, under all roots."""
    classes: dict[str, list[_Candidate]] = defaultdict(list)
    seen: set[tuple[int, int]] = set()
    excluded = _excluder(options.exclude)
    for number, root in enumerate(roots):
        for entry in walk(root, is_excluded=excluded, seen_folders=seen):
            tick("found")
            reason = entry.reason or ("own_output" if entry.path in outputs else _size_reason(entry, options))
            label, confidence, unlabelled = _label(entry.relative, options, rules)
            reason = reason or unlabelled or ("label_left_out" if label in options.leave_out else "")
            if reason:
                passed_over[reason] += 1
            else:
                order = _order(options.seed, number, entry.relative)
                classes[label].append(_Candidate(order, entry.path, confidence))
    return classes


def _size_reason(entry: Entry, options: ScanOptions) -> str:
    if entry.num_bytes == 0:
        return "empty"
    if entry.num_bytes < options.min_bytes:
        return "too_small"
    if options.max_bytes is not None and entry.num_bytes > options.max_bytes:
        return "too_large"
    return ""


def _label(relative: str, options: ScanOptions, rules: RuleTable) -> tuple[str, float, str]:
    """The label, its confidence as far as the name tells, and the reason where there is no label."""
    if options.label_by == "folder":
        label, _, below = relative.partition("/")
        return (label, CERTAIN, "") if below else ("", 0.0, "outside_class_folder")
    name = relative.rpartition("/")[2]
    if options.label_by == "suffix":
        label = os.path.splitext(name)[1][1:].lower()
        return (label, CERTAIN, "") if label else ("", 0.0, "no_suffix")
    label, confidence = rules.label_of(name)
    return (label, confidence, "") if label else ("", 0.0, "no_rule")


def _order(seed: int, root: int, relative: str) -> bytes:
    """A place within the class that depends on the seed and the path below the root, so that moving it changes nothing.

    The root's number is part of it: else two roots with alike contents would put forward the same names.
    """
    return hashlib.blake2b(f"{seed}\0{root}\0{relative}".encode(errors="surrogatepass"), digest_size=8).digest()


def _choose(
    label: str,
    candidates: list[_Candidate],
    options: ScanOptions,
    rules: RuleTable,
    passed_over: Counter[str],
    tick: Tick,
) -> list[LabelledFile]:
    """Read heads in seeded order until the class is full; files beyond that are never opened."""
    kept: list[LabelledFile] = []
    for number, candidate in enumerate(sorted(candidates, key=lambda one: (one.order, one.path))):
        if options.max_per_class is not None and len(kept) == options.max_per_class:
            passed_over["above_class_cap"] += len(candidates) - number
            break
        tick("read")
        reason, confidence = _judge_content(label, candidate, options, rules)
        if reason:
            passed_over[reason] += 1
        else:
            kept.append(LabelledFile(candidate.path, label, confidence))
    return kept


def _judge_content(label: str, candidate: _Candidate, options: ScanOptions, rules: RuleTable) -> tuple[str, float]:
    try:
        head = read_head(candidate.path)
    except OSError:
        return "unreadable", 0.0
    if options.text_only and b"\0" in head:
        return "binary", 0.0
    by_content = rules.confidence_in_content(label, head) if options.label_by == "rules" else CERTAIN
    confidence = min(candidate.confidence, by_content)
    return ("low_confidence" if confidence < options.min_confidence else ""), confidence


def _excluder(patterns: Sequence[str]) -> Callable[[str], bool]:
    """A test of relative paths: a pattern fits the name of a file or folder, or the path below the root."""
    cleaned = [os.path.normcase(pattern).replace("\\", "/").strip("/") for pattern in patterns]

    def is_excluded(relative: str) -> bool:
        path = os.path.normcase(relative).replace("\\", "/")
        name = path.rpartition("/")[2]
        return any(fnmatch.fnmatchcase(path, one) or fnmatch.fnmatchcase(name, one) for one in cleaned)

    return is_excluded if cleaned else lambda relative: False


# --- what is asked for -------------------------------------------------------------------------------------------


def machine_roots() -> list[Path]:
    """The folders of this machine that hold text of many kinds and nobody's own files.

    That is the running Python (standard library, packages, headers), the Python packages of the system, and the
    system's documentation, headers and shared data. Never a home folder, unless the running Python lives in one.
    Other Pythons beside it are left out: their standard libraries are near-copies of this one's, which would stand on
    both sides of a split. Tested on Linux only; on macOS and Windows the same idea with the folders of those systems.
    """
    python = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib", "include")]
    python.append(os.path.join(sys.base_prefix, "share"))
    system = {
        "win32": [r"C:\Program Files\Git\usr\share", r"C:\Program Files\Git\mingw64\share"],
        "darwin": ["/usr/share", "/Library/Developer/CommandLineTools/usr", "/opt/homebrew/share", "/usr/local/share"],
    }.get(sys.platform, ["/usr/share", "/usr/include", "/usr/lib/python3/dist-packages", "/usr/local/include"])
    return [Path(folder) for folder in dict.fromkeys([*python, *system]) if folder and os.path.isdir(folder)]


def _distinct_folders(roots: Sequence[Path]) -> list[str]:
    """The roots as absolute paths, each checked to be a folder."""
    if not roots:
        raise ConfigError("Nothing to scan: name a folder, such as `doctune scan ~/documents`.")
    for root in roots:
        if not os.path.lexists(root):
            raise DataError(f"There is no folder {root}; `doctune scan` takes folders that exist.")
        if not os.path.isdir(root):
            raise DataError(f"{root} is not a folder; `doctune scan` takes folders, such as {Path(root).parent}.")
    return list(dict.fromkeys(os.path.abspath(root) for root in roots))


def _absolute(paths: Sequence[Path]) -> frozenset[str]:
    return frozenset(os.path.abspath(path) for path in paths)


def _require_sound(options: ScanOptions) -> None:
    if options.label_by not in LABEL_BY:
        raise ConfigError(f"--label-by is {options.label_by!r}; it is one of {', '.join(LABEL_BY)}.")
    for name, least in (("max_per_class", 1), ("max_bytes", 1), ("min_per_class", 0), ("min_bytes", 0)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise ConfigError(f"{_option(name)} is {value}; it must be {least} or more.")
    if not 0.0 <= options.min_confidence <= 1.0:
        raise ConfigError(f"--min-confidence is {options.min_confidence}; it lies between 0 and 1.")
    for low, high in (("min_per_class", "max_per_class"), ("min_bytes", "max_bytes")):
        least, most = getattr(options, low), getattr(options, high)
        if most is not None and least > most:
            raise ConfigError(f"{_option(low)} {least} is above {_option(high)} {most}; nothing could be kept.")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _nothing_found(roots: Sequence[str], options: ScanOptions, passed_over: dict[str, int]) -> str:
    where = ", ".join(roots)
    if not passed_over:
        return f"There are no files under {where}."
    reasons = ", ".join(f"{reason.replace('_', ' ')} {count}" for reason, count in passed_over.items())
    ways_on = {
        "rules": "See `doctune scan --print-rules`, or try --label-by suffix.",
        "folder": "With --label-by folder, files lie in one folder per class below ROOT.",
        "suffix": "With --label-by suffix, the part of the name after the last dot is the label.",
    }
    return f"Nothing under {where} can be used; passed over: {reasons}. {ways_on[options.label_by]}"
