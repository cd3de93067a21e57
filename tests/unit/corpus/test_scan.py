from __future__ import annotations

import csv
import json
import os
import random
import socket
from pathlib import Path

import pytest

from doctune.corpus import scan as scanning
from doctune.corpus.labelling import parse_rules
from doctune.corpus.scan import ScanOptions, machine_roots, scan, stats_path, walk, write_manifest
from doctune.errors import ConfigError, DataError

needs_posix = pytest.mark.skipif(os.name == "nt", reason="names and file kinds that Windows lacks")


def make(root: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def labels(result) -> dict[str, str]:
    root = result.roots[0]
    return {os.path.relpath(file.path, root).replace(os.sep, "/"): file.label for file in result.files}


def test_rules_label_files_in_all_folders(tmp_path):
    make(tmp_path, {"a.py": "x = 1", "b/c.css": "a {}", "b/d/e.md": "# E", "b/odd": "?"})
    result = scan([tmp_path], ScanOptions())
    assert labels(result) == {"a.py": "python_script", "b/c.css": "stylesheet", "b/d/e.md": "markdown"}
    assert result.passed_over == {"no_rule": 1}
    assert all(os.path.isabs(file.path) and file.confidence == 1.0 for file in result.files)


def test_folder_labels_are_the_first_folder_below_the_root(tmp_path):
    make(tmp_path, {"cats/a.py": "1", "cats/deep/b.css": "2", "dogs/c": "3", "loose.py": "4"})
    result = scan([tmp_path], ScanOptions(label_by="folder"))
    assert labels(result) == {"cats/a.py": "cats", "cats/deep/b.css": "cats", "dogs/c": "dogs"}
    assert result.passed_over == {"outside_class_folder": 1}


def test_suffix_labels_are_lower_case_and_without_the_dot(tmp_path):
    make(tmp_path, {"a.PY": "1", "b.tar.gz": "2", ".hidden": "3", "none": "4"})
    result = scan([tmp_path], ScanOptions(label_by="suffix"))
    assert labels(result) == {"a.PY": "py", "b.tar.gz": "gz"}
    assert result.passed_over == {"no_suffix": 2}


def test_content_that_contradicts_the_name_lowers_the_confidence(tmp_path):
    make(tmp_path, {"a.py": "#!/bin/sh\n", "b.json": "no", "c.py": "x = 1", "d.m": "x"})
    result = scan([tmp_path], ScanOptions())
    assert [file.confidence for file in result.files] == [0.5, 0.7, 1.0, 0.5]
    sure = scan([tmp_path], ScanOptions(min_confidence=0.85))
    assert (labels(sure), sure.passed_over) == ({"c.py": "python_script"}, {"low_confidence": 3})


def test_sizes_limit_and_empty_files_are_counted(tmp_path):
    make(tmp_path, {"a.py": "", "b.py": "1", "c.py": "12", "d.py": "123", "e.py": "1234"})
    result = scan([tmp_path], ScanOptions(min_bytes=2, max_bytes=3))
    assert list(labels(result)) == ["c.py", "d.py"]
    assert result.passed_over == {"empty": 1, "too_large": 1, "too_small": 1}


def test_text_only_passes_over_files_with_nul_bytes(tmp_path):
    make(tmp_path, {"a.py": b"x\0y", "b.py": b"x"})
    result = scan([tmp_path], ScanOptions(text_only=True))
    assert (list(labels(result)), result.passed_over) == (["b.py"], {"binary": 1})


def test_excluded_folders_are_not_entered(tmp_path):
    make(tmp_path, {"a.py": "1", "build/b.py": "1", "src/c.py": "1", "src/c_test.py": "1", "src/gen/d.py": "1"})
    result = scan([tmp_path], ScanOptions(exclude=("build", "*_test.py", "src/gen/")))
    assert list(labels(result)) == ["a.py", "src/c.py"]
    assert result.passed_over == {"excluded": 3}


def test_labels_can_be_left_out(tmp_path):
    make(tmp_path, {"a.py": "1", "b.txt": "1"})
    result = scan([tmp_path], ScanOptions(leave_out=("plain_text",)))
    assert (list(labels(result)), result.passed_over) == (["a.py"], {"label_left_out": 1})


def test_version_control_folders_are_passed_over(tmp_path):
    make(tmp_path, {"a.py": "1", ".git/config.cfg": "1"})
    assert scan([tmp_path], ScanOptions()).passed_over == {"version_control": 1}


def test_a_cap_chooses_by_seed_and_zero_is_a_seed(tmp_path):
    make(tmp_path, {f"{number}.py": "x" for number in range(40)})
    chosen = {seed: list(labels(scan([tmp_path], ScanOptions(max_per_class=5, seed=seed)))) for seed in (0, 0, 1, 2)}
    assert {len(names) for names in chosen.values()} == {5}
    assert chosen[0] == list(labels(scan([tmp_path], ScanOptions(max_per_class=5))))
    assert len({tuple(names) for names in chosen.values()}) == 3


def test_files_beyond_the_cap_are_counted_and_never_opened(tmp_path, monkeypatch):
    make(tmp_path, {f"{number}.py": "x" for number in range(40)})
    opened = []
    read = scanning.read_head
    monkeypatch.setattr(scanning, "read_head", lambda path: opened.append(path) or read(path))
    result = scan([tmp_path], ScanOptions(max_per_class=5))
    assert (len(opened), result.passed_over) == (5, {"above_class_cap": 35})


def test_a_moved_folder_gives_the_same_choice(tmp_path):
    for place in ("one", "two/deeper"):
        make(tmp_path / place, {f"{number}.py": "x" for number in range(40)})
    chosen = [labels(scan([tmp_path / place], ScanOptions(max_per_class=5))) for place in ("one", "two/deeper")]
    assert chosen[0] == chosen[1]


def test_small_classes_are_dropped_and_counted(tmp_path):
    make(tmp_path, {"a.py": "1", "b.py": "1", "c.css": "1"})
    result = scan([tmp_path], ScanOptions(min_per_class=2))
    assert result.label_counts == {"python_script": 2}
    assert (result.dropped_classes, result.passed_over) == ({"stylesheet": 1}, {"class_too_small": 1})


def test_the_result_does_not_depend_on_the_order_of_listing(tmp_path, monkeypatch):
    make(tmp_path, {f"{number % 7}/{number}.py": "x" for number in range(60)})
    options = ScanOptions(max_per_class=20, seed=3)
    expected = scan([tmp_path], options)
    listing = os.scandir

    class Shuffled:
        def __init__(self, path):
            with listing(path) as found:
                self.entries = random.sample(entries := list(found), len(entries))

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(os, "scandir", Shuffled)
    assert scan([tmp_path], options).files == expected.files


@needs_posix
def test_pipes_sockets_links_and_loops_are_counted_and_never_opened(tmp_path, monkeypatch):
    make(tmp_path, {"a.py": "x", "b/c.py": "x"})
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "b/loop").symlink_to(tmp_path)
    (tmp_path / "self.py").symlink_to(tmp_path / "self.py")
    (tmp_path / "link.py").symlink_to(tmp_path / "a.py")
    monkeypatch.chdir(tmp_path)  # a socket's path may have some 100 characters only
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s.py")
        result = scan([tmp_path], ScanOptions())
    assert list(labels(result)) == ["a.py", "b/c.py"]
    assert result.passed_over == {"device_pipe_or_socket": 2, "link": 3}


