"""`doctune extract` writes one row per file and says what it did."""

import json

from doctune.cli.main import main


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_one_row_per_file_with_the_agreed_keys(tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.txt").write_text("Grüße", encoding="utf-8")
    (folder / "b.docx").write_bytes(b"PK\x03\x04 broken")
    out = tmp_path / "out" / "texts.jsonl"
    assert main(["extract", str(folder), "--out", str(out)]) == 0
    assert rows(out)[0] == {
        "path": str(folder / "a.txt"), "status": "ok", "reason": "", "format": "text", "chars": 5, "text": "Grüße",
    }  # fmt: skip
    assert (rows(out)[1]["status"], rows(out)[1]["chars"]) == ("damaged", 0)
    assert capsys.readouterr().out == f"2 files: 1 ok, 1 damaged\nwrote {out}\n"


def test_max_chars_bounds_the_text_and_all_does_not(tmp_path):
    (tmp_path / "long.txt").write_text("word " * 5000)
    for option, expected in (("7", 7), ("all", 24_999)):
        out = tmp_path / f"{option}.jsonl"
        assert main(["extract", str(tmp_path / "long.txt"), "--max-chars", option, "--out", str(out)]) == 0
        assert rows(out)[0]["chars"] == expected


def test_a_path_that_does_not_exist_is_a_mistake_and_writes_nothing(tmp_path, capsys):
    out = tmp_path / "x.jsonl"
    assert main(["extract", str(tmp_path / "nothing"), "--out", str(out)]) == 2
    assert "does not exist; give files or folders that do." in capsys.readouterr().err
    assert not out.exists()


def test_another_format_than_json_lines_is_refused(tmp_path, capsys):
    out = tmp_path / "x.csv"
    assert main(["extract", str(tmp_path), "--out", str(out)]) == 2
    assert capsys.readouterr().err == (
        f"doctune: --out {out}: JSON lines are written, one row per file; name it FILE.jsonl.\n"
    )
    assert not out.exists()


def test_names_that_are_no_unicode_are_kept(tmp_path):
    import os

    name = os.fsdecode(b"caf\xe9.txt")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_text("words")
    out = tmp_path / "x.jsonl"
    assert main(["extract", str(tmp_path / "in"), "--out", str(out)]) == 0
    assert rows(out)[0]["path"] == str(tmp_path / "in" / name)
    assert rows(out)[0]["status"] == "ok"
