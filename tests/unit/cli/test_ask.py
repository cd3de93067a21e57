"""`doctune ask` answers from files of any kind, says where the answer stands, and says plainly when there is none."""

import io
import json
import os

import docx
import pymupdf
import pytest

from doctune.cli.main import main
from doctune.text.extract import ExtractSettings

QUESTION = "Who did it?"


def ask(run, *documents, question=QUESTION, options=()):
    return main(["ask", str(run), "--document", *map(str, documents), "--question", question, *options])


def pdf(path, *pages, **save):
    with pymupdf.open() as document:
        for text in pages:
            document.new_page().insert_text((72, 72), text)
        document.save(path, **save)
    return path


@pytest.fixture
def letter(tmp_path):
    path = tmp_path / "letter.txt"
    path.write_text("The weather was fine. We met Maria Keller at noon. She was well.", encoding="utf-8")
    return path


def test_an_answer_is_shown_with_its_place_and_its_sentence(known_reader, letter, capsys):
    assert ask(known_reader, letter) == 0
    shown = capsys.readouterr()
    assert shown.out == (
        "Who did it?\n"
        "  Maria Keller (probability 1.000)\n"
        f"    {letter}, characters 29 to 41\n"
        "    We met »Maria Keller« at noon.\n"
    )
    assert shown.err == ""