@needs_posix
def test_a_file_that_became_a_pipe_since_it_was_listed_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="no longer a regular file"):
        scanning.read_head(str(tmp_path / "pipe"))


def test_an_unreadable_folder_is_counted(tmp_path, monkeypatch):
    make(tmp_path, {"a.py": "x", "locked/b.py": "x"})
    listing = os.scandir

    def guarded(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return listing(path)

    monkeypatch.setattr(os, "scandir", guarded)
    result = scan([tmp_path], ScanOptions())
    assert (list(labels(result)), result.passed_over) == (["a.py"], {"unreadable": 1})


def test_an_unreadable_file_is_counted(tmp_path, monkeypatch):
    make(tmp_path, {"a.py": "x", "locked.py": "x"})
    opening = os.open

    def guarded(path, *rest, **named):
        if str(path).endswith("locked.py"):
            raise PermissionError(13, "Permission denied")
        return opening(path, *rest, **named)

    monkeypatch.setattr(os, "open", guarded)
    result = scan([tmp_path], ScanOptions())
    assert (list(labels(result)), result.passed_over) == (["a.py"], {"unreadable": 1})


def test_the_kernel_file_systems_are_not_walked(tmp_path, monkeypatch):
    make(tmp_path, {"a.py": "x", "proc/b.py": "x"})
    monkeypatch.setattr(scanning, "KERNEL_FOLDERS", frozenset({str(tmp_path / "proc")}))
    assert scan([tmp_path], ScanOptions()).passed_over == {"kernel_filesystem": 1}


def test_a_root_inside_another_is_walked_once(tmp_path):
    make(tmp_path, {"a.py": "x", "b/c.py": "x"})
    for roots in ([tmp_path, tmp_path / "b"], [tmp_path / "b", tmp_path], [tmp_path, tmp_path, tmp_path / "b"]):
        result = scan(roots, ScanOptions())
        assert [Path(file.path).name for file in result.files] == ["a.py", "c.py"]
        assert result.passed_over == {"folder_seen_before": 1}


@needs_posix
def test_names_of_every_kind_come_back_from_the_manifest(tmp_path):
    names = ["ü漢字🙂.py", "two\nlines.py", "carriage\rreturn.py", "a,b;c\t.py", 'quo"te.py', " lead.py", "'.py"]
    make(tmp_path / "root", dict.fromkeys(names, "x"))
    broken = os.fsencode(tmp_path / "root") + b"/bad\xff.py"
    Path(os.fsdecode(broken)).write_text("x")
    result = scan([tmp_path / "root"], ScanOptions())
    write_manifest(result, tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["path"] for row in rows} == {str(tmp_path / "root" / name) for name in names}
    assert result.passed_over == {"undecodable_name": 1}


def test_every_entry_is_either_kept_or_counted(tmp_path):
    suffixes = ("py", "css", "odd")
    make(tmp_path, {f"d{n % 5}/{n}.{suffixes[n % 3]}": "x" * (n % 4) for n in range(90)})
    result = scan([tmp_path], ScanOptions(max_per_class=8, min_bytes=2))
    assert len(result.files) + sum(result.passed_over.values()) == 90


def test_the_manifest_and_its_statistics_as_they_stand_on_disk(tmp_path):
    make(tmp_path / "root", {"a.py": "x", "b.json": "?", "c.odd": "x"})
    options = ScanOptions(exclude=("*.log",))
    stats = write_manifest(scan([tmp_path / "root"], options), tmp_path / "new/m.csv")
    root = tmp_path / "root"
    assert (tmp_path / "new/m.csv").read_text() == (
        f"path,label,confidence\n{root / 'a.py'},python_script,1.0\n{root / 'b.json'},json_data,0.7\n"
    )
    assert stats == stats_path(tmp_path / "new/m.csv") == tmp_path / "new/m_stats.json"
    written = json.loads(stats.read_text())
    assert len(written["options"].pop("rules_sha256")) == 64
    assert written == {
        "manifest": str(tmp_path / "new/m.csv"),
        "roots": [str(root)],
        "total": 2,
        "labels": {"json_data": 1, "python_script": 1},
        "below_full_confidence": 1,
        "passed_over": {"no_rule": 1},
        "dropped_classes": {},
        "options": {
            "label_by": "rules",
            "max_per_class": None,
            "min_per_class": 1,
            "min_bytes": 1,
            "max_bytes": None,
            "min_confidence": 0.0,
            "exclude": ["*.log"],
            "leave_out": [],
            "text_only": False,
            "seed": 0,
            "rules": "shipped",
        },
    }


def test_a_second_scan_does_not_find_the_first_ones_files(tmp_path):
    make(tmp_path, {"a.py": "x"})
    out = tmp_path / "m.csv"
    write_manifest(scan([tmp_path], ScanOptions()), out)
    first = out.read_text()
    again = scan([tmp_path], ScanOptions(), outputs=[out, stats_path(out)])
    write_manifest(again, out)
    assert out.read_text() == first
    assert again.passed_over == {"own_output": 2}


def test_an_edited_table_is_used(tmp_path):
    make(tmp_path, {"a.py": "x", "b.log": "x"})
    rules = parse_rules("rules: [{type: journal, suffixes: [.log]}]", "mine")
    assert labels(scan([tmp_path], ScanOptions(), rules=rules)) == {"b.log": "journal"}


def test_walking_reports_files_folder_by_folder_in_the_order_of_names(tmp_path):
    make(tmp_path, {"b/x": "12", "a/y/z": "1", "a/x": "", "c": "123"})
    assert [(entry.relative, entry.num_bytes) for entry in walk(tmp_path)] == [
        ("c", 3),
        ("a/x", 0),
        ("a/y/z", 1),
        ("b/x", 2),
    ]


def test_ticks_count_what_was_found_and_read(tmp_path):
    make(tmp_path, {"a.py": "x", "b.odd": "x"})
    stages = []
    scan([tmp_path], ScanOptions(), tick=stages.append)
    assert stages == ["found", "found", "read"]


def test_machine_roots_are_existing_folders_outside_the_home():
    roots = machine_roots()
    assert roots
    assert all(root.is_dir() for root in roots)
    assert Path.home() not in roots


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ScanOptions(max_per_class=0), "--max-per-class is 0; it must be 1 or more."),
        (ScanOptions(min_bytes=-1), "--min-bytes is -1; it must be 0 or more."),
        (ScanOptions(min_confidence=1.5), "--min-confidence is 1.5; it lies between 0 and 1."),
        (
            ScanOptions(min_bytes=9, max_bytes=3),
            "--min-bytes 9 is above --max-bytes 3; nothing could be kept.",
        ),
        (ScanOptions(label_by="name"), "--label-by is 'name'; it is one of rules, folder, suffix."),
    ],
)
def test_options_out_of_range_are_refused(tmp_path, options, message):
    with pytest.raises(ConfigError) as refused:
        scan([tmp_path], options)
    assert str(refused.value) == message


