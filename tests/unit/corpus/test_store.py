import os
import threading
from pathlib import Path

import pytest

from doctune.corpus.store import Entry, TextStore, prune
from doctune.documents import Document
from doctune.errors import ArtifactError


class Reader:
    """Reads files as text and remembers which."""

    def __init__(self, fail_after: int | None = None):
        self.read: list[str] = []
        self.fail_after = fail_after

    def __call__(self, paths):
        for path in paths:
            if self.fail_after is not None and len(self.read) == self.fail_after:
                raise KeyboardInterrupt
            self.read.append(path.name)
            text = path.read_text()
            yield Document(str(path), "ok" if text else "empty", "" if text else "nothing in it", "text", text)


def make(folder: Path, count: int) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"{number:03d}.txt" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_text(f"text {number}")
    return paths


def fill(cache: Path, paths, reader, key="k"):
    store = TextStore(cache, key)
    entries = store.fill(paths, reader)
    return store, entries


def test_texts_come_back_in_the_order_asked(tmp_path):
    paths = make(tmp_path / "files", 5)
    store, entries = fill(tmp_path / "cache", paths, Reader())
    assert list(store.texts([entry.content for entry in reversed(entries)])) == [f"text {n}" for n in (4, 3, 2, 1, 0)]


def test_a_second_start_reads_nothing(tmp_path):
    paths = make(tmp_path / "files", 5)
    _, first = fill(tmp_path / "cache", paths, Reader())
    reader = Reader()
    store, second = fill(tmp_path / "cache", paths, reader)
    assert reader.read == []
    assert second == first
    assert list(store.texts([entry.content for entry in second])) == [f"text {n}" for n in range(5)]


def test_a_renamed_file_is_not_read_again_and_a_changed_one_is(tmp_path):
    paths = make(tmp_path / "files", 3)
    fill(tmp_path / "cache", paths, Reader())
    moved = paths[0].rename(tmp_path / "moved.txt")
    paths[1].write_text("changed!")
    reader = Reader()
    fill(tmp_path / "cache", [moved, *paths[1:]], reader)
    assert reader.read == ["001.txt"]


def test_equal_contents_are_read_once(tmp_path):
    paths = make(tmp_path / "files", 3)
    paths[2].write_text("text 0")
    reader = Reader()
    _, entries = fill(tmp_path / "cache", paths, reader)
    assert len(reader.read) == 2
    assert entries[0] == entries[2]


def test_other_settings_have_other_texts(tmp_path):
    paths = make(tmp_path / "files", 2)
    fill(tmp_path / "cache", paths, Reader(), key="one")
    reader = Reader()
    fill(tmp_path / "cache", paths, reader, key="two")
    assert len(reader.read) == 2


def test_what_an_interrupted_run_has_read_is_not_read_again(tmp_path):
    paths = make(tmp_path / "files", 200)
    first = Reader(fail_after=150)
    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path / "cache", paths, first)
    second = Reader()
    store, entries = fill(tmp_path / "cache", paths, second)
    assert first.read + second.read == [path.name for path in paths]
    assert list(store.texts([entry.content for entry in entries])) == [f"text {n}" for n in range(200)]


def test_a_kill_while_sealing_leaves_the_same_store(tmp_path, monkeypatch):
    paths = make(tmp_path / "files", 20)
    fill(tmp_path / "whole", paths, Reader())
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path / "killed", paths, Reader())
    monkeypatch.undo()
    reader = Reader()
    fill(tmp_path / "killed", paths, reader)
    assert reader.read == []
    whole, killed = (sorted((tmp_path / name).glob("texts/*/part-*")) for name in ("whole", "killed"))
    assert [path.read_bytes() for path in killed] == [path.read_bytes() for path in whole]


def test_a_damaged_part_is_named_and_can_be_deleted(tmp_path):
    paths = make(tmp_path / "files", 3)
    store, _ = fill(tmp_path / "cache", paths, Reader())
    (part,) = store.folder.glob("part-*.arrow")
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(ArtifactError, match=r"part-\w+\.arrow is damaged .* Delete it: what it held is read again"):
        fill(tmp_path / "cache", paths, Reader())
    part.unlink()
    reader = Reader()
    fill(tmp_path / "cache", paths, reader)
    assert len(reader.read) == 3


