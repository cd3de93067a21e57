"""Every regular file once, nothing outside the roots, the same order everywhere."""

import pytest

from doctune.errors import DataError
from doctune.text.walk import walk_files


def test_hidden_and_lock_files_are_files_and_links_are_not_followed(tmp_path):
    outside = tmp_path / "outside"
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    outside.mkdir()
    (outside / "secret.txt").write_text("x")
    for name in ("b.txt", ".hidden", "~$lock.docx", "sub/a.txt"):
        (root / name).write_text("x")
    (root / "link.txt").symlink_to(outside / "secret.txt")
    (root / "loop").symlink_to(root)
    found = [path.relative_to(root).as_posix() for path in walk_files([root, root / "b.txt"])]
    assert found == [".hidden", "b.txt", "sub/a.txt", "~$lock.docx"]


def test_a_root_that_does_not_exist_is_a_mistake(tmp_path):
    with pytest.raises(DataError, match="does not exist; give files or folders that do"):
        list(walk_files([tmp_path / "nothing"]))
