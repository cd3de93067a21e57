"""Files for the extraction tests, made on the spot: packages from their parts, and an encrypted compound file."""

from __future__ import annotations

import io
import struct
import zipfile

import pytest

WORD = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
SHEET = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
RELATIONSHIP = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = 'xmlns="http://schemas.openxmlformats.org/package/2006/relationships"'


def _relationships(*pairs):
    items = "".join(
        f'<Relationship Id="r{number}" Type="{RELATIONSHIP}/{kind}" Target="{target}"/>'
        for number, (kind, target) in enumerate(pairs)
    )
    return f"<Relationships {_PACKAGE}>{items}</Relationships>"


@pytest.fixture
def package():
    """A function: parts by name -> the bytes of a zip file."""

    def build(parts):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in parts.items():
                archive.writestr(name, content)
        return buffer.getvalue()

    return build


@pytest.fixture
def docx(package):
    """A function: the XML inside w:body, and other parts by (kind, name) -> a Word file."""

    def build(body, declaration="", **sides):
        parts = {
            "_rels/.rels": _relationships(("officeDocument", "word/document.xml")),
            "word/document.xml": f"{declaration}<w:document {WORD}><w:body>{body}</w:body></w:document>",
            "word/_rels/document.xml.rels": _relationships(*((kind, f"{kind}.xml") for kind in sides)),
        }
        parts |= {f"word/{kind}.xml": f"<w:x {WORD}>{content}</w:x>" for kind, content in sides.items()}
        return package(parts)

    return build


@pytest.fixture
def xlsx(package):
    """A function: the XML inside sheetData per sheet name, and other parts -> an Excel file."""

    def build(sheets, strings="", styles="", workbook=""):
        numbered = list(enumerate(sheets.items()))
        listed = "".join(f'<sheet name="{name}" r:id="r{number}"/>' for number, (name, _) in numbered)
        links = [("worksheet", f"sheet{number}.xml") for number, _ in numbered]
        parts = {
            "_rels/.rels": _relationships(("officeDocument", "xl/workbook.xml")),
            "xl/workbook.xml": f'<workbook {SHEET} xmlns:r="{RELATIONSHIP}">{workbook}<sheets>{listed}</sheets>'
            "</workbook>",
            "xl/_rels/workbook.xml.rels": _relationships(
                *links, ("sharedStrings", "sharedStrings.xml"), ("styles", "styles.xml")
            ),
            "xl/sharedStrings.xml": f"<sst {SHEET}>{strings}</sst>",
            "xl/styles.xml": f"<styleSheet {SHEET}>{styles}</styleSheet>",
        }
        for number, (_, rows) in numbered:
            parts[f"xl/sheet{number}.xml"] = f"<worksheet {SHEET}><sheetData>{rows}</sheetData></worksheet>"
        return package(parts)

    return build


@pytest.fixture
def compound():
    """A function: names of empty streams (three at most) -> a compound (OLE) file."""

    def entry(name, kind, child=0xFFFFFFFF, right=0xFFFFFFFF):
        raw = (name + "\0").encode("utf-16-le") if name else b""
        return (
            raw.ljust(64, b"\0")
            + struct.pack("<HBBIII", len(raw), kind, 1, 0xFFFFFFFF, right, child)
            + bytes(36)
            + struct.pack("<IQ", 0xFFFFFFFE, 0)
        )

    def build(*streams):
        header = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(16)
        header += struct.pack("<HHHHH", 0x3E, 3, 0xFFFE, 9, 6) + bytes(6)
        header += struct.pack("<IIIIIIIII", 0, 1, 1, 0, 4096, 0xFFFFFFFE, 0, 0xFFFFFFFE, 0)
        header += struct.pack("<I", 0) + b"\xff" * 432
        table = struct.pack("<II", 0xFFFFFFFD, 0xFFFFFFFE) + b"\xff" * 504
        entries = [entry("Root Entry", 5, child=1)]
        for number, name in enumerate(streams, start=1):
            entries.append(entry(name, 2, right=number + 1 if number < len(streams) else 0xFFFFFFFF))
        entries += [bytes(128)] * (4 - len(entries))
        return header + table + b"".join(entries)

    return build
