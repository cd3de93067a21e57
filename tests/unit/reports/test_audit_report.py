import pytest

from doctune.reports.audit import MAX_CLASS_LINES, page, summarize


@pytest.fixture
def report():
    """The JSON of an audit with one finding of each severity."""
    findings = [
        {
            "kind": "same_content_two_labels",
            "severity": "error",
            "message": "1 text under two labels. Decide.",
            "count": 1,
            "examples": ["/data/a.txt (x <b>) = /data/b.txt (y)"],
        },
        {
            "kind": "empty_files",
            "severity": "warning",
            "message": "2 files " + "long " * 30,
            "count": 2,
            "examples": [],
        },
        {"kind": "cut_documents", "severity": "info", "message": "Cut.", "count": 1, "examples": ["1", "2", "3", "4"]},
    ]
    facts = {"rows": 3, "documents": 2, "different": 2, "median_tokens": 40, "cut_share": 0.5}
    empty = {"rows": 1, "documents": 0, "different": 0, "median_tokens": None, "cut_share": None}
    quantiles = {"min": 1, "p50": 200, "max": 4096}
    return {
        "schema": 1,
        "totals": {"error": 1, "warning": 1, "info": 1},
        "source": "a&b.csv",
        "root": "/data",
        "rows": 4,
        "documents": 2,
        "different": 2,
        "findings": findings,
        "classes": {"x <b>": facts, "y": empty},
        "lengths": {
            "characters": quantiles,
            "tokens": quantiles,
            "counted_by": "words",
            "max_length": 512,
            "cut": 1,
            "cut_share": 0.5,
            "read_up_to_chars": 4096,
            "at_that_bound": 1,
        },
    }


@pytest.fixture
def clean(report):
    return report | {"findings": [], "totals": {"error": 0, "warning": 0, "info": 0}}


def test_the_text_says_it_all_in_a_page(report):
    long = "long " * 30
    assert summarize(report) == (
        "doctune audit: a&b.csv\n"
        "  4 rows, 2 usable documents in 1 class; without copies and near-copies 2 (compared in their first\n"
        "  4,096 characters)\n"
        "\n"
        "  1 error, 1 warning, 1 note\n"
        "\n"
        "ERROR    1 text under two labels. Decide.\n"
        "           a.txt (x <b>) = b.txt (y)\n"
        "\n"
        f"WARNING  2 files {long[:79]}\n"
        f"         {long[80:].strip()}\n"
        "\n"
        "NOTE     Cut.\n"
        "           1\n"
        "           2\n"
        "           3\n"
        "\n"
        "  class  documents  different  median tokens    cut\n"
        "  x <b>          2          2             40    50%\n"
        "  y              0          0              –      –\n"
        "\n"
        "  length             min       p50       max\n"
        "  characters           1       200     4,096\n"
        "  tokens               1       200     4,096\n"
        "  Tokens by words; a window of 512 cuts 50% of the documents. Files were read up to 4,096\n"
        "  characters, which 1 document reached: those are longer than the table says.\n"
    )


def test_nothing_found_is_said(clean):
    assert "\n  nothing found\n" in summarize(clean)
    assert "<p>Nothing found.</p>" in page(clean)


def test_of_many_classes_the_largest_and_the_smallest_are_shown(report):
    facts = report["classes"]["x <b>"]
    classes = {f"class{n:02}": facts | {"documents": n} for n in range(1, 31)}
    lines = summarize(report | {"classes": classes}).splitlines()
    shown = [line.split()[0] for line in lines if line.startswith("  class") and not line.startswith("  class  ")]
    assert shown == [f"class{n:02}" for n in (*range(30, 22, -1), *range(8, 0, -1))]
    assert len(shown) == MAX_CLASS_LINES
    assert "  … 14 more classes" in lines


def test_the_page_needs_nothing_but_itself(report, read_html):
    read = read_html(page(report))
    assert read.open == []
    assert {tag for tag, _ in read.tags}.isdisjoint({"script", "link", "img", "iframe"})
    assert not any({"src", "href", "onclick"} & attributes.keys() for _, attributes in read.tags)
    assert "url(" not in page(report)


def test_the_page_escapes_what_it_shows(report, read_html):
    text = page(report)
    assert "<b>" not in text
    read = read_html(text)
    assert "Audit of a&b.csv" in read.text
    assert "a.txt (x <b>) = b.txt (y)" in read.text


def test_the_page_has_a_card_for_each_finding_and_a_bar_for_each_class(report, read_html):
    read = read_html(page(report))
    assert [attributes["class"] for tag, attributes in read.tags if tag == "article"] == ["error", "warning", "info"]
    assert [attributes["style"] for _, attributes in read.tags if attributes.get("class") == "bar"] == ["width:100.0%"]
    # What spoils scores shows its examples at once.
    assert ["open" in attributes for tag, attributes in read.tags if tag == "details"] == [True, False]


def test_a_source_without_documents_has_no_tables(clean):
    nothing = clean | {"documents": 0, "classes": {}, "lengths": clean["lengths"] | {"characters": {}, "tokens": {}}}
    assert "<table>" not in page(nothing)
    assert "length  " not in summarize(nothing)
