"""An explanation reads the same in the terminal, on a page and for programs, with and without color."""

import json
import math
from dataclasses import replace

import pytest

from doctune.decode.multi_task import TargetPrediction
from doctune.documents import Answer, Document, Prediction
from doctune.inference.explanation import Attribution, ChunkWeight, Completeness, Explanation, Piece, passage
from doctune.reports.explain import (
    between,
    completeness_sentence,
    for_programs,
    outcome_sentence,
    range_sentence,
    top_words,
    warning_sentence,
)
from doctune.reports.explain_page import page
from doctune.reports.explain_text import LEGEND, as_text

TEXT = "Two fresh eggs, no invoice at all."
TOKENS = (Piece(0, 3, 0.1), Piece(4, 9, 0.5), Piece(10, 13, 1.5), Piece(13, 14, 0.5), Piece(14, 15, 0.0))
TOKENS = (*TOKENS, Piece(16, 18, -0.4), Piece(19, 26, -1.0))
ADDS_UP = Completeness(score=3.0, baseline_score=1.8, total=1.2, steps=50)
OFF = Completeness(score=3.0, baseline_score=1.0, total=1.5, steps=400)


def make(text=TEXT, tokens=TOKENS, check=ADDS_UP, label="recipe", path="a.txt", **facts):
    read = passage("text", text, tokens)
    attribution = Attribution(f"logit of the label {label!r}", 0.9, 0.25, check, (read,))
    outcome = Prediction("recipe", 0.9, (0.9, 0.1))
    return Explanation(path, len(text), outcome, label, (attribution,), **facts)


def test_marks_tell_what_adds_from_what_takes_without_color():
    assert as_text(make()) == (
        "a.txt\n"
        "  Label 'recipe', probability 0.900.\n"
        "  Read: characters 0 to 26 of 34.\n"
        "\n"
        "  logit of the label 'recipe'\n"
        "  It is 3.000 (probability 0.900), and 1.800 (0.250) with padding instead: the text adds +1.200. "
        "The attributions sum to +1.200, 0 off, which is 0.0 %, with 50 steps.\n"
        "  adds most: eggs +2, fresh +0.5, Two +0.1\n"
        "  takes most: invoice -1, no -0.4\n"
        "\n"
        "  text:\n"
        "    Two {+fresh+} {++eggs++}, [-no-] [--invoice--]\n"
        "\n"
    )


@pytest.mark.parametrize(
    ("labels", "ending"),
    [
        (("joy",), ""),
        (("love", "joy"), " All that apply: 'love', 'joy'."),
        (("love", "pride"), " Predicted: 'love', 'pride'."),
        ((), " No label is probable enough to apply."),
    ],
)
def test_of_several_targets_the_one_is_named_with_what_is_predicted_of_it(labels, ending):
    outcome = TargetPrediction("emotion", labels, (0.9, 0.5, 0.5))
    explanation = replace(make(label="joy"), outcome=outcome)
    assert outcome_sentence(explanation) == f"Label 'joy' of the target 'emotion', probability 0.900.{ending}"
    (record,) = for_programs([explanation], [])["explanations"]
    named = {"target": "emotion", "label": "joy", "predicted": {"labels": list(labels)}}
    assert {name: record[name] for name in named} == named


def test_the_legend_says_what_the_marks_mean():
    assert LEGEND == (
        "{+word+} adds to the score, [-word-] takes from it; {++word++} and [--word--] at least half as much as the "
        "strongest word, what is below 15 % of it is not marked. The method: layer integrated gradients (Sundararajan "
        "et al. 2017) on the word embeddings, from padding in place of the text.\n"
    )


