import json
import os

import pytest

from doctune.errors import ConfigError
from doctune.files import write_json, write_text, written_whole


def test_a_file_appears_only_when_the_block_ends_well(tmp_path):
    target = tmp_path / "made" / "file.txt"
    with pytest.raises(TypeError), written_whole(target) as temporary:
        temporary.write_text("half") + "no number"
    assert list(target.parent.iterdir()) == []


def test_a_folder_or_a_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for target in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ConfigError, match="is no regular file, so no finished file can take its place"):
            write_text(target, "a")


def test_a_link_keeps_being_one(tmp_path):
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "new"


def test_a_failed_write_leaves_the_old_file(tmp_path):
    target = tmp_path / "file.json"
    write_json(target, {"a": 1})
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(target, {"a": float("nan")})
    assert json.loads(target.read_text()) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["file.json"]


def test_text_is_utf8_with_unix_lines(tmp_path):
    write_text(tmp_path / "a.txt", "ä\nb")
    assert (tmp_path / "a.txt").read_bytes() == b"\xc3\xa4\nb"