def test_a_store_finds_what_another_process_has_read_since(tmp_path):
    paths = make(tmp_path / "files", 4)
    early, first = fill(tmp_path / "cache", paths[:2], Reader())
    kept = early.texts([entry.content for entry in first])
    _, rest = fill(tmp_path / "cache", paths[2:], Reader())
    contents = [entry.content for entry in (*rest, *first)]
    assert [*early.known(paths)] == [*first, *rest]
    assert [*early.texts(contents)] == ["text 2", "text 3", "text 0", "text 1"]
    assert [*kept] == ["text 0", "text 1"]
    assert len([*early.folder.glob("index-*")]) == 1


def test_what_the_store_knows_of_files(tmp_path):
    paths = make(tmp_path / "files", 3)
    paths[1].write_text("")
    store, entries = fill(tmp_path / "cache", paths[:2], Reader())
    gone = tmp_path / "files/gone.txt"
    assert [*store.known([*paths, gone, paths[0]])] == [
        *entries,
        None,
        Entry(None, "unreadable", "No such file or directory", ""),
        entries[0],
    ]
    assert [entry.status for entry in entries] == ["ok", "empty"]
    assert [*TextStore(tmp_path / "cache", "other").known(paths[:1])] == [None]


def test_what_the_store_has_not_read_has_no_text(tmp_path):
    store, entries = fill(tmp_path / "cache", make(tmp_path / "files", 2), Reader())
    unknown = "0" * 64
    with pytest.raises(KeyError, match=unknown):
        store.texts([entries[0].content, unknown])
    with pytest.raises(KeyError, match=unknown):
        TextStore(tmp_path / "cache", "other").texts([unknown])


@pytest.mark.parametrize("kept_bytes", [None, 0, 40])
def test_an_index_that_is_gone_or_cut_short_is_made_again(tmp_path, kept_bytes):
    _, entries = fill(tmp_path / "cache", make(tmp_path / "files", 2), Reader())
    (file,) = (tmp_path / "cache").rglob("index-*.bin")
    content = file.read_bytes()
    file.unlink()
    if kept_bytes is not None:
        file.write_bytes(content[:kept_bytes])
    store = TextStore(tmp_path / "cache", "k")
    assert [*store.texts([entry.content for entry in entries])] == ["text 0", "text 1"]


def test_texts_in_use_stay_when_the_cache_is_emptied(tmp_path):
    paths = make(tmp_path / "files", 2)
    store, entries = fill(tmp_path / "cache", paths, Reader())
    for file in store.folder.iterdir():
        file.unlink()
    assert [*store.texts([entry.content for entry in entries])] == ["text 0", "text 1"]
    assert [*store.known(paths)] == [None, None]


def test_entries_that_nobody_used_are_pruned(tmp_path):
    paths = make(tmp_path / "files", 2)
    old, _ = fill(tmp_path / "cache", paths, Reader(), key="old")
    new, _ = fill(tmp_path / "cache", paths, Reader(), key="new")
    os.utime(old.folder, (0, 0))
    assert prune(tmp_path / "cache", unused_days=30) == [old.folder]
    assert not old.folder.exists()
    assert new.folder.exists()


def test_two_runs_at_once_end_with_one_store(tmp_path):
    paths = make(tmp_path / "files", 50)
    readers = [Reader(), Reader()]
    results = []
    threads = [
        threading.Thread(target=lambda reader=reader: results.append(fill(tmp_path / "cache", paths, reader)[1]))
        for reader in readers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results[0] == results[1]
    assert sorted(readers[0].read + readers[1].read) == [path.name for path in paths]


def test_what_cannot_be_opened_is_unreadable_and_asked_again(tmp_path):
    paths = make(tmp_path / "files", 1)
    missing, pipe = tmp_path / "gone.txt", tmp_path / "pipe"
    os.mkfifo(pipe)
    _, entries = fill(tmp_path / "cache", [missing, pipe, *paths], Reader())
    assert entries[0] == Entry(None, "unreadable", "No such file or directory", "")
    assert entries[1] == Entry(None, "unreadable", "not a regular file", "")
    missing.write_text("back again")
    reader = Reader()
    _, entries = fill(tmp_path / "cache", [missing], reader)
    assert (entries[0].status, reader.read) == ("ok", ["gone.txt"])


def test_status_and_reason_are_kept(tmp_path):
    path = tmp_path / "empty.txt"
    path.write_text("")
    fill(tmp_path / "cache", [path], Reader())
    _, entries = fill(tmp_path / "cache", [path], Reader())
    assert (entries[0].status, entries[0].reason, entries[0].format) == ("empty", "nothing in it", "text")
