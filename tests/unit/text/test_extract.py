"""One contract: status and reason for everything, the text never longer than asked for and never different for it."""

import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doctune.errors import ConfigError
from doctune.text import package as package_module
from doctune.text.extract import ExtractSettings, extract

WHOLE = ExtractSettings(max_chars=None)


def test_path_string_and_bytes_give_the_same(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("some words")
    documents = [extract(path), extract(str(path)), extract(path.read_bytes(), name=str(path))]
    assert documents[0] == documents[1] == documents[2]
    assert (documents[0].path, documents[0].status, documents[0].text) == (str(path), "ok", "some words")


@pytest.mark.parametrize("suffix", [".docx", ".bin", ".txt", ".pdf"])
def test_the_name_never_reaches_the_text(tmp_path, suffix):
    path = tmp_path / f"veryspecialname{suffix}"
    path.write_bytes(b"\x00\x01\x02" * 20)
    assert "veryspecialname" not in extract(path).text


def test_what_cannot_be_opened_is_unreadable(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reasons = [extract(tmp_path / name).reason for name in ("missing", ".", "pipe")]
    assert reasons == [
        "No such file or directory",
        "a folder, not a regular file",
        "a device, pipe or socket, not a regular file",
    ]
    assert {extract(tmp_path / name).status for name in ("missing", ".", "pipe")} == {"unreadable"}


def test_no_bytes_and_no_words_are_empty():
    assert extract(b"").reason == "the file has no bytes"
    assert (extract(b" \n\t ").status, extract(b" \n\t ").text) == ("empty", "")


@pytest.mark.parametrize(
    ("streams", "status", "reason"),
    [
        (["EncryptedPackage", "EncryptionInfo"], "encrypted", "an Office file protected by a password"),
        (["Workbook", "encryption"], "encrypted", "the workbook needs a password"),
        (["WordDocument"], "unsupported", "legacy Word (.doc) is not read: save it as .docx"),
        (["__properties_version1.0"], "unsupported", "an Outlook message (.msg) is not read: save it as .eml"),
        (["PowerPoint Document"], "unsupported", "legacy PowerPoint (.ppt) is not read: save it as .pptx"),
    ],
)
def test_compound_files_are_named_for_what_they_are(compound, streams, status, reason):
    document = extract(compound(*streams), name="book.xlsx")
    assert (document.status, document.reason, document.text) == (status, reason, "")


def test_a_container_above_the_size_limit_is_too_large_and_a_text_is_not(docx):
    small = ExtractSettings(max_bytes=100)
    assert extract(b"%PDF-1.7" + bytes(200), small).status == "too_large"
    assert extract(b"word " * 100, small).status == "ok"


def test_a_zip_bomb_ends_at_the_unpacking_limit(docx, monkeypatch):
    monkeypatch.setattr(package_module, "MAX_UNPACKED_BYTES", 2**20)
    document = extract(docx("<w:p/>" * 400_000), WHOLE)
    assert document.status == "too_large"
    assert "unpacks to more than" in document.reason


def test_an_entity_bomb_is_refused_and_no_library_is_given_it(docx, monkeypatch):
    declaration = '<!DOCTYPE x [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;">]>'
    monkeypatch.setitem(sys.modules, "docx", None)
    document = extract(docx("<w:p><w:r><w:t>&b;</w:t></w:r></w:p>", declaration=declaration))
    assert (document.status, document.text) == ("damaged", "")
    assert "declares a document type" in document.reason


def test_an_external_entity_never_reads_a_local_file(docx, package, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("top secret")
    declaration = f'<!DOCTYPE x [<!ENTITY s SYSTEM "file://{secret}">]>'
    word = docx("<w:p><w:r><w:t>&s;</w:t></w:r></w:p>", declaration=declaration)
    names = 'xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0"'
    odt = package(
        {
            "mimetype": "application/vnd.oasis.opendocument.text",
            "content.xml": f"{declaration}<x {names}><text:p>&s;</text:p></x>",
        }
    )
    for content in (word, odt):
        document = extract(content, WHOLE)
        assert document.status == "damaged"
        assert "top secret" not in document.text


def test_deep_nesting_is_read_and_not_recursed_into(docx):
    depth = 20_000
    body = "<w:sdt>" * depth + "<w:p><w:r><w:t>deep</w:t></w:r></w:p>" + "</w:sdt>" * depth
    assert extract(docx(body)).text == "deep"


def test_a_notebook_nested_too_deeply_is_damaged():
    content = b'{"cells": ' + b"[" * 200_000 + b'"cell_type"'
    assert extract(content, name="x.ipynb").status == "damaged"


def test_an_exception_of_a_reader_is_a_reason_without_addresses(monkeypatch):
    from doctune.text.formats import plain

    def explode(_):
        raise KeyError(f"bad {object()}")
        yield ""

    monkeypatch.setattr(plain, "read", explode)
    monkeypatch.setattr("doctune.text.formats.load", lambda place: explode)
    assert extract(b"text").reason == "its reader failed (KeyError: 'bad <object object>')"


def test_a_missing_library_is_a_mistake_of_the_installation_and_names_the_package(monkeypatch):
    monkeypatch.setattr("doctune.text.formats.load", lambda place: _needs("pptx.shapes"))
    with pytest.raises(ConfigError) as caught:
        extract(b"text")
    assert str(caught.value) == (
        "The package python-pptx, which reads this file format, cannot be imported (No module named 'pptx.shapes'): "
        "pip install python-pptx."
    )


def test_a_second_reader_may_be_missing(docx, monkeypatch):
    monkeypatch.setitem(sys.modules, "docx", None)
    document = extract(docx("</broken>"))
    assert (document.status, document.reason) == ("damaged", "XML is broken: mismatched tag: line 1, column 93")


def test_a_library_that_finds_no_room_is_a_want_of_memory(monkeypatch):
    def finds_no_room(_):
        raise ImportError("libx.so: failed to map segment from shared object")
        yield ""

    monkeypatch.setattr("doctune.text.formats.load", lambda place: finds_no_room)
    assert extract(b"text").status == "out_of_memory"


def _needs(module):
    def read(_):
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)
        yield ""

    return read


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ({"pdf_backend": "x"}, "pdf_backend is 'x'; use one of: pymupdf, pypdfium2."),
        ({"max_chars": 0}, "max_chars is 0; use a number from 1, or None for the whole text."),
        ({"max_bytes": 0}, "max_bytes is 0; use a number of bytes from 1."),
    ],
)
def test_settings_that_make_no_sense_are_refused(mistake, message):
    with pytest.raises(ConfigError) as caught:
        ExtractSettings(**mistake)
    assert str(caught.value) == message


