from dataclasses import replace

import pytest

from doctune.corpus.duplicates import duplicate_groups
from doctune.corpus.findings.giveaways import give_aways


@pytest.fixture
def strong(found):
    """A function: documents -> the examples of what gives a label away, None where nothing does."""

    def examples(documents):
        finding = found(documents).get("give_aways")
        return finding and finding.examples

    return examples


def test_the_label_in_a_header_gives_it_away(found, planted, strong):
    documents = planted(lambda n, text: f"X-Category: letter\n{text}")
    assert strong(documents) == (
        "letter: its own name at the beginning in 100% of 20 documents, elsewhere in 0.0%",
        "letter: the line “X-Category: letter” in 100% of 20 documents, elsewhere in 0.0%",
    )
    assert found(documents)["give_aways"].severity == "warning"


def test_a_label_of_two_words_is_found_however_it_is_written(clean, planted, strong):
    documents = [replace(d, label="tax_return") if d.label == "letter" else d for d in clean()]
    assert strong(planted(lambda n, text: f"Folder: Tax-Return {n}\n{text}", "tax_return", documents)) is not None


def test_the_name_in_markup_belongs_to_the_format(found, planted):
    documents = planted(lambda n, text: f"<!DOCTYPE letter>\n<letter>\n{text}")
    assert set(found(documents)) == {"telling_features"}


@pytest.mark.parametrize(
    ("text", "folder"),
    [
        ("see /home/anna/cases/{}.txt", "/home/anna/cases"),
        ("file:///srv/archive/{}/scan", "/srv/archive"),
        (r"C:\Users\Anna\{}\a.doc", r"C:\Users\Anna"),
    ],
)
def test_a_folder_of_a_person_gives_the_label_away(planted, strong, text, folder):
    documents = planted(lambda n, prose: f"{prose[:90]} {text.format(n)} {prose[90:]}")
    assert strong(documents) == (f"letter: the path “{folder}” in 100% of 20 documents, elsewhere in 0.0%",)


@pytest.mark.parametrize(
    "text", ["#!/usr/bin/env tool", "http://example.org/a/b/", "</a/b/>", "a/b/c/d/", "/etc/a/b/c/"]
)
def test_system_folders_addresses_and_fractions_do_not(planted, strong, text):
    assert strong(planted(lambda n, prose: f"{prose[:90]} {text} {prose[90:]}")) is None


def test_a_dated_line_gives_away_a_class_that_has_little_else(planted, strong):
    documents = planted(lambda n, text: f"Scanned 2024-03-{n % 28 + 1:02} {n % 24}:05\n{text}")
    assert strong(documents) == ("letter: a dated line “Scanned DATE TIME” in 100% of 20 documents, elsewhere in 0.0%",)


def test_a_dated_line_of_a_format_that_tells_itself_does_not(found, planted):
    markers = "msgid msgstr plural fuzzy charset encoding"
    documents = planted(lambda n, text: f"Created: 2024-03-{n % 28 + 1:02}\n{text} {markers}")
    assert set(found(documents)) == {"telling_features"}


def test_single_words_are_worth_a_look_and_no_more(only, planted):
    documents = planted(lambda n, text: f"{text} regards")
    assert only(documents).severity == "info"
    assert only(documents).examples == ("letter: the word “regards” in 100% of 20 documents, elsewhere in 0.0%",)


@pytest.mark.parametrize(("inside", "elsewhere", "is_found"), [(19, 0, True), (18, 0, False), (20, 1, False)])
def test_the_shares_are_those_promised(clean, inside, elsewhere, is_found):
    count = {"letter": inside, "order": elsewhere, "report": 0}
    documents = [replace(d, text=d.text + " regards") if int(d.path[-6:-4]) < count[d.label] else d for d in clean()]
    texts = [document.text for document in documents]
    assert bool(give_aways(documents, texts, duplicate_groups(texts))) == is_found


def test_copies_have_one_vote(make_text, prose, clean, found):
    original = make_text("/data/memo/0.txt", "memo", prose("memo", 100))
    copies = [replace(original, path=f"/data/memo/{n}.txt", text=f"{original.text} {n}") for n in range(20)]
    assert "telling_features" not in found([*clean(), *copies])
