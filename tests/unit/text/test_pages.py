"""A document with pages says where they begin in its text, and its text is none the different for it."""

import pymupdf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from doctune.documents import Document
from doctune.text.extract import EXTRACTOR_VERSION, ExtractSettings, RawText, extract
from doctune.text.pages import page_starts
from doctune.text.sandbox import extract_files

WHOLE = ExtractSettings(max_chars=None)


def pdf(*pages):
    with pymupdf.open() as document:
        for text in pages:
            document.new_page().insert_text((72, 72), text)
        return document.tobytes()


@pytest.mark.parametrize("backend", ["pymupdf", "pypdfium2"])
def test_pages_of_a_pdf_begin_where_their_text_does(backend):
    content = pdf("Première page,\nof two   lines", "second page", "the third")
    document = extract(content, ExtractSettings(max_chars=None, pdf_backend=backend))
    starts = document.page_starts
    assert starts == tuple(document.text.index(word) for word in ("Première", "second", "the third"))
    assert [document.page_at(start) for start in starts] == [1, 2, 3]
    assert [document.page_at(start - 1) for start in starts[1:]] == [1, 2]
    assert document.page_at(len(document.text) - 1) == 3


def test_empty_pages_count():
    document = extract(pdf("first", "", "", "fourth"), WHOLE)
    assert document.page_at(document.text.index("fourth")) == 4


def test_pages_that_cannot_be_read_count(monkeypatch):
    plain = pymupdf.Page.get_textpage

    def failing(page, *args, **kwargs):
        if page.number == 1:
            raise RuntimeError("no")
        return plain(page, *args, **kwargs)

    monkeypatch.setattr(pymupdf.Page, "get_textpage", failing)
    document = extract(pdf("first", "second", "third"), WHOLE)
    assert document.reason == "page 2 could not be read: no"
    assert document.page_at(document.text.index("third")) == 3


def test_a_bounded_text_has_the_pages_that_it_shows():
    content = pdf("first", "second", "third")
    whole, some = extract(content, WHOLE), extract(content, ExtractSettings(max_chars=10))
    assert whole.text.startswith(some.text)
    assert some.page_starts == whole.page_starts[:2]


def test_other_formats_have_no_pages():
    document = extract(b"some words", WHOLE)
    assert (document.page_starts, document.page_at(3)) == ((), None)


def test_the_sandbox_knows_the_pages_too(tmp_path):
    (tmp_path / "a.pdf").write_bytes(pdf("first", "second"))
    (found,) = extract_files([tmp_path / "a.pdf"], WHOLE)
    assert found == extract(tmp_path / "a.pdf", WHOLE)
    assert len(found.page_starts) == 2


def test_texts_and_caches_are_those_of_before():
    assert EXTRACTOR_VERSION == 3
    assert ExtractSettings().key() == "1aae279e26494f1e"
    assert extract(pdf("one", "", "two"), WHOLE).text == "one\n\ntwo"


CHARACTERS = "ab\u0301\u00e9 \n\t\r\x0b\x0c\x1c\x85\xa0\xad\u200b\u2003\u2028\ufeff\ud83d\u1100\u1161"


@given(st.lists(st.text(CHARACTERS, max_size=12), min_size=1, max_size=6), st.booleans())
def test_each_page_has_its_own_visible_characters(pages, normalise):
    settings = ExtractSettings(max_chars=None, normalise=normalise)
    raw, plain = RawText(settings), RawText(settings)
    for page in pages:
        raw.add(page + "\n", is_page=True)
        plain.add(page + "\n")
    text, starts = raw.prepared(), raw.page_starts()
    assert text == plain.prepared()
    ends = [*starts[1:], len(text)][: len(starts)]
    shown = ["".join(text[start:end].split()) for start, end in zip(starts, ends, strict=True)]
    alone = [RawText(settings) for _ in pages]
    for one, page in zip(alone, pages, strict=True):
        one.add(page + "\n")
    assert shown == ["".join(one.prepared().split()) for one in alone][: len(starts)]


def test_a_key_over_two_pages_leaves_the_page_open_and_is_scrubbed():
    raw = RawText(ExtractSettings(max_chars=None, scrub=True))
    raw.add("-----BEGIN PRIVATE KEY-----\nabc\n", is_page=True)
    raw.add("def\n-----END PRIVATE KEY-----\nwords\n", is_page=True)
    assert (raw.prepared(), raw.page_starts()) == ("[KEY]\nwords", ())


def test_counts_of_another_text_name_no_page():
    assert page_starts("ab cd", [2, 3]) == ()
    assert page_starts("ab cd", [2, 0, 2]) == (0, 3, 3)
    assert page_starts("ab cd", [4, 0]) == (0, 5)


def test_a_document_that_begins_with_blanks_begins_on_its_first_page():
    assert Document("", "ok", "", "pdf", "  a", (2,)).page_at(0) == 1