def test_the_key_tells_settings_apart_and_is_the_same_in_another_process():
    assert ExtractSettings().key() != ExtractSettings(scrub=True).key() != ExtractSettings(max_chars=None).key()
    code = "from doctune.text.extract import ExtractSettings; print(ExtractSettings().key())"
    other = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": "7"},
        check=True,
    )
    assert other.stdout.strip() == ExtractSettings().key()


def test_no_library_is_imported_for_plain_text():
    code = (
        "import sys; from doctune.text.extract import extract; extract(b'words');"
        "print(sorted({'pymupdf', 'lxml', 'docx', 'openpyxl', 'chardet', 'numpy', 'torch'} & set(sys.modules)))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


TEXTS = st.text(
    alphabet=st.one_of(st.characters(codec="utf-8"), st.sampled_from(" \t\n\r\u00a0e\u0301@.+0123456789[-a:")),
    max_size=3000,
)


@settings(max_examples=150, deadline=None)
@given(text=TEXTS, max_chars=st.integers(1, 2500), scrub=st.booleans(), normalise=st.booleans())
def test_bounded_text_is_a_prefix_of_the_whole_text(text, max_chars, scrub, normalise):
    content = text.encode("utf-8")
    whole = extract(content, ExtractSettings(max_chars=None, scrub=scrub, normalise=normalise)).text
    bounded = extract(content, ExtractSettings(max_chars=max_chars, scrub=scrub, normalise=normalise)).text
    assert whole.startswith(bounded)
    assert len(bounded) <= max_chars
    assert whole[:max_chars].rstrip() == bounded.rstrip()


@settings(max_examples=30, deadline=None)
@given(
    words=st.lists(st.text("ab é\n", min_size=1, max_size=400), min_size=1, max_size=60), max_chars=st.integers(1, 6000)
)
def test_bounded_text_of_a_word_file_is_a_prefix_too(words, max_chars):
    import io
    import zipfile

    body = "".join(f"<w:p><w:r><w:t>{word}</w:t></w:r></w:p>" for word in words)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        namespace = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
        archive.writestr("word/document.xml", f'<w:document xmlns:w="{namespace}">{body}</w:document>')
    whole = extract(buffer.getvalue(), WHOLE).text
    bounded = extract(buffer.getvalue(), ExtractSettings(max_chars=max_chars)).text
    assert whole[:max_chars].rstrip() == bounded
