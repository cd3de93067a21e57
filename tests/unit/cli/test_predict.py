"""`doctune predict` gives every file one row, in every format, and an interrupted run goes on where it was."""

import csv
import io
import json
import shutil
import sys
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from doctune.cli.labelled import ModelLabeller, Wanted
from doctune.cli.main import main
from doctune.inference import engine as engine_module
from doctune.inference.artifact import load_artifact
from doctune.inference.cascade import CASCADE_FILE, CascadeSettings, StageSettings, load_cascade
from doctune.inference.engine import Engine, load
from doctune.inference.forest import FOREST_FILE, ForestSettings, fit_forest
from doctune.text.extract import extract


@pytest.fixture
def folder(tmp_path, model_texts):
    """Six files with text, an empty one and a damaged one."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number, text in enumerate(model_texts):
        (folder / f"{number}.txt").write_text(text)
    (folder / "broken.docx").write_text("PK\x03\x04 broken")
    return folder


def predict(*arguments):
    return main(["predict", *map(str, arguments)])


def read_rows(path):
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with path.open(newline="") as stream:
        return [*csv.DictReader(stream)]


def test_rows_say_what_the_engine_says(tiny_model, folder, tmp_path):
    out = tmp_path / "x.jsonl"
    assert predict(tiny_model(), folder, "--out", out) == 0
    expected = [
        {
            "path": each.document.path,
            "status": each.document.status,
            "label": each.prediction and each.prediction.label,
            "score": each.prediction and round(each.prediction.score, 6),
            "reason": each.document.reason,
        }
        for each in load(tiny_model()).predict_files([folder])
    ]
    assert read_rows(out) == expected
    assert [row["status"] for row in expected] == ["empty", *["ok"] * 6, "damaged"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "x.jsonl"]


def test_the_most_probable_labels_come_in_order(tiny_model, folder, tmp_path):
    out = tmp_path / "x.parquet"
    assert predict(tiny_model(), folder, "--top", 2, "--out", out) == 0
    rows = read_rows(out)
    assert [*rows[0]] == ["path", "status", "label", "score", "label_2", "score_2", "reason"]
    assert rows[0]["label"] is rows[0]["label_2"] is rows[0]["score_2"] is None
    engine = load(tiny_model())
    for row, found in zip(rows, engine.predict_files([folder]), strict=True):
        if found.prediction:
            chances = sorted(zip(found.prediction.probabilities, engine.labels.names, strict=True), reverse=True)
            assert [(row["score"], row["label"]), (row["score_2"], row["label_2"])] == [
                (round(chance, 6), name) for chance, name in chances[:2]
            ]


def test_more_labels_than_there_are_is_all_of_them(tiny_model, folder, tmp_path):
    assert predict(tiny_model(), folder, "--top", 99, "--out", tmp_path / "x.csv") == 0
    row = read_rows(tmp_path / "x.csv")[1]
    assert {row["label"], row["label_2"], row["label_3"]} == {"code", "invoice", "recipe"}
    assert "label_4" not in row


def test_the_probabilities_of_all_labels_are_columns_in_label_order(tiny_model, folder, tmp_path):
    out = tmp_path / "x.csv"
    assert predict(tiny_model(), folder, "--probabilities", "--out", out) == 0
    rows = read_rows(out)
    assert [*rows[0]] == ["path", "status", "label", "score", "reason", "p_code", "p_invoice", "p_recipe"]
    assert rows[0]["p_code"] == ""
    for row in rows[1:7]:
        chances = {name: float(row[f"p_{name}"]) for name in ("code", "invoice", "recipe")}
        assert sum(chances.values()) == pytest.approx(1, abs=2e-6)
        assert max(chances, key=chances.get) == row["label"]
        assert max(chances.values()) == float(row["score"])


def test_below_the_threshold_no_label_is_given_and_the_reason_says_which_it_would_be(tiny_model, folder, tmp_path):
    assert predict(tiny_model(), folder, "--out", tmp_path / "all.jsonl") == 0
    known = read_rows(tmp_path / "all.jsonl")
    threshold = sorted(row["score"] for row in known if row["score"])[3] - 1e-6
    assert predict(tiny_model(), folder, "--threshold", threshold, "--out", tmp_path / "sure.jsonl") == 0
    found = read_rows(tmp_path / "sure.jsonl")
    unsure = 0
    for row, before in zip(found, known, strict=True):
        if before["score"] is None or before["score"] >= threshold:
            assert row == before
        else:
            unsure += 1
            sentence = f"unsure: {before['label']} has {before['score']:.3f}, below {threshold:g}"
            assert row == before | {"label": None, "reason": sentence}
    assert unsure == 3


def test_csv_goes_to_standard_output(tiny_model, folder, tmp_path, capsys):
    assert predict(tiny_model(), folder) == 0
    shown = capsys.readouterr()
    assert predict(tiny_model(), folder, "--out", tmp_path / "x") == 0  # csv where the suffix says nothing
    assert shown.out == (tmp_path / "x").read_text()
    assert shown.err == ""
    assert capsys.readouterr().err == f"doctune: 8 rows written to {tmp_path / 'x'}\n"


def test_a_folder_without_files_is_named(tiny_model, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert predict(tiny_model(), tmp_path / "empty") == 0
    shown = capsys.readouterr()
    assert shown.out == "path,status,label,score,reason\n"
    assert shown.err == f"doctune: there is no file in {tmp_path / 'empty'}.\n"


def type_in(monkeypatch, text):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(text.encode())))


def test_a_text_on_standard_input_is_one_row(tiny_model, model_texts, tmp_path, monkeypatch, capsys):
    (expected,) = load(tiny_model()).predict([model_texts[1]])
    type_in(monkeypatch, model_texts[1])
    assert predict(tiny_model()) == 0
    assert capsys.readouterr().out == f"path,status,label,score,reason\n-,ok,{expected.label},{expected.score:.6g},\n"
    type_in(monkeypatch, model_texts[1])
    assert predict(tiny_model(), "--out", tmp_path / "x.jsonl") == 0
    assert [row["label"] for row in read_rows(tmp_path / "x.jsonl")] == [expected.label]
    type_in(monkeypatch, "")
    assert predict(tiny_model()) == 0
    assert capsys.readouterr().out.endswith("-,empty,,,the file has no bytes\n")


def test_a_file_that_is_gone_when_its_turn_comes_is_a_row(tiny_model, folder, tmp_path, monkeypatch):
    original = Engine.predict_documents

    def after_removal(self, documents):
        (folder / "3.txt").unlink()
        return original(self, documents)

    monkeypatch.setattr(Engine, "predict_documents", after_removal)
    assert predict(tiny_model(), folder, "--out", tmp_path / "x.jsonl") == 0
    assert [row["status"] for row in read_rows(tmp_path / "x.jsonl")][2:5] == ["ok", "unreadable", "ok"]


@pytest.fixture
def asked(monkeypatch):
    """The names of the documents that the engine was given, and after how many of them it is interrupted."""
    seen = SimpleNamespace(names=[], interrupt_after=None)
    original = Engine.predict_documents

    def watched(self, documents):
        for number, each in enumerate(original(self, documents)):
            if number == seen.interrupt_after:
                raise KeyboardInterrupt
            seen.names.append(each.document.path.rpartition("/")[2])
            yield each

    monkeypatch.setattr(Engine, "predict_documents", watched)
    monkeypatch.setattr(engine_module, "_TEXTS_AT_ONCE", 2)
    return seen


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_an_interrupted_run_goes_on_and_ends_with_the_same_file(tiny_model, folder, tmp_path, asked, capsys, suffix):
    whole, out = tmp_path / f"whole.{suffix}", tmp_path / f"x.{suffix}"
    options = (tiny_model(), folder, "--top", 2, "--probabilities", "--threshold", 0.5, "--batch-size", 1)
    assert predict(*options, "--out", whole) == 0
    asked.interrupt_after, asked.names = 3, []
    assert predict(*options, "--out", out) == 130
    assert asked.names == ["0.txt", "1.txt", "2.txt"]
    assert not out.exists()
    asked.interrupt_after, asked.names = 2, []
    assert predict(*options, "--out", out, "--resume") == 130
    assert asked.names == ["3.txt", "4.txt"]
    asked.interrupt_after, asked.names = None, []
    capsys.readouterr()
    assert predict(*options, "--out", out, "--resume") == 0
    assert asked.names == ["5.txt", "6.txt", "broken.docx"]
    assert out.read_bytes() == whole.read_bytes()
    assert capsys.readouterr().err == f"doctune: 8 rows written to {out}\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", whole.name, out.name]


def test_a_file_that_has_changed_is_predicted_again(tiny_model, folder, tmp_path, asked):
    out = tmp_path / "x.jsonl"
    asked.interrupt_after = 4
    assert predict(tiny_model(), folder, "--out", out) == 130
    (folder / "1.txt").write_text("def compute(value):\n    return sugar")
    (folder / "2.txt").unlink()
    asked.interrupt_after, asked.names = None, []
    assert predict(tiny_model(), folder, "--out", out, "--resume") == 0
    assert asked.names == ["1.txt", "4.txt", "5.txt", "6.txt", "broken.docx"]
    assert predict(tiny_model(), folder, "--out", tmp_path / "whole.jsonl") == 0
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_a_journal_in_the_folder_that_is_predicted_is_no_input(tiny_model, folder, asked):
    asked.interrupt_after = 1
    out = folder / "z.jsonl"
    assert predict(tiny_model(), folder, "--out", out) == 130
    asked.interrupt_after = None
    assert predict(tiny_model(), folder, "--out", out, "--resume") == 0
    assert [row["path"].rpartition("/")[2] for row in read_rows(out)] == [
        *(f"{number}.txt" for number in range(7)),
        "broken.docx",
    ]


@pytest.mark.parametrize(
    "options", [("--top", 2), ("--probabilities",), ("--threshold", 0.5), ("--backend", "onnx"), ("OTHER MODEL",)]
)
def test_a_run_does_not_go_on_with_other_options(exported_model, tiny_model, folder, tmp_path, asked, capsys, options):
    out = tmp_path / "x.csv"
    asked.interrupt_after = 1
    assert predict(exported_model(), folder, "--backend", "torch", "--out", out) == 130
    asked.interrupt_after = None
    model = tiny_model() if options == ("OTHER MODEL",) else exported_model()
    further = [option for option in options if option != "OTHER MODEL"]
    assert predict(model, folder, "--backend", "torch", *further, "--out", out, "--resume") == 2
    begun = ModelLabeller(load(exported_model(), backend="torch"), Wanted()).description
    assert begun["model"] == str(exported_model())
    assert capsys.readouterr().err.endswith(
        f"doctune: The interrupted run for {out} was begun with another model or other options: {begun}. Use the same "
        "ones, or leave out --resume to begin anew.\n"
    )
    assert predict(exported_model(), folder, "--backend", "torch", "--out", out, "--resume") == 0
    assert len(asked.names) == 8


def test_a_run_that_was_not_interrupted_is_not_resumed(tiny_model, folder, tmp_path, capsys):
    out = tmp_path / "x.csv"
    assert predict(tiny_model(), folder, "--out", out) == 0
    capsys.readouterr()
    assert predict(tiny_model(), folder, "--out", out, "--resume") == 2
    assert capsys.readouterr().err == (
        f"doctune: There is no interrupted run to go on with for {out}. Leave out --resume.\n"
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--format", "parquet"], "--format parquet is binary: give it a file with --out FILE.parquet."),
        (
            ["--resume"],
            "--resume goes on with a file: name it with --out FILE, as in the run that was interrupted.",
        ),
        (
            ["--out", "x.json"],
            "--out x.json: .json is not written; these are: .csv, .jsonl, .parquet. Another name needs --format.",
        ),
        (["--top", "0"], "--top is 0; ask for at least 1 label."),
        (["--threshold", "1.5"], "--threshold is 1.5; a probability is from 0 to 1."),
        (["--threshold", "nan"], "--threshold is nan; a probability is from 0 to 1."),
        (["--batch-size", "0"], "--batch-size is 0; at least 1 text is computed at once."),
        (["nothing.txt"], "nothing.txt: there is no such file or folder."),
        (["--backend", "onnx"], "MODEL has no onnx net. Make it with `doctune export MODEL`."),
        (["--out", "FOLDER"], "--out FOLDER is no regular file: name the file to write."),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(tiny_model, folder, capsys, arguments, sentence):
    model = tiny_model()
    before = sorted(folder.parent.rglob("*"))
    given = [argument.replace("FOLDER", str(folder)) for argument in arguments]
    assert predict(model, folder, *given) == 2
    expected = sentence.replace("FOLDER", str(folder)).replace("MODEL", str(model))
    assert capsys.readouterr().err == f"doctune: {expected}\n"
    assert sorted(folder.parent.rglob("*")) == before


def test_a_text_on_standard_input_is_not_resumed(tiny_model, tmp_path, capsys):
    assert predict(tiny_model(), "--out", tmp_path / "x.csv", "--resume") == 2
    assert capsys.readouterr().err == (
        "doctune: --resume goes on with files; a text on standard input is one row. Leave it out.\n"
    )


def test_parquet_without_pyarrow_is_refused_before_the_work(tiny_model, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "pyarrow.parquet", raising=False)
    assert predict(tiny_model(), folder, "--out", tmp_path / "x.parquet") == 2
    assert capsys.readouterr().err == "doctune: --format parquet needs pyarrow: pip install pyarrow.\n"


def test_a_reader_gives_no_labels_and_leaves_no_journal(known_reader, folder, tmp_path, capsys):
    assert predict(known_reader, folder, "--out", tmp_path / "x.csv") == 2
    assert capsys.readouterr().err == (
        f"doctune: {known_reader / 'model'} was trained for question_answering; labels need a classifier, which a run "
        "with data=ifmos or data=chunks trains.\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.fixture
def cascaded(tiny_model, model_texts, tmp_path):
    """A model folder with a cascade: the transformer is never sure enough, the forest answers in the end."""
    folder = shutil.copytree(tiny_model(), tmp_path / "cascaded")
    labels = load_artifact(folder).labels
    ids = [place % len(labels) for place in range(len(model_texts))]
    fit_forest(list(model_texts), ids, labels, ForestSettings(trees=10)).save(folder / FOREST_FILE)
    stages = (StageSettings("transformer", 1.0), StageSettings("forest", None))
    CascadeSettings(stages).save(folder / CASCADE_FILE)
    return folder


def test_a_cascade_says_which_stage_answered_and_why_the_others_did_not(cascaded, folder, tmp_path):
    out = tmp_path / "labels.csv"
    assert predict(cascaded, folder, "--cascade", "--out", out) == 0
    rows = read_rows(out)
    assert [*rows[0]] == ["path", "status", "label", "score", "stage", "reason"]
    fine = [row for row in rows if row["status"] == "ok"]
    texts = [extract(row["path"]).text for row in fine]
    expected = [*load_cascade(cascaded).predict(texts)]
    assert [(row["label"], row["stage"]) for row in fine] == [(each.label, "forest") for each in expected]
    for row, alone in zip(fine, load(cascaded).predict(texts), strict=True):
        assert row["reason"] == f"transformer: {alone.score:.2f} below 1.00"
    (broken,) = [row for row in rows if row["path"].endswith("broken.docx")]
    assert (broken["status"], broken["label"], broken["stage"]) == ("damaged", "", "")
    assert broken["reason"]


def test_a_cascade_file_of_ones_own_is_taken(cascaded, folder, tmp_path):
    mine, out = tmp_path / "mine.json", tmp_path / "labels.jsonl"
    CascadeSettings((StageSettings("transformer", None),)).save(mine)
    assert predict(cascaded, folder, "--cascade", mine, "--out", out) == 0
    assert {row["stage"] for row in read_rows(out) if row["status"] == "ok"} == {"transformer"}


def test_a_cascade_has_thresholds_of_its_own(cascaded, folder, capsys):
    for option in (("--top", 2), ("--probabilities",), ("--threshold", 0.5)):
        assert predict(cascaded, folder, *option, "--cascade") == 2
        assert capsys.readouterr().err == (
            "doctune: --cascade has thresholds of its own and one label: leave out --top, --probabilities, "
            "--threshold.\n"
        )
