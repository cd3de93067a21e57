"""`doctune explain` says why, for files and for texts, and refuses in a sentence what cannot be explained."""

import json
import re
import sys

import pytest

from doctune.cli.main import main
from doctune.inference.engine import load

LETTER = "The weather was fine. We met Maria Keller at noon."
LEDGER = "2026-01-01;invoice 11;1.00;EUR\n2026-01-02;invoice 12;2.00;EUR"


def explain(*words):
    return main(["explain", *map(str, words)])


@pytest.fixture
def classifier(tiny_model):
    """A model folder with the labels code, invoice and recipe."""
    return tiny_model("classification")


@pytest.fixture
def ledger(tmp_path):
    path = tmp_path / "january.csv"
    path.write_text(LEDGER, encoding="utf-8")
    return path


@pytest.fixture
def letter(tmp_path):
    path = tmp_path / "letter.txt"
    path.write_text(LETTER, encoding="utf-8")
    return path


def test_a_label_is_explained_in_the_terminal_without_colors_where_there_is_none(classifier, ledger, capsys):
    (predicted,) = load(classifier).predict([LEDGER])
    assert explain(classifier, ledger) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"{ledger}\n  Label {predicted.label!r}, probability {predicted.score:.3f}.\n")
    assert f"\n  logit of the label {predicted.label!r}\n  It is " in shown
    assert "\n  adds most: " in shown
    assert shown.splitlines()[-1].startswith("{+word+} adds to the score, [-word-] takes from it;")
    assert "\x1b" not in shown


def test_files_and_texts_are_explained_in_order_for_programs(classifier, ledger, capsys):
    assert explain(classifier, "print(compute_3(6))", ledger, "Take 3 eggs.", "--format", "json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["path"] for each in found["explanations"]] == ["text 1", str(ledger), "text 2"]
    for each in found["explanations"]:
        check = each["attributions"][0]["completeness"]
        assert check["relative_delta"] <= 0.05
        assert check["warning"] is None
        words = each["attributions"][0]["passages"][0]["words"]
        assert sum(word["attribution"] for word in words) == pytest.approx(check["sum"])
        assert check["sum"] == pytest.approx(check["difference"], rel=0.05)
    (read,) = found["explanations"][1]["attributions"][0]["passages"]
    assert all(LEDGER[word["start"] : word["end"]] == word["text"] for word in read["words"])


def test_a_typed_text_is_prepared_like_the_text_of_a_file(classifier, tmp_path, capsys):
    text = "Take  3\u00a0eggs.\r\n\r\n\r\nServe\u200b warm. "
    (tmp_path / "a.txt").write_bytes(text.encode())
    assert explain(classifier, text, tmp_path / "a.txt", "--format", "json", "--steps", 2) == 0
    typed, read = json.loads(capsys.readouterr().out)["explanations"]
    assert typed["attributions"] == read["attributions"]
    assert typed["attributions"][0]["passages"][0]["text"] == "Take 3 eggs.\n\nServe warm."


def test_any_label_can_be_asked_about(classifier, ledger, capsys):
    engine = load(classifier)
    (predicted,) = engine.predict([LEDGER])
    asked = engine.artifact.labels.names.index(predicted.label) - 1
    name = engine.artifact.labels.names[asked]
    assert explain(classifier, ledger, "--label", name, "--steps", 2) == 0
    assert capsys.readouterr().out.startswith(
        f"{ledger}\n  Label {name!r}, probability {predicted.probabilities[asked]:.3f}. "
        f"Predicted is {predicted.label!r}, probability {predicted.score:.3f}.\n"
    )


@pytest.mark.parametrize(("name", "first"), [("why.html", "<!doctype html>"), ("why.json", "{"), ("why.txt", "text 1")])
def test_the_suffix_of_the_file_says_the_form(classifier, tmp_path, capsys, name, first):
    assert explain(classifier, "Take 3 eggs.", "--steps", 2, "--out", tmp_path / name) == 0
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", f"doctune: 1 explained, written to {tmp_path / name}\n")
    assert (tmp_path / name).read_text(encoding="utf-8").startswith(first)


def test_an_answer_is_explained_by_question_and_context(known_reader, letter, capsys):
    assert explain(known_reader, letter, "--question", "Who did it?", "--format", "json", "--steps", 4) == 0
    (found,) = json.loads(capsys.readouterr().out)["explanations"]
    assert (found["question"], found["answer"]["text"]) == ("Who did it?", "Maria Keller")
    assert [each["scalar"] for each in found["attributions"]] == [
        "logit of the start of the answer 'Maria Keller'",
        "logit of the end of the answer 'Maria Keller'",
    ]
    assert [each["name"] for each in found["attributions"][0]["passages"]] == ["question", "context"]


def test_attributions_that_do_not_add_up_are_warned_of(known_reader, letter, capsys):
    """In this reader they cannot: from padding, all zeros, the least step is the whole way for its layer norms."""
    assert explain(known_reader, letter, "--question", "Who did it?") == 0
    assert "\n  Warning: The attributions are 100.0 % off the difference they explain, " in capsys.readouterr().out


def test_what_cannot_be_read_is_named_and_the_rest_goes_on(classifier, ledger, tmp_path, capsys):
    damaged, empty = tmp_path / "damaged.docx", tmp_path / "empty.txt"
    damaged.write_bytes(b"PK\x03\x04 broken")
    empty.write_bytes(b"")
    assert explain(classifier, damaged, empty, " ", ledger, "--format", "json", "--steps", 2) == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert [each["path"] for each in found["explanations"]] == [str(ledger)]
    assert [each["path"] for each in found["left_out"]] == [str(damaged), str(empty), "text 1"]
    assert f"doctune: {empty} is left out (empty): the file has no bytes\n" in shown.err
    assert "doctune: text 1 is left out (empty): there is no text in it\n" in shown.err
    assert f"doctune: {damaged} is left out (" in shown.err


def test_a_text_without_a_token_is_left_out(known_reader, capsys):
    assert explain(known_reader, "\u0301", "--question", "Who?") == 2
    shown = capsys.readouterr().err
    assert "doctune: text 1 is left out (empty): there is no word in it that the model knows\n" in shown
    assert shown.endswith(
        "doctune: Nothing was explained: in none of the documents is there a text that the model can read.\n"
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["letters/gone.pdf"], "letters/gone.pdf: there is no such file. If it is a text, put a blank at its end."),
        (["gone.pdf"], "gone.pdf: there is no such file. If it is a text, put a blank at its end."),
        (["/nowhere"], "/nowhere: there is no such file. If it is a text, put a blank at its end."),
        (
            ["x", "--out", "why.pdf"],
            "--out why.pdf: .pdf is not written; these are: .json, .html. Another name needs --format.",
        ),
        (["x", "--steps", "0"], "--steps is 0; take from 1 to 2,000, such as 50."),
        (["x", "--steps", "2001"], "--steps is 2,001; take from 1 to 2,000, such as 50."),
        (["x", "--top-chunks", "0"], "--top-chunks is 0; explain at least 1 chunk."),
        (["x", "--top-chunks", "2"], "--top-chunks is for long documents, and RUN reads no chunks: leave it out."),
        (["x", "--question", " "], "--question is empty; write what you want to know: --question 'Who …?'"),
        (
            ["x", "--question", "Who?"],
            "--question is for readers, and RUN was trained for classification: leave it out.",
        ),
        (["x", "--target", "kind"], "--target is for models that tell several, and RUN tells one: leave it out."),
        (
            ["x", "--label", "recipes"],
            "--label recipes: the model has no such label. Did you mean --label recipe? It has code, invoice, recipe.",
        ),
    ],
)
def test_mistakes_are_answered_with_a_sentence(classifier, capsys, words, sentence):
    assert explain(classifier, *words) == 2
    assert capsys.readouterr().err == f"doctune: {sentence.replace('RUN', str(classifier))}\n"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["x"], "RUN answers questions: ask one with --question 'Who …?'"),
        (
            ["x", "--question", "Who?", "--label", "a"],
            "--label is for classifiers, and RUN answers questions: leave it out.",
        ),
    ],
)
def test_a_reader_needs_a_question_and_no_label(known_reader, capsys, words, sentence):
    assert explain(known_reader, *words) == 2
    assert capsys.readouterr().err == f"doctune: {sentence.replace('RUN', str(known_reader))}\n"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["--target", "tag"],
            "--target tag: the model has no such target. Did you mean --target tags? It has kind, tags.",
        ),
        (["--target", "tags", "--label", "x"], "--label x: the model has no such label. It has a, b, c."),
        (["--label", "a"], "--label a: the model has no such label. It has x, y."),
    ],
)
def test_targets_and_their_labels_are_known_by_name(tiny_model, capsys, words, sentence):
    assert explain(tiny_model("multi_task"), "x", *words) == 2
    assert capsys.readouterr().err == f"doctune: {sentence}\n"


