"""The text of a workbook is its sheets' values, as a person sees them."""

import datetime
import io

import openpyxl
import pytest

from doctune.text.extract import ExtractSettings, extract
from doctune.text.formats.excel import is_date_code

WHOLE = ExtractSettings(max_chars=None)


def test_sheets_come_in_their_order_under_their_names(xlsx):
    content = xlsx(
        {
            "Zeta": '<row><c t="inlineStr"><is><t>x</t></is></c></row>',
            "Empty": "",
            "Alpha": "<row><c><v>1</v></c></row>",
        }
    )
    assert extract(content, WHOLE).text == "Zeta\nx\nAlpha\n1"


def test_shared_strings_leave_out_phonetic_guides(xlsx):
    strings = "<si><r><t>東</t></r><r><t>京</t></r><rPh><t>とうきょう</t></rPh></si><si><t>second</t></si>"
    content = xlsx({"S": '<row><c t="s"><v>1</v></c><c t="s"><v>0</v></c><c t="s"><v>9</v></c></row>'}, strings)
    assert extract(content, WHOLE).text == "S\nsecond\t東京"


def test_formulas_give_their_cached_value_or_themselves(xlsx):
    content = xlsx({"S": "<row><c><f>1+1</f><v>2</v></c><c><f>A1*2</f></c></row>"})
    assert extract(content, WHOLE).text == "S\n2\t=A1*2"


def test_numbers_lose_rounding_noise_and_dates_become_iso_dates(xlsx):
    styles = (
        '<numFmts><numFmt numFmtId="164" formatCode="[Red]yyyy/mm/dd;@"/></numFmts>'
        '<cellXfs><xf numFmtId="0"/><xf numFmtId="14"/><xf numFmtId="164"/><xf numFmtId="2"/></cellXfs>'
    )
    cells = (
        '<c><v>0.30000000000000004</v></c><c s="1"><v>45000</v></c><c s="2"><v>45000.5</v></c><c s="3"><v>7.0</v></c>'
    )
    text = extract(xlsx({"S": f"<row>{cells}</row>"}, styles=styles), WHOLE).text
    assert text == "S\n0.30000000000000004\t2023-03-15\t2023-03-15 12:00:00\t7"


def test_workbooks_of_the_1904_calendar_count_from_1904(xlsx):
    styles = '<cellXfs><xf numFmtId="14"/><xf numFmtId="14"/></cellXfs>'
    content = xlsx({"S": '<row><c s="1"><v>1</v></c></row>'}, styles=styles, workbook='<workbookPr date1904="1"/>')
    assert extract(content, WHOLE).text == "S\n1904-01-02"


def test_a_sheet_that_claims_a_million_columns_costs_its_cells(xlsx):
    rows = '<row r="1048576"><c r="A1048576"><v>1</v></c><c r="XFD1048576"><v>2</v></c></row>'
    assert extract(xlsx({"Wide": rows}), WHOLE).text == "Wide\n1\t2"


def test_a_broken_sheet_costs_only_what_follows_in_it(xlsx):
    content = xlsx({"Bad": "<row><c><v>1</v></c></row><row><c><v>2</c>", "Good": "<row><c><v>3</v></c></row>"})
    document = extract(content, WHOLE)
    assert (document.status, document.text) == ("ok", "Bad\n1\nGood\n3")
    assert "the sheet 'Bad' could not be read" in document.reason


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("yyyy-mm-dd", True),
        ("h:mm", True),
        ("General", False),
        ('0.00 "days"', False),
        ("[h]:mm", True),
        ("[Red]0", False),
    ],
)
def test_date_formats_are_told_from_number_formats(code, expected):
    assert is_date_code(code) is expected


def test_openpyxl_reads_the_same_values():
    written = openpyxl.Workbook()
    sheet = written.active
    sheet.title = "Values"
    rows = [["name", "amount", "day"], ["Ä & B", 12.5, datetime.datetime(2024, 2, 29)], ["x", True, 3]]
    for row in rows:
        sheet.append(row)
    buffer = io.BytesIO()
    written.save(buffer)
    assert extract(buffer.getvalue(), WHOLE).text == "Values\nname\tamount\tday\nÄ & B\t12.5\t2024-02-29\nx\tTRUE\t3"


def test_sheets_and_strings_that_are_missing_are_named(package):
    relations = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    packaged = 'xmlns="http://schemas.openxmlformats.org/package/2006/relationships"'
    main = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    sheets = "".join(f'<sheet name="{name}" r:id="{name}"/>' for name in ("there", "gone"))
    links = "".join(
        f'<Relationship Id="{name}" Type="{relations}/worksheet" Target="{name}.xml"/>' for name in ("there", "gone")
    )
    content = package(
        {
            "_rels/.rels": f'<Relationships {packaged}><Relationship Id="a" Type="{relations}/officeDocument" '
            'Target="xl/workbook.xml"/></Relationships>',
            "xl/workbook.xml": f'<workbook {main} xmlns:r="{relations}"><sheets>{sheets}</sheets></workbook>',
            "xl/_rels/workbook.xml.rels": f"<Relationships {packaged}>{links}</Relationships>",
            "xl/there.xml": f'<worksheet {main}><row><c t="s"><v>0</v></c><c><v>5</v></c></row></worksheet>',
        }
    )
    document = extract(content, WHOLE)
    assert (document.status, document.text) == ("ok", "there\n5")
    assert "the sheet 'gone' could not be read: its part is missing" in document.reason
    assert "the shared strings could not be read: their part is missing" in document.reason
