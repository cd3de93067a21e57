from __future__ import annotations

import base64
import hashlib

import pytest

from doctune.reports.page import bar, document, escaped, isolated, path_code


@pytest.mark.parametrize(
    ("text", "html"),
    [
        (
            "<script>alert('x & \"y\"')</script>",
            "&lt;script&gt;alert(&#x27;x &amp; &quot;y&quot;&#x27;)&lt;/script&gt;",
        ),
        ("عقد 合同", "عقد 合同"),
        ("👩\u200d👧 می\u200cخواهم", "👩\u200d👧 می\u200cخواهم"),  # joiners stay: they are part of the letters
        ("a\n\tb", "a\n\tb"),
        ("evil\u202etxt.exe", "evil⟨U+202E⟩txt.exe"),
        ("bell\x07, \udcff", "bell⟨U+0007⟩, ⟨U+DCFF⟩"),
        (None, "None"),
    ],
)
def test_texts_stay_texts(text, html):
    assert escaped(text) == html
    html.encode("utf-8")


def test_names_keep_their_direction_to_themselves():
    assert isolated("a<b") == "<bdi>a&lt;b</bdi>"
    assert path_code("/a&b") == '<code><bdi dir="ltr">/a&amp;b</bdi></code>'


def test_a_bar_is_as_wide_as_its_share():
    assert bar(0.25) == '<span class="bar" style="width:25.0%"></span>'
    assert bar(0) == ""


def policy_of(read):
    return next(meta["content"] for meta in read.named("meta") if meta.get("http-equiv") == "Content-Security-Policy")


def test_a_document_loads_nothing_and_runs_nothing(read_html):
    read = read_html(document("a<b", "<p>text</p>"))
    assert policy_of(read) == (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'none'; "
        "base-uri 'none'; form-action 'none'"
    )
    assert (read.open, read.named("script"), "a<b" in read.text) == ([], [], True)


def test_a_document_runs_its_own_script_alone(read_html):
    read = read_html(document("title", "", style="p { color: red; }", script="let a = 1 < 2;"))
    digest = base64.b64encode(hashlib.sha256(b"let a = 1 < 2;").digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy_of(read)
    assert "let a = 1 < 2;" in read.text
    assert any(text.endswith("p { color: red; }") for text in read.text)