def test_no_root_is_refused():
    with pytest.raises(ConfigError, match=r"^Nothing to scan: name a folder, such as `doctune scan ~/documents`\.$"):
        scan([], ScanOptions())


def test_a_missing_root_is_refused(tmp_path):
    with pytest.raises(DataError) as refused:
        scan([tmp_path / "no"], ScanOptions())
    assert str(refused.value) == f"There is no folder {tmp_path / 'no'}; `doctune scan` takes folders that exist."


def test_a_root_that_is_a_file_is_refused(tmp_path):
    make(tmp_path, {"a.py": "x"})
    with pytest.raises(DataError) as refused:
        scan([tmp_path / "a.py"], ScanOptions())
    assert str(refused.value) == (
        f"{tmp_path / 'a.py'} is not a folder; `doctune scan` takes folders, such as {tmp_path}."
    )


def test_an_empty_root_is_refused(tmp_path):
    with pytest.raises(DataError) as refused:
        scan([tmp_path], ScanOptions())
    assert str(refused.value) == f"There are no files under {tmp_path}."


@pytest.mark.parametrize(
    ("label_by", "reason", "way_on"),
    [
        ("rules", "empty 1, no rule 1", "See `doctune scan --print-rules`, or try --label-by suffix."),
        (
            "folder",
            "empty 1, outside class folder 1",
            "With --label-by folder, files lie in one folder per class below ROOT.",
        ),
        (
            "suffix",
            "empty 1, no suffix 1",
            "With --label-by suffix, the part of the name after the last dot is the label.",
        ),
    ],
)
def test_finding_nothing_usable_says_why(tmp_path, label_by, reason, way_on):
    make(tmp_path, {"a.py": "", "b": "x"})
    with pytest.raises(DataError) as refused:
        scan([tmp_path], ScanOptions(label_by=label_by))
    assert str(refused.value) == f"Nothing under {tmp_path} can be used; passed over: {reason}. {way_on}"
