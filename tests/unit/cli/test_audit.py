import argparse
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from doctune.cli import audit as command
from doctune.errors import ConfigError, DataError
from doctune.text.vocabulary import learn_wordpiece

WORDS = [f"{first}{second}" for first in "bcdfghjklmnpqrstvwxz" for second in ("an", "elu", "iro", "osta", "um")]


def parse(*arguments) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args([str(argument) for argument in arguments])


def prose(seed, words=60):
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def write_clean(folder: Path) -> Path:
    for label in ("letter", "order"):
        (folder / label).mkdir(parents=True)
        for number in range(10):
            (folder / label / f"{number}.txt").write_text(prose(f"{label}{number}"))
    return folder


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> Path:
    return write_clean(tmp_path_factory.mktemp("clean") / "files")


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory) -> Path:
    """A folder per class with one of everything that an audit should find, and a split of it that leaks."""
    base = tmp_path_factory.mktemp("spoilt")
    root = write_clean(base / "files")
    for path in (root / "letter").iterdir():
        path.write_text(f"X-Category: letter\n{path.read_text()}")
    (root / "order/near.txt").write_text((root / "order/0.txt").read_text() + " changed")
    (root / "order/copy.txt").write_text((root / "order/1.txt").read_text())
    (root / "order/swapped.txt").write_text((root / "letter/2.txt").read_text())
    (root / "order/empty.txt").write_text("")
    (root / "order/broken.docx").write_bytes(b"PK\x03\x04 and no more")
    (root / "photo").mkdir()
    (root / "stray.txt").write_text("in no class")
    paths = sorted(str(path) for path in root.glob("*/*.txt") if path.stat().st_size)
    columns = {
        "id": [str(number) for number in range(len(paths))],
        "path": paths,
        "label": [Path(path).parent.name for path in paths],
        "part": ["val" if path.endswith("near.txt") else "train" for path in paths],
    }
    pq.write_table(pa.table(columns), base / "splits.parquet")
    return base


def test_everything_that_was_planted_is_found(spoilt, tmp_path, capsys):
    out = tmp_path / "audit.json"
    arguments = ["--splits", spoilt / "splits.parquet", "--json", out, "--html", tmp_path / "audit.html"]
    args = parse(spoilt / "files", *arguments, "--cache", tmp_path / "cache", "--strict")
    assert command.run(args) == 1
    report = json.loads(out.read_text())
    assert {finding["kind"]: finding["count"] for finding in report["findings"]} == {
        "leak_between_parts": 1,
        "same_content_two_labels": 1,
        "exact_duplicates": 2,
        "near_duplicates": 1,
        "give_aways": 1,
        "empty_classes": 1,
        "rejected_rows": 1,
        "damaged_files": 1,
        "empty_files": 1,
    }
    assert report["schema"] == 1
    assert (report["rows"], report["documents"], report["different"]) == (26, 23, 20)
    assert report["classes"]["photo"]["documents"] == 0
    assert report["root"] == str(spoilt / "files")
    output = capsys.readouterr()
    assert "\n  2 errors, 7 warnings\n" in output.out
    assert "order/0.txt (train) ~ order/near.txt (val)" in output.out
    assert output.out.endswith(f"wrote {out}\nwrote {tmp_path / 'audit.html'}\n")
    assert (tmp_path / "audit.html").read_text().count("<article") == 9


def test_a_clean_corpus_passes_and_is_read_once(clean, tmp_path, capsys):
    arguments = [clean, "--strict", "--cache", tmp_path]
    assert command.run(parse(*arguments)) == 0
    first = capsys.readouterr()
    assert "\n  nothing found\n" in first.out
    assert first.err == "doctune: reading 20 new files …\n"
    assert command.run(parse(*arguments)) == 0
    assert capsys.readouterr() == (first.out, "")


def test_findings_alone_do_not_fail_without_strict(clean, tmp_path):
    source = tmp_path / "m.csv"
    rows = [f"{path},{path.parent.name},1" for path in clean.glob("*/*.txt")]
    source.write_text("\n".join(["path,label,confidence", *rows, f"{clean}/gone.txt,letter,1", "low.txt,letter,0.1"]))
    arguments = [source, "--min-confidence", 0.5, "--json", tmp_path / "a.json", "--cache", tmp_path / "cache"]
    assert command.run(parse(*arguments)) == 0
    findings = json.loads((tmp_path / "a.json").read_text())["findings"]
    assert [(finding["kind"], finding["examples"]) for finding in findings] == [
        ("unreadable_files", [f"{clean}/gone.txt: No such file or directory"]),
        ("low_confidence", [f"{tmp_path}/low.txt: confidence 0.1 is below 0.5"]),
    ]


def test_a_place_that_cannot_be_written_is_refused(clean, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError) as refused:
        command.run(parse(clean, "--html", tmp_path / "file/audit.html", "--cache", tmp_path))
    assert str(refused.value).startswith(f"--html {tmp_path / 'file/audit.html'} cannot be written: ")


def test_notes_are_not_strict_findings(clean, tmp_path):
    arguments = [clean, "--strict", "--max-length", 20, "--json", tmp_path / "a.json", "--cache", tmp_path]
    assert command.run(parse(*arguments)) == 0
    assert [f["kind"] for f in json.loads((tmp_path / "a.json").read_text())["findings"]] == ["cut_documents"]


def test_a_tokenizer_counts_instead_of_the_estimate(clean, tmp_path):
    tokenizer = learn_wordpiece([" ".join(WORDS)] * 3, 500)
    tokenizer.enable_truncation(4)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    arguments = ["--tokenizer", tmp_path / "tokenizer.json", "--max-length", 61, "--json", tmp_path / "a.json"]
    assert command.run(parse(clean, *arguments, "--cache", tmp_path)) == 0
    lengths = json.loads((tmp_path / "a.json").read_text())["lengths"]
    assert lengths["counted_by"] == f"the tokenizer {tmp_path / 'tokenizer.json'}"
    assert (lengths["tokens"]["min"], lengths["tokens"]["max"]) == (60, 60)
    assert lengths["cut"] == 20  # 60 and two special tokens in a window of 61


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (["--max-length", 0], ConfigError, "--max-length is 0; use a number from 1."),
        (["--max-chars", -1], ConfigError, "--max-chars is -1; use a number from 1."),
        (["--min-confidence", 2], ConfigError, "--min-confidence is 2.0; use a number from 0 to 1."),
        (["--threshold", 0.2], ConfigError, "--threshold is 0.2; use a number from 0.6 to 1 (exact copies)."),
        (["--json", "."], ConfigError, "--json . is a folder; name a file in it, such as audit.json."),
        (["--tokenizer", "none.json"], ConfigError, "--tokenizer none.json cannot be read as a tokenizer.json: "),
        (["--splits", "none"], DataError, "--splits none: there is no such file; a run writes one to data/splits.par"),
        (["--splits", "text"], DataError, "--splits text cannot be read as Parquet: "),
        (["--splits", "poor"], DataError, "--splits poor has no column 'label'; it has: id, path."),
    ],
)
def test_mistakes_are_refused_before_any_file_is_read(clean, tmp_path, monkeypatch, arguments, kind, message):
    monkeypatch.chdir(tmp_path)
    Path("text").write_text("no parquet")
    pq.write_table(pa.table({"id": ["1"], "path": ["a"]}), "poor")
    with pytest.raises(kind) as refused:
        command.run(parse(clean, *arguments))
    assert str(refused.value).startswith(message)
    assert not Path(".doctune").exists()