def test_colors_add_nothing_to_the_words(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    colored = as_text(make(), is_colored=True)
    assert "\x1b[1;36m{++eggs++}\x1b[0m" in colored
    assert "\x1b[33m[-no-]\x1b[0m" in colored
    plain = colored
    for code in ("1", "2", "36", "33", "1;36", "1;33", "0"):
        plain = plain.replace(f"\x1b[{code}m", "")
    assert plain == as_text(make())


def test_a_document_cannot_steer_the_terminal():
    shown = as_text(make(text="\x1b[31mred", tokens=[Piece(0, 8, 1.0)], path="\x1b]0;x\udcff"))
    assert "\x1b" not in shown
    assert "⟨U+001B⟩[31mred" in shown
    assert shown.startswith("⟨U+001B⟩]0;x⟨U+DCFF⟩\n")


def test_markup_in_a_text_is_text():
    assert "    {++[red]x[/red]++}\n" in as_text(make(text="[red]x[/red]", tokens=[Piece(0, 12, 1.0)]))


def test_a_label_that_is_not_the_predicted_one_is_told_apart():
    explanation = make(label="ledger")
    assert outcome_sentence(explanation) == (
        "Label 'ledger', probability 0.900. Predicted is 'recipe', probability 0.900."
    )


def test_an_answer_is_told_with_its_place():
    answer = Answer("fresh eggs", 0.75, 4, 14, TEXT, 0, "a.pdf", 2)
    attribution = make().attributions[0]
    explanation = Explanation("a.pdf", len(TEXT), answer, "What?", (attribution,), notes=("A note.",))
    assert outcome_sentence(explanation) == (
        "Answer to 'What?': 'fresh eggs' (page 2, characters 4 to 14), probability 0.750."
    )
    assert "\n  A note.\n" in as_text(explanation)
    record = for_programs([explanation], [])["explanations"][0]
    assert (record["question"], record["answer"]["text"], record["answer"]["page"]) == ("What?", "fresh eggs", 2)
    assert "label" not in record


def test_only_a_part_that_was_read_is_told():
    whole = make(text="Two", tokens=[Piece(0, 3, 1.0)])
    assert range_sentence(whole) == ""
    assert range_sentence(make()) == "Read: characters 0 to 26 of 34."


def test_attributions_that_do_not_add_up_come_with_a_warning():
    assert warning_sentence(ADDS_UP) == ""
    assert warning_sentence(OFF) == (
        "The attributions are 25.0 % off the difference they explain, more than 5.0 %: take them as a tendency, or "
        "compute them more finely with --steps 800."
    )
    assert warning_sentence(Completeness(1.0, 1.0, 0.5, 2000)) == (
        "The attributions are 0.5 off the difference they explain, more than 5.0 %: take them as a tendency."
    )
    assert f"\n  Warning: {warning_sentence(OFF)}\n" in as_text(make(check=OFF))
    assert "Warning" not in as_text(make())


def test_the_delta_is_told_without_a_share_where_there_is_none():
    attribution = make(check=Completeness(1.0, 1.0, 0.5, 1)).attributions[0]
    assert completeness_sentence(attribution).endswith("sum to +0.500, 0.5 off, with 1 step.")


CHUNKS = (ChunkWeight(2, 0.75, 1000, 1900, "Annual report"), ChunkWeight(1, 0.25, 0, 1000, "Dear <b>all</b>"))


def test_chunks_come_first_and_the_heaviest_before_the_others():
    shown = as_text(make(chunks=CHUNKS))
    assert (
        "   weight              from character, first words\n"
        "   75.0 %  chunk 2        1,000  Annual report\n"
        "   25.0 %  chunk 1            0  Dear <b>all</b>\n"
        "\n"
        "  logit of" in shown
    )
    assert "Read: 2 chunks between the characters 0 and 1,900 of 34." in shown


def test_for_programs_everything_is_there():
    left_out = [Document("b.docx", "damaged", "not a zip file", "", "")]
    found = for_programs([make(check=OFF, chunks=CHUNKS, notes=("A note.",))], left_out)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["schema"] == 1
    assert found["method"]["baseline"] == (
        "the same text with padding in place of every token that is not a special one"
    )
    assert found["left_out"] == [{"path": "b.docx", "status": "damaged", "reason": "not a zip file"}]
    (explanation,) = found["explanations"]
    assert explanation["predicted"] == {"label": "recipe", "probability": 0.9}
    assert (explanation["label"], explanation["num_chars"], explanation["notes"]) == ("recipe", 34, ["A note."])
    assert explanation["chunks"][0] == {
        "number": 2, "weight": 0.75, "start": 1000, "end": 1900, "opening": "Annual report",
    }  # fmt: skip
    (attribution,) = explanation["attributions"]
    assert attribution["completeness"] == {
        "score": 3.0,
        "baseline_score": 1.0,
        "difference": 2.0,
        "sum": 1.5,
        "delta": -0.5,
        "relative_delta": 0.25,
        "steps": 400,
        "warning": warning_sentence(OFF),
    }
    (read,) = attribution["passages"]
    assert [token["text"] for token in read["tokens"]] == ["Two", "fresh", "egg", "s", ",", "no", "invoice"]
    assert read["words"][2] == {"text": "eggs", "start": 10, "end": 14, "attribution": 2.0}
    assert math.fsum(word["attribution"] for word in read["words"]) == pytest.approx(1.2)


def test_the_parts_of_a_passage_are_its_text():
    tokens = [Piece(2, 5, 1.0), Piece(8, 8, 1.0), Piece(10, 12, 1.0)]
    read = passage("text", "a bcd,  \n fg h", tokens)
    assert "".join(characters for characters, _ in between(read)) == read.text == "bcd,  \n fg"


def test_words_are_named_on_one_line_and_blank_ones_not_at_all():
    read = passage("text", "a\nb\n", [Piece(0, 3, 1.0), Piece(3, 4, 5.0)])
    assert top_words(Attribution("x", 1, 0, ADDS_UP, (read,)), 1) == [("a b", 1.0)]


def test_the_page_colors_words_by_their_share(read_html):
    read = read_html(page([make()], []))
    assert read.open == []
    marks = [(mark["class"], mark["style"], mark.get("title")) for mark in read.named("mark")]
    assert marks == [
        ("for clear", "--share:1", None),
        ("against clear", "--share:1", None),
        ("for", "--share:0.05", "+0.1"),
        ("for clear", "--share:0.25", "+0.5"),
        ("for clear", "--share:1.00", "+2"),
        ("against clear", "--share:0.20", "-0.4"),
        ("against clear", "--share:0.50", "-1"),
    ]
    words = " ".join("".join(read.text).split())
    assert "Why: 1 document explained" in words
    assert "adds to the score (straight line), takes from it (wavy line)." in words
    assert "Logit of the label 'recipe'" in words
    assert "Adds most: eggs +2, fresh +0.5, Two +0.1." in words


def test_the_page_has_chunks_warnings_and_what_was_left_out(read_html):
    left_out = [Document("b<i>.docx", "damaged", "not a <zip> file", "", "")]
    text = page([make(check=OFF, chunks=CHUNKS)], left_out)
    read = read_html(text)
    words = " ".join(" ".join(read.text).split())
    assert "How much each chunk counts" in words
    assert "2 75.0 % 1,000 Annual report 1 25.0 % 0 Dear <b>all</b>" in words
    assert warning_sentence(OFF) in words
    assert "Left out b<i>.docx (damaged): not a <zip> file" in words
    assert read.named("b") == read.named("i") == []


def test_the_page_needs_nothing_but_itself_and_keeps_text_as_text(read_html):
    attack = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    explanation = make(text=attack, tokens=[Piece(0, len(attack), 1.0)], path=attack, label=attack, notes=(attack,))
    text = page([explanation], [])
    read = read_html(text)
    assert read.open == []
    assert {tag for tag, _ in read.tags}.isdisjoint({"script", "img", "link", "iframe", "a"})
    assert "".join(read.text).count(attack) >= 4
    assert "script-src 'none'" in text
