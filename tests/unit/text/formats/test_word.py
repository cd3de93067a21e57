"""What a reader of a Word document sees is in its text, once and in order."""

import io

import docx as python_docx
import pytest

from doctune.text.extract import ExtractSettings, extract

WHOLE = ExtractSettings(max_chars=None)


def p(text):
    return f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>"


def test_headers_come_first_and_notes_and_footers_last(docx):
    content = docx(p("body"), header=p("head"), footnotes=p("note"), comments=p("remark"), footer=p("foot"))
    assert extract(content, WHOLE).text == "head\nbody\nnote\nremark\nfoot"


def test_tables_give_a_line_per_row_and_cells_apart_by_tabs(docx):
    row = f"<w:tr><w:tc>{p('a')}{p('b')}</w:tc><w:tc>{p('c')}</w:tc></w:tr>"
    assert extract(docx(f"<w:tbl>{row}{row}</w:tbl>{p('end')}"), WHOLE).text == "a b\tc\na b\tc\nend"


def test_insertions_stay_and_deletions_and_moved_text_go(docx):
    body = (
        "<w:p><w:r><w:t>one </w:t></w:r><w:ins><w:r><w:t>two</w:t></w:r></w:ins>"
        "<w:del><w:r><w:delText>three</w:delText></w:r></w:del><w:moveFrom><w:r><w:t>four</w:t></w:r></w:moveFrom></w:p>"
    )
    assert extract(docx(body), WHOLE).text == "one two"


def test_a_text_box_is_read_once_although_the_file_holds_it_twice(docx):
    box = f"<w:txbxContent>{p('boxed')}</w:txbxContent>"
    compatible = 'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'
    choices = f"<mc:Choice>{box}</mc:Choice><mc:Fallback>{box}</mc:Fallback>"
    body = f"<w:p><w:r><mc:AlternateContent {compatible}>{choices}</mc:AlternateContent></w:r></w:p>"
    assert extract(docx(body), WHOLE).text == "boxed"


def test_tab_stops_in_paragraph_properties_are_not_tabs(docx):
    run = "<w:r><w:t>a</w:t><w:tab/><w:t>b</w:t><w:br/><w:t>c</w:t></w:r>"
    body = f"<w:p><w:pPr><w:tabs><w:tab/></w:tabs></w:pPr>{run}</w:p>"
    assert extract(docx(body), WHOLE).text == "a\tb\nc"


def test_strict_documents_read_like_transitional_ones(docx, package):
    strict = "http://purl.oclc.org/ooxml"
    relations = (
        '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        f'<Relationship Id="a" Type="{strict}/officeDocument/relationships/officeDocument" Target="word/document.xml"/>'
        "</Relationships>"
    )
    body = f'<w:document xmlns:w="{strict}/wordprocessingml/main"><w:body>{p("strict")}</w:body></w:document>'
    assert extract(package({"_rels/.rels": relations, "word/document.xml": body}), WHOLE).text == "strict"


def test_a_broken_header_costs_only_itself(docx):
    document = extract(docx(p("body"), header="<w:p><w:oops>"), WHOLE)
    assert (document.status, document.text) == ("ok", "body")
    assert "word/header.xml could not be read: XML is broken" in document.reason


def test_a_cut_package_gives_the_text_before_the_cut(docx):
    content = docx("".join(p(f"paragraph {number} {hash((number, 'x'))}") for number in range(3000)))
    document = extract(content[: len(content) // 2], WHOLE, name="cut.docx")
    assert document.status == "ok"
    assert document.text.startswith("paragraph 0")
    assert "paragraph 2999" not in document.text
    assert "partly read (damaged)" in document.reason


@pytest.mark.parametrize("count", [1, 40])
def test_python_docx_finds_the_same_paragraphs_and_cells(count):
    written = python_docx.Document()
    for number in range(count):
        written.add_heading(f"Heading {number}")
        written.add_paragraph(f"Paragraph {number} with ümlauts & <signs>")
        table = written.add_table(2, 2)
        for place, cell in enumerate(cell for row in table.rows for cell in row.cells):
            cell.text = f"cell {number}.{place}"
    buffer = io.BytesIO()
    written.save(buffer)
    expected = []
    for block in python_docx.Document(io.BytesIO(buffer.getvalue())).iter_inner_content():
        rows = getattr(block, "rows", None)
        expected += [block.text] if rows is None else ["\t".join(cell.text for cell in row.cells) for row in rows]
    assert extract(buffer.getvalue(), WHOLE).text.split("\n") == expected
