from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

import pytest

from doctune.cli import scan as command
from doctune.corpus import scan as scanning
from doctune.corpus.labelling import shipped_rules_text
from doctune.errors import ConfigError, DataError


def parse(*arguments) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args([str(argument) for argument in arguments])


@pytest.fixture
def documents(tmp_path) -> Path:
    root = tmp_path / "documents"
    root.mkdir()
    for name, text in {"a.py": "x", "b.py": "y", "c.css": "a {}", "d.odd": "?", "e.py": ""}.items():
        (root / name).write_text(text)
    return root


def test_it_says_what_it_wrote_and_what_to_type_next(documents, tmp_path, capsys):
    out = tmp_path / "my manifests/m.csv"
    assert command.run(parse(documents, "--out", out)) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out == (
        "3 files in 2 classes\n"
        "\n"
        "  python_script          2\n"
        "  stylesheet             1\n"
        "\n"
        "passed over:\n"
        "  empty            1\n"
        "  no rule          1\n"
        "\n"
        f"manifest:   {out}\n"
        f"statistics: {tmp_path / 'my manifests/m_stats.json'}\n"
        "\n"
        f"next: python train.py data=ifmos 'data.manifest={out}'\n"
    )


def test_the_manifest_stands_in_ifmos_by_default(documents, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command.run(parse("documents")) == 0
    assert sorted(path.name for path in Path(".ifmos").iterdir()) == ["training_data.csv", "training_data_stats.json"]
    assert "data.manifest=.ifmos/training_data.csv" in capsys.readouterr().out


def test_options_reach_the_scan(documents, tmp_path):
    arguments = ["--max-per-class", 1, "--exclude", "*.css", "--exclude", "z*", "--seed", 4, "--text-only"]
    chosen = command._chosen(parse(documents, *arguments))
    assert scanning.ScanOptions(**chosen) == scanning.ScanOptions(
        max_per_class=1, exclude=("*.css", "z*"), seed=4, text_only=True
    )


def test_what_is_typed_goes_before_the_preset():
    chosen = command._chosen(parse("--preset", "machine", "--max-per-class", 9, "--no-text-only", "--exclude", "x"))
    assert (chosen["max_per_class"], chosen["text_only"], chosen["max_bytes"]) == (9, False, 200_000)
    assert chosen["exclude"] == (*command.MACHINE_OPTIONS["exclude"], "x")


def test_the_preset_scans_the_roots_of_the_machine(documents, tmp_path, monkeypatch):
    monkeypatch.setattr(scanning, "machine_roots", lambda: [documents])
    arguments = ["--preset", "machine", "--min-per-class", 1, "--min-bytes", 1, "--out", tmp_path / "m.csv"]
    assert command.run(parse(*arguments)) == 0
    assert len((tmp_path / "m.csv").read_text().splitlines()) == 1 + 3


def test_dropped_classes_and_a_single_class_are_said(documents, tmp_path, capsys):
    command.run(parse(documents, "--min-per-class", 2, "--out", tmp_path / "m.csv"))
    output = capsys.readouterr().out
    assert "classes with fewer than 2 files, left out:\n  stylesheet          1\n" in output
    assert "A classifier needs two classes or more; this manifest has one.\n" in output


def test_print_rules_prints_the_shipped_table(capsys):
    assert command.run(parse("--print-rules")) == 0
    assert capsys.readouterr().out == shipped_rules_text()


def test_an_edited_table_is_used(documents, tmp_path):
    rules = tmp_path / "rules.yaml"
    rules.write_text("rules: [{type: curious, suffixes: [.odd]}]")
    command.run(parse(documents, "--rules", rules, "--out", tmp_path / "m.csv"))
    assert (tmp_path / "m.csv").read_text().splitlines()[1:] == [f"{documents / 'd.odd'},curious,1.0"]


def test_a_label_that_does_not_print_is_shown_in_ascii(tmp_path, capsys):
    folder = tmp_path / "root" / "two\nlines"
    folder.mkdir(parents=True)
    (folder / "a").write_text("x")
    command.run(parse(tmp_path / "root", "--label-by", "folder", "--out", tmp_path / "m.csv"))
    assert "  'two\\nlines'          1\n" in capsys.readouterr().out


def test_progress_shows_on_a_terminal_only(documents, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    command.run(parse(documents, "--out", tmp_path / "m.csv"))
    assert "found" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--label-by", "suffix", "--rules", "r"], "--rules goes with --label-by rules, not with --label-by suffix."),
        (["--out", "m.parquet"], "--out is m.parquet; the manifest is a CSV file, so its name must end in .csv."),
        (["--out", "folder.csv"], "--out is folder.csv, which is a folder; name a file in it."),
        ([], "Nothing to scan: name a folder, such as `doctune scan ~/documents`."),
    ],
)
def test_contradictions_are_refused_before_anything_is_walked(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("folder.csv").mkdir()
    with pytest.raises(ConfigError) as refused:
        command.run(parse(*arguments))
    assert str(refused.value) == message


def test_a_place_that_cannot_be_written_is_refused(documents):
    with pytest.raises(ConfigError) as refused:
        command.run(parse(documents, "--out", documents / "a.py/m.csv"))
    assert str(refused.value).startswith(f"--out {documents / 'a.py/m.csv'} cannot be written: ")


def test_a_missing_root_is_refused():
    with pytest.raises(DataError, match=r"^There is no folder nowhere; "):
        command.run(parse("nowhere"))


@pytest.mark.parametrize(
    ("name", "typed"),
    [
        ("data.csv", "data.manifest=data.csv"),
        ("my data.csv", "'data.manifest=my data.csv'"),
        ("mes été.csv", """'data.manifest='"'"'mes été.csv'"'"''"""),
    ],
)
def test_the_next_command_can_be_typed_as_it_is(name, typed):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    override = command._override("data.manifest", name)
    assert override == typed
    (parsed,) = OverridesParser.create().parse_overrides(shlex.split(override))
    assert parsed.value() == name