def test_a_label_of_a_target_is_explained(tiny_model, ledger, capsys):
    assert explain(tiny_model("multi_task"), ledger, "--target", "tags", "--label", "c", "--steps", 4) == 0
    shown = capsys.readouterr().out
    assert "\n  Label 'c' of the target 'tags', probability " in shown
    assert "\n  logit of the label 'c' of the target 'tags'\n" in shown


def test_folders_are_refused(classifier, tmp_path, capsys):
    assert explain(classifier, tmp_path) == 2
    assert capsys.readouterr().err == (
        f"doctune: {tmp_path} is a folder; name the files in it that are to be explained.\n"
    )
    assert explain(classifier, "x", "--out", tmp_path) == 2
    assert capsys.readouterr().err == (
        f"doctune: --out {tmp_path} is a folder; name a file in it, such as {tmp_path / 'why.html'}.\n"
    )


def test_a_sentence_with_a_slash_and_a_full_stop_is_a_text(classifier, capsys):
    assert explain(classifier, "Take eggs and/or sugar. Serve.", "--steps", 1) == 0
    assert capsys.readouterr().out.startswith("text 1\n")


def test_of_a_long_document_the_chunks_come_first(tiny_model, ledger, capsys):
    assert explain(tiny_model("hierarchical_classification"), ledger, "--top-chunks", 1, "--steps", 4) == 0
    shown = capsys.readouterr().out
    assert "\n   weight              from character, first words\n" in shown
    assert len(re.findall(r"^ +[\d.]+ %  chunk \d ", shown, flags=re.MULTILINE)) >= 2
    assert len(re.findall(r"^  chunk \d:$", shown, flags=re.MULTILINE)) == 1
    assert shown.index("first words") < shown.index("logit of the label")


def test_a_missing_library_is_named_with_what_installs_it(classifier, capsys, monkeypatch):
    for name in ("doctune.inference.explainer", "doctune.inference.attribution"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    assert explain(classifier, "Take 3 eggs.") == 2
    assert capsys.readouterr().err == "doctune: Explanations need captum: pip install 'doctune[explain]'.\n"