def test_one_json_object_per_question(known_reader, letter, capsys):
    assert ask(known_reader, letter, options=["--question", "Where?", "--json", "--top", "2"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["question"] for row in rows] == [QUESTION, "Where?"]
    assert [len(row["answers"]) for row in rows] == [2, 2]
    first = rows[0]["answers"][0]
    assert 0.99 < first.pop("score") <= 1
    assert first == {
        "text": "Maria Keller",
        "start": 29,
        "end": 41,
        "sentence": "We met Maria Keller at noon.",
        "sentence_start": 22,
        "path": str(letter),
        "page": None,
    }


def test_a_pdf_names_the_page(known_reader, tmp_path, capsys):
    path = pdf(tmp_path / "report.pdf", "First   page.", "It was Maria Keller.", "Third page.")
    assert ask(known_reader, path, options=["--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)["answers"]
    assert (answer["text"], answer["page"], answer["sentence"]) == ("Maria Keller", 2, "It was Maria Keller.")
    ask(known_reader, path)
    assert f"{path}, page 2, characters " in capsys.readouterr().out


def test_a_word_file_is_read_far_beyond_what_a_classifier_reads(known_reader, tmp_path, capsys):
    written = docx.Document()
    for number in range(500):
        written.add_paragraph(f"Paragraph {number} says nothing.")
    written.add_paragraph("Maria Keller signed it.")
    written.save(tmp_path / "long.docx")
    assert ask(known_reader, tmp_path / "long.docx", options=["--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)["answers"]
    assert (answer["text"], answer["sentence"]) == ("Maria Keller", "Maria Keller signed it.")
    assert answer["start"] > ExtractSettings().max_chars


def test_several_documents_and_folders_are_read_as_one(known_reader, letter, tmp_path, capsys):
    folder = tmp_path / "deep" / "deeper"
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text("In Lyon.")
    (folder / "b.txt").write_text("In Paris.")
    other = tmp_path / "other.txt"
    other.write_text("Nobody.")
    command = ["ask", str(known_reader), "--document", str(tmp_path / "deep"), str(other), "--document", str(letter)]
    assert main([*command, "--question", QUESTION, "--json", "--top", "99"]) == 0
    answers = json.loads(capsys.readouterr().out)["answers"]
    assert (answers[0]["path"], answers[0]["text"]) == (str(letter), "Maria Keller")
    best_of = {path: next(each for each in answers if each["path"] == path) for path in {a["path"] for a in answers}}
    assert best_of[str(folder / "b.txt")]["score"] > best_of[str(folder / "a.txt")]["score"]
    assert sum(each["score"] for each in answers) == pytest.approx(1, abs=1e-4)


def test_what_cannot_be_read_is_named_and_the_rest_goes_on(known_reader, letter, tmp_path, capsys):
    locked = pdf(
        tmp_path / "locked.pdf", "x", encryption=pymupdf.PDF_ENCRYPT_AES_256, user_pw="secret", owner_pw="owner"
    )
    damaged, empty = tmp_path / "damaged.docx", tmp_path / "empty.txt"
    damaged.write_bytes(b"PK\x03\x04 broken")
    empty.write_bytes(b"")
    assert ask(known_reader, locked, damaged, empty, letter) == 0
    shown = capsys.readouterr()
    assert "Maria Keller" in shown.out
    lines = shown.err.splitlines()
    assert lines[0] == f"doctune: {locked} is left out (encrypted): the PDF needs a password"
    assert lines[1].startswith(f"doctune: {damaged} is left out (damaged): ")
    assert lines[2] == f"doctune: {empty} is left out (empty): the file has no bytes"
    assert len(lines) == 3


def test_without_any_text_nothing_is_answered(known_reader, tmp_path, capsys):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_bytes(b"")
    assert ask(known_reader, tmp_path / "a.txt", tmp_path / "b.txt") == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.endswith(
        "doctune: No text was found in any of the documents (2 empty), so nothing can be answered.\n"
    )


def test_a_text_on_standard_input_is_a_document(known_reader, letter, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("Über Maria Keller.".encode())))
    assert ask(known_reader, "-") == 0
    assert "    -, characters 5 to 17\n    Über »Maria Keller«.\n" in capsys.readouterr().out


def test_no_answer_is_said_plainly(doubting_reader, tmp_path, capsys):
    path = tmp_path / "a.txt"
    path.write_text("We met in Lyon.")
    assert ask(doubting_reader, path) == 0
    assert capsys.readouterr().out == "Who did it?\n  no answer: nothing was found\n"
    assert ask(doubting_reader, path, options=["--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"question": QUESTION, "answers": []}


def test_a_threshold_of_zero_answers_always_and_a_high_one_seldom(doubting_reader, tmp_path, capsys):
    path = tmp_path / "a.txt"
    path.write_text("We met in Lyon.")
    assert ask(doubting_reader, path, options=["--threshold", "0"]) == 0
    assert "  Lyon (probability 0." in capsys.readouterr().out
    assert ask(doubting_reader, path, options=["--threshold", "0.9"]) == 0
    assert capsys.readouterr().out == "Who did it?\n  no answer: nothing was found whose probability is at least 0.9\n"


def test_an_answer_over_two_lines_is_shown_on_one(known_reader, tmp_path, capsys):
    path = tmp_path / "a.txt"
    path.write_text("It was Maria\nKeller again.")
    assert ask(known_reader, path) == 0
    out = capsys.readouterr().out
    assert "  Maria Keller (probability" in out
    assert "    It was »Maria Keller« again.\n" in out


def test_names_that_are_no_unicode_and_characters_that_the_terminal_lacks_are_escaped(
    known_reader, tmp_path, monkeypatch
):
    path = tmp_path / os.fsdecode(b"caf\xe9.txt")
    path.write_text("Maria Keller 你好.", encoding="utf-8")
    stream = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr("sys.stdout", stream)
    assert ask(known_reader, path) == 0
    stream.flush()
    shown = stream.buffer.getvalue().decode("latin-1")
    assert "caf\\udce9.txt, characters 0 to 12" in shown
    assert "»Maria Keller« \\u4f60\\u597d." in shown


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--question", "  "], "--question is empty; write what you want to know: --question 'Who …?'"),
        (["--question", "Who?", "--top", "0"], "--top is 0; ask for at least 1 answer."),
        (["--question", "Who?", "--threshold", "2"], "--threshold is 2; a probability is from 0 to 1."),
        (["--question", "Who?", "--threshold", "nan"], "--threshold is nan; a probability is from 0 to 1."),
    ],
)
def test_mistakes_are_sentences(known_reader, letter, options, sentence, capsys):
    assert main(["ask", str(known_reader), "--document", str(letter), *options]) == 2
    assert capsys.readouterr().err == f"doctune: {sentence}\n"


def test_paths_that_hold_nothing_are_named(known_reader, letter, tmp_path, capsys):
    assert ask(known_reader, tmp_path / "nothing.pdf") == 2
    assert capsys.readouterr().err == (
        f"doctune: {tmp_path / 'nothing.pdf'} does not exist; give files or folders that do.\n"
    )
    (tmp_path / "hollow").mkdir()
    assert ask(known_reader, tmp_path / "hollow") == 2
    assert capsys.readouterr().err == f"doctune: There is no file in {tmp_path / 'hollow'}.\n"
    assert ask(tmp_path / "no-run", letter) == 2
    assert f"doctune: {tmp_path / 'no-run'}: there is no such run folder." in capsys.readouterr().err


def test_a_classifier_is_not_asked(letter, tiny_model, capsys):
    folder = tiny_model()
    assert ask(folder, letter) == 2
    assert capsys.readouterr().err == (
        f"doctune: {folder} was trained for classification; questions need a reader, which a run with data=squad "
        "trains.\n"
    )
