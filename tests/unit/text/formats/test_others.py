"""Formats that a library reads: each gives its text through the same contract."""

import json

import pytest

from doctune.text.extract import ExtractSettings, extract

WHOLE = ExtractSettings(max_chars=None)


def test_html_gives_what_a_reader_sees():
    page = (
        "<!doctype html><html><head><title>T</title><style>p{}</style><script>var x = '<p>no</p>';</script></head>"
        "<body><h1>Head</h1><p>One &amp; <b>two</b>\n three</p><ul><li>a<li>b</ul><img alt='picture'></body></html>"
    )
    assert extract(page.encode(), WHOLE).text.split() == ["T", "Head", "One", "&", "two", "three", "a", "b", "picture"]


def test_html_never_expands_or_fetches_entities(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("top secret")
    page = f'<!DOCTYPE html [<!ENTITY x SYSTEM "file://{secret}">]><html><body>&x; seen</body></html>'
    assert "top secret" not in extract(page.encode(), WHOLE).text


def test_a_notebook_gives_sources_and_text_outputs_but_no_images():
    notebook = {
        "nbformat": 4,
        "cells": [
            {"cell_type": "markdown", "source": ["# Title\n", "words"]},
            {
                "cell_type": "code",
                "source": "1 + 1",
                "outputs": [{"data": {"text/plain": ["2"], "image/png": "iVBOR"}}, {"text": "printed"}],
            },
        ],
    }
    document = extract(json.dumps(notebook).encode(), WHOLE)
    assert (document.format, document.text) == ("notebook", "# Title\nwords\n\n1 + 1\n\n2\nprinted")


def test_a_mail_gives_headers_and_the_plain_alternative():
    mail = (
        "From: =?utf-8?q?J=C3=BCrgen?= <j@example.org>\r\nTo: x@example.org\r\nSubject: Hello\r\nMIME-Version: 1.0\r\n"
        'Content-Type: multipart/alternative; boundary="b"\r\n\r\n'
        "--b\r\nContent-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
        "caf=E9\r\n--b\r\nContent-Type: text/html\r\n\r\n<p>other</p>\r\n--b--\r\n"
    )
    document = extract(mail.encode(), WHOLE)
    assert document.format == "email"
    assert document.text == "Subject: Hello\nFrom: Jürgen <j@example.org>\nTo: x@example.org\n\ncafé"


def test_rtf_loses_its_control_words():
    document = extract(rb"{\rtf1\ansi\ansicpg1252 Caf\'e9 {\b bold}\par next}", WHOLE)
    assert (document.format, document.text) == ("rtf", "Café bold\nnext")


def test_rtf_text_in_a_character_style_of_libreoffice_is_kept():
    assert (
        extract(rb"{\rtf1\ansi \pard{\loch\f2\*\cs7\cf0 The quick brown fox}\par}", WHOLE).text == "The quick brown fox"
    )


def test_open_document_text_keeps_tables_tabs_and_headers(package):
    names = (
        'xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0" '
        'xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0" '
        'xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0" '
        'xmlns:style="urn:oasis:names:tc:opendocument:xmlns:style:1.0"'
    )
    cell = "<table:table-cell><text:p>c</text:p></table:table-cell>"
    content = f"<text:h>Head</text:h><text:p>a<text:tab/>b</text:p><table:table-row>{cell}{cell}</table:table-row>"
    parts = {
        "mimetype": "application/vnd.oasis.opendocument.text",
        "styles.xml": f"<x {names}><style:header><text:p>top</text:p></style:header><text:p>no</text:p></x>",
        "content.xml": f"<office:x {names}>{content}</office:x>",
    }
    document = extract(package(parts), WHOLE)
    assert (document.format, document.text) == ("odt", "top\nHead\na\tb\nc\tc")


def test_an_epub_is_read_in_the_order_of_its_spine(package):
    book = (
        '<package><metadata><title>Book</title></metadata><manifest><item id="2" href="b.xhtml"/>'
        '<item id="1" href="a%201.xhtml"/></manifest><spine><itemref idref="1"/><itemref idref="2"/></spine></package>'
    )
    parts = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": '<container><rootfiles><rootfile full-path="o/p.opf"/></rootfiles></container>',
        "o/p.opf": book,
        "o/a 1.xhtml": "<html><body><p>first</p></body></html>",
        "o/b.xhtml": "<html><body><p>second</p></body></html>",
    }
    assert extract(package(parts), WHOLE).text.split() == ["Book", "first", "second"]


def test_slides_come_with_their_tables_and_notes(tmp_path):
    import pptx
    from pptx.util import Inches

    presentation = pptx.Presentation()
    slide = presentation.slides.add_slide(presentation.slide_layouts[5])
    slide.shapes.title.text = "Title"
    table = slide.shapes.add_table(1, 2, 0, 0, Inches(2), Inches(1)).table
    table.cell(0, 0).text, table.cell(0, 1).text = "left", "right"
    slide.notes_slide.notes_text_frame.text = "spoken"
    presentation.save(tmp_path / "x.pptx")
    assert extract(tmp_path / "x.pptx", WHOLE).text == "Title\nleft\tright\nspoken"


def test_a_presentation_that_the_library_refuses_is_read_from_its_slides_and_says_why(package):
    drawing = 'xmlns:a="http://purl.oclc.org/ooxml/drawingml/main"'
    slide = f"<x {drawing}><a:p><a:r><a:t>strict</a:t></a:r></a:p></x>"
    document = extract(package({"ppt/presentation.xml": "<x/>", "ppt/slides/slide1.xml": slide}), WHOLE)
    assert (document.text, document.reason) == (
        "strict",
        "read another way, since at first: python-pptx cannot open the presentation",
    )


def test_binaries_give_their_signature_and_printable_runs():
    content = (
        b"\x7fELF\x02\x01" + bytes(10) + b"/lib64/ld-linux.so" + bytes(9) + "unicode".encode("utf-16-le") + b"\xff\0abc"
    )
    document = extract(content, WHOLE)
    assert (document.status, document.format) == ("ok", "binary")
    assert document.text.splitlines()[1:] == ["/lib64/ld-linux.so", "unicode"]
    assert document.text.startswith("7f 45 4c 46 02 01 00")


@pytest.mark.parametrize("name", ["data.csv", "data.json", "page.md", "code.py", "notes"])
def test_texts_are_given_as_they_are(name):
    assert extract("α, β\n1, 2\n".encode(), WHOLE, name=name).text == "α, β\n1, 2"
