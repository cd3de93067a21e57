"""PDF: page by page, with either library, and every way to fail has its status."""

import pymupdf
import pytest

from doctune.text.extract import ExtractSettings, extract

PDFIUM = ExtractSettings(pdf_backend="pypdfium2")


def pdf(num_pages=1, **save):
    with pymupdf.open() as document:
        for number in range(num_pages):
            document.new_page().insert_text((72, 72), f"page number {number}")
        return document.tobytes(**save)


@pytest.mark.parametrize("settings", [ExtractSettings(), PDFIUM])
def test_pages_come_in_order_with_both_libraries(settings):
    assert extract(pdf(3), settings).text.replace("\n\n", "\n").splitlines() == [
        "page number 0",
        "page number 1",
        "page number 2",
    ]


@pytest.mark.parametrize("settings", [ExtractSettings(), PDFIUM])
def test_a_password_is_named(settings):
    locked = pdf(encryption=pymupdf.PDF_ENCRYPT_AES_256, user_pw="secret", owner_pw="owner")
    document = extract(locked, settings)
    assert (document.status, document.reason, document.text) == ("encrypted", "the PDF needs a password", "")


def test_a_pdf_named_docx_reads_as_a_pdf():
    assert extract(pdf(), name="letter.docx").format == "pdf"


def test_a_truncated_pdf_gives_its_text_and_says_so():
    content = pdf(20)
    document = extract(content[: content.rindex(b"xref\n0 ") - 200])
    assert document.status == "ok"
    assert "page number 0" in document.text
    assert document.reason == "the PDF was damaged and had to be repaired"


def test_reading_stops_at_the_page_that_fills_the_bound(monkeypatch):
    read = []
    plain = pymupdf.Page.get_textpage
    monkeypatch.setattr(
        pymupdf.Page, "get_textpage", lambda page, *a, **k: read.append(page.number) or plain(page, *a, **k)
    )
    extract(pdf(300), ExtractSettings(max_chars=100))
    assert max(read) < 100


def test_a_page_without_text_is_empty():
    with pymupdf.open() as document:
        document.new_page()
        content = document.tobytes()
    assert extract(content).status == "empty"


def test_rubbish_after_the_mark_is_damaged_and_the_reason_holds_no_path(tmp_path):
    path = tmp_path / "secret-name.pdf"
    path.write_bytes(b"%PDF-1.7\n" + b"rubbish " * 50)
    document = extract(path)
    assert document.status == "damaged"
    assert "secret-name" not in document.reason
