"""What the scanners find is what the readers of events find, however the XML is written, cut or broken."""

import io
import re
from unittest import mock

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from doctune.text import xmlscan
from doctune.text.formats.excel_sheet import SheetEvents, SheetScanner
from doctune.text.formats.excel_strings import SharedStrings, StringEvents, StringScanner
from doctune.text.formats.word import WordEvents, WordScanner
from doctune.text.refusal import Refused
from doctune.text.xmlscan import Unusual, read_elements, read_text, scan_pieces, unescape
from doctune.text.xmlstream import stream_elements, stream_pieces, stream_text

WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
STRICT = "http://purl.oclc.org/ooxml/wordprocessingml/main"
COMPATIBILITY = "http://schemas.openxmlformats.org/markup-compatibility/2006"
DRAWING = "http://schemas.openxmlformats.org/drawingml/2006/main"
MATH = "http://schemas.openxmlformats.org/officeDocument/2006/math"
SHEET = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
WORD_ROOT = f'w:document xmlns:w="{WORD}" xmlns:m="{MATH}" xmlns:a="{DRAWING}" xmlns:ve="{COMPATIBILITY}"'
# What an element may hold: with Word anything, since text boxes hold paragraphs again.
WORD_NAMES = [
    *("w:p", "w:r", "w:t", "m:t", "a:t", "a:p", "w:tbl", "w:tr", "w:tc", "w:tcPr", "w:pPr", "w:del", "w:delText"),
    *("w:moveFrom", "w:moveFromRangeStart", "w:tab", "w:tabs", "w:br", "w:cr", "w:noBreakHyphen", "w:ptab"),
    *("w:txbxContent", "ve:Fallback", "ve:Choice"),
]
WORD_CHILDREN = {"": WORD_NAMES} | dict.fromkeys(WORD_NAMES, WORD_NAMES)
SHEET_CHILDREN = {
    "": ["cols", "sheetData", "headerFooter", "conditionalFormatting"],
    "cols": ["col"],
    "sheetData": ["row"],
    "row": ["c", "extLst"],
    "c": ["v", "f", "is", "extLst"],
    "is": ["t", "r"],
    "r": ["t", "rPr"],
    "headerFooter": ["oddHeader", "oddFooter"],
    "conditionalFormatting": ["formula"],
}
STRING_CHILDREN = {"": ["si"], "si": ["t", "r", "rPh", "phoneticPr"], "r": ["rPr", "t"], "rPh": ["t"]}

TEXTS = st.one_of(
    st.text("ab \t\n\r&<>\"'é\u4e2d\U0001f600", max_size=5),
    st.sampled_from(["0", "1", "12", "42.5", '&"Arial"&12Page &P']),
)
ATTRIBUTES = st.sampled_from(
    [
        "",
        ' xml:space="preserve"',
        ' t="s"',
        " t='str' s='1'",
        ' s="1" t="n"',
        ' a="x > y"',
        " b='say \"/>\"'",
        '\n c="1"\t',
    ]
)


def escape(text):
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("\U0001f600", "&#x1F600;").replace("é", "&#233;")


def content(children, parent="", prefix=""):
    """XML of elements and text that may stand within an element."""
    names = children.get(parent)
    text = TEXTS.map(escape)
    if names is None:
        return text
    element = st.sampled_from(names).flatmap(
        lambda name: st.builds(
            lambda attributes, inner: (
                f"<{prefix}{name}{attributes}" + (f">{inner}</{prefix}{name}>" if inner else "/>")
            ),
            ATTRIBUTES,
            st.deferred(lambda: content(children, name, prefix)),
        )
    )
    return st.lists(st.one_of(element, element, text), max_size=3).map("".join)


def outcome(texts):
    """What is given, and the reason why no more is."""
    given_texts = []
    try:
        given_texts.extend(texts)
    except Refused as refusal:
        return "".join(given_texts), refusal.reason
    return "".join(given_texts), None


def text_of_cell(type_, style, value, formula):
    return f"{type_}|{style}|{value}|{formula}" if value or formula else ""


READERS = {
    "word": (WordScanner, WordEvents),
    "sheet": (lambda: SheetScanner(text_of_cell), lambda: SheetEvents(text_of_cell)),
}
PARTS = st.one_of(
    st.tuples(st.just("word"), content(WORD_CHILDREN).map(lambda body: f"<{WORD_ROOT}>{body}</w:document>")),
    st.tuples(
        st.just("sheet"), content(SHEET_CHILDREN).map(lambda body: f'<worksheet xmlns="{SHEET}">{body}</worksheet>')
    ),
    st.tuples(
        st.just("sheet"),
        content(SHEET_CHILDREN, prefix="x:").map(lambda body: f'<x:worksheet xmlns:x="{SHEET}">{body}</x:worksheet>'),
    ),
)
DECLARATIONS = st.sampled_from(
    ["", '<?xml version="1.0"?>', '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\r\n']
)


@given(part=PARTS, declaration=DECLARATIONS, chunk_bytes=st.integers(1, 300))
@example(part=("word", f"<{WORD_ROOT}><w:t>a</w:t><w:t>b<w:x/>c</w:t></w:document>"), declaration="", chunk_bytes=40)
@example(
    part=("sheet", f'<worksheet xmlns="{SHEET}"><c><v>1<x/>2</v></c></worksheet>'), declaration="", chunk_bytes=300
)
def test_a_scanner_gives_the_text_of_the_events(part, declaration, chunk_bytes):
    kind, xml = part
    scanner, events = READERS[kind]
    content = (declaration + xml).encode()
    with mock.patch.object(xmlscan, "CHUNK_BYTES", chunk_bytes):
        scanned = outcome(read_text(lambda: io.BytesIO(content), scanner(), events))
    assert scanned == outcome(stream_text(io.BytesIO(content), events()))


@given(
    part=PARTS, cut=st.tuples(st.integers(0, 600), st.integers(0, 4)), noise=st.sampled_from([b"", b"<", b"&", b"\xff"])
)
def test_broken_xml_is_damaged_or_read_in_spite_of_it(part, cut, noise):
    kind, xml = part
    scanner, events = READERS[kind]
    content = xml.encode()
    start, size = cut
    broken = content[:start] + noise + content[start + size :]
    with mock.patch.object(xmlscan, "CHUNK_BYTES", 64):
        scanned = outcome(read_text(lambda: io.BytesIO(broken), scanner(), events))
    expected = outcome(stream_text(io.BytesIO(broken), events()))
    # Tags that pair up are enough for a scanner: what else is wrong between them does not keep it from the text.
    assert scanned == expected or (expected[1] is not None and scanned[1] in (None, expected[1]))


@given(strings=content(STRING_CHILDREN), chunk_bytes=st.integers(1, 200))
def test_shared_strings_are_those_of_the_events(strings, chunk_bytes):
    xml = f'<sst xmlns="{SHEET}">{strings}</sst>'.encode()

    class Package:
        def open(self, _):
            return io.BytesIO(xml)

    expected = [string for pieces in stream_pieces(io.BytesIO(xml), StringEvents()) for string in list(pieces)]
    with mock.patch.object(xmlscan, "CHUNK_BYTES", chunk_bytes):
        shared = SharedStrings(Package(), "sharedStrings.xml")
        assert [shared.get(index) for index in range(len(expected))] == expected
        assert shared.get(len(expected)) == ""


def scanned(scanner, xml):
    return "".join(text for pieces in scan_pieces(io.BytesIO(xml.encode()), scanner) for text in pieces)


def test_ordinary_parts_are_read_without_events():
    run = '<w:r><w:t xml:space="preserve">a &amp; b</w:t></w:r>'
    body = f'<w:p w:rsidR="1"><w:pPr><w:tabs><w:tab/></w:tabs></w:pPr>{run}</w:p>'
    assert scanned(WordScanner(), f"<{WORD_ROOT}>{body}</w:document>") == "a & b\n"
    rows = '<row r="1"><c r="A1" s="2"><v>5</v></c><c r="B1" t="inlineStr"><is><t>x</t></is></c></row>'
    sheet = SheetScanner(text_of_cell)
    assert scanned(sheet, f'<worksheet xmlns="{SHEET}">{rows}</worksheet>') == "|2|5|\tinlineStr||x|\n"
    assert scanned(StringScanner(), f'<sst xmlns="{SHEET}"><si><t>a</t></si><si><r><t>b</t></r></si></sst>') == "ab"


@pytest.mark.parametrize(
    "xml",
    [
        f'<w:document xmlns:w="{STRICT}" xmlns:x="{WORD}"><x:t>a</x:t></w:document>',
        f'<document xmlns="{WORD}"><t>a</t></document>',
        f'<w:document xmlns:w="{WORD}"><w:p xmlns:w="urn:other"><w:t>a</w:t></w:p></w:document>',
        f'<w:document xmlns:w="{WORD}"><!-- <w:t>a</w:t> --></w:document>',
        f'<w:document xmlns:w="{WORD}"><w:t><![CDATA[a]]></w:t></w:document>',
        f'<w:document xmlns:w="{WORD}"><?word <w:t>a</w:t>?></w:document>',
        f'<!DOCTYPE w [<!ENTITY a "b">]><w:document xmlns:w="{WORD}"><w:t>&a;</w:t></w:document>',
        f'<?xml version="1.0" encoding="latin-1"?><w:document xmlns:w="{WORD}"><w:t>a</w:t></w:document>',
        f'<w:document xmlns:w="{WORD}"><w:t>a</w:document>',
    ],
)
def test_what_is_out_of_the_ordinary_is_left_to_the_events(xml):
    with pytest.raises(Unusual):
        scanned(WordScanner(), xml)


def test_a_very_long_text_is_not_looked_at_again_with_every_chunk():
    text = "a" * 200_000
    xml = f"<{WORD_ROOT}><w:t>b</w:t><w:t>{text}</w:t></w:document>"
    with pytest.raises(Unusual):
        scanned(WordScanner(), xml)
    assert outcome(read_text(lambda: io.BytesIO(xml.encode()), WordScanner(), WordEvents)) == (f"b{text}", None)


def test_a_broken_list_of_strings_is_said_to_be_broken_each_time():
    class Package:
        def open(self, _):
            return io.BytesIO(f'<sst xmlns="{SHEET}"><si><t>a</t></si><si><t>b</oops>'.encode())

    shared = SharedStrings(Package(), "sharedStrings.xml")
    assert shared.get(0) == "a"
    for _ in range(2):
        with pytest.raises(Refused, match="XML is broken"):
            shared.get(1)


@pytest.mark.parametrize(
    "xml",
    [
        '<r:list xmlns:r="urn:r"><r:item Id="a&amp;b" r:id=\'c\'/><other/><item Id="d">x</item></r:list>',
        "<list><!-- <item/> --><item Id='a'/></list>",
        '<?xml version="1.0" encoding="utf-16"?><list><item/></list>',
        "<list><item Id='a'/>",
        "",
    ],
)
def test_elements_are_those_of_the_events(xml):
    content = xml.encode("utf-16" if "utf-16" in xml else "utf-8")
    expected, found = [], []
    for elements, into in (
        (stream_elements(io.BytesIO(content), ("item",)), expected),
        (read_elements(lambda: io.BytesIO(content), ("item",)), found),
    ):
        try:
            into.extend(elements)
        except Refused as refusal:
            into.append(refusal.reason)
    assert found == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("&lt;&gt;&amp;&quot;&apos;", "<>&\"'"),
        ("&amp;lt;", "&lt;"),
        ("&#150;&#x2013;", "\x96\u2013"),
        ("plain", "plain"),
    ],
)
def test_references_are_those_of_xml(text, expected):
    assert unescape(text) == expected


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("<w:p><w:t>a</w:t>", "no element found|unclosed|mismatched"),
        ("<w:t>a & b</w:t>", "not well-formed"),
        ("<w:t>a</w:t><w:t>&nbsp;</w:t>", "undefined entity"),
        ("<w:t>a</w:t><w:t>&#0;</w:t>", "invalid character"),
    ],
)
def test_tags_that_do_not_pair_up_and_unknown_references_are_said_to_be_broken(broken, reason):
    content = f"<{WORD_ROOT}>{broken}</w:document>".encode()
    text, said = outcome(read_text(lambda: io.BytesIO(content), WordScanner(), WordEvents))
    assert said.startswith("XML is broken: ")
    assert re.search(reason, said)
    assert text in ("", "a", "a ", "a\n")
