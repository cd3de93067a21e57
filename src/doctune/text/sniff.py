"""Which format a file has, by its content; the suffix only breaks ties between kinds of text."""

from __future__ import annotations

import re

from doctune.text.encoding import is_text
from doctune.text.ooxml import main_part
from doctune.text.reading import Reading, describe
from doctune.text.refusal import Refused

_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_TEXT_SUFFIXES = {
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".xml": "xml",
    ".svg": "xml",
    ".md": "markdown",
    ".markdown": "markdown",
    ".eml": "email",
}
_CODE_SUFFIXES = frozenset(
    ".bash .bat .c .cc .cfg .clj .cmake .cpp .cs .css .cu .dart .erl .ex .f90 .go .gradle .groovy .h .hpp .hs .ini"  # noqa: SIM905
    " .java .jl .js .jsx .kt .lisp .lua .m .mk .ml .mm .php .pl .pm .ps1 .py .pyi .r .rb .rs .scala .scss .sh .sql"
    " .swift .tcl .tf .toml .ts .tsx .vb .vbs .vue .yaml .yml .zig .zsh".split()
)
_PACKAGE_SUFFIXES = frozenset(
    ".docx .docm .dotx .dotm .xlsx .xlsm .xltx .xltm .xlsb .pptx .pptm .potx .ppsx .odt .ods .odp .epub".split()  # noqa: SIM905
)
_NOT_READ = {
    "worddocument": "legacy Word (.doc) is not read: save it as .docx",
    "powerpoint document": "legacy PowerPoint (.ppt) is not read: save it as .pptx",
    "__properties_version1.0": "an Outlook message (.msg) is not read: save it as .eml",
    "visiodocument": "legacy Visio (.vsd) is not read: export it as PDF",
}
# Atomic and possessive: a file of many comments must not be tried in every way of joining them.
_HTML = re.compile(
    rb"\s*+(?:<\?xml[^>]*+>\s*+)?+(?:(?><!--.*?-->)\s*+)*+<(?:!doctype\s+html|html|head|body)\b", re.I | re.S
)
_XML = re.compile(rb"\s*<\?xml\b")
_WORD_XML = re.compile(rb"<(?:\w+:)?(?:wordDocument|package)\s[^>]*(?:word/2003/wordml|office/2006/xmlPackage)")
_MAIL_HEADER = re.compile(
    rb"^(?:Received|Return-Path|Message-ID|MIME-Version|From|To|Subject|Date|Delivered-To|X-[\w-]+|Content-Type):",
    re.I | re.M,
)
_PDF_OBJECT = re.compile(rb"\d\s+\d+\s*obj\b")
_NOTEBOOK = re.compile(rb'\s*\{.*"(?:cells|nbformat|worksheets)"\s*:', re.S)


def sniff(reading: Reading) -> str:
    """The format: a key of `formats.READERS`.

    Raises:
        Refused: the file is of a kind that is known and not read (encrypted Office files, `.doc`, `.msg`, ...).
    """
    head = reading.head
    if _is_pdf(head, reading.suffix):
        return "pdf"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _kind_of_package(reading)
    if head.startswith(_OLE):
        return _kind_of_ole(reading)
    if head.lstrip().startswith(b"{\\rt"):
        return "rtf"
    return _kind_of_text(head, reading.suffix) if is_text(head) else "binary"


def _is_pdf(head: bytes, suffix: str) -> bool:
    """The mark may stand anywhere in the first 1,024 bytes; a text that only speaks of it is not a PDF."""
    if head.lstrip().startswith(b"%PDF-"):
        return True
    if suffix == ".pdf":
        return b"%PDF-" in head[:1024] or _PDF_OBJECT.search(head) is not None
    return b"%PDF-" in head[:1024] and not is_text(head)


def _kind_of_package(reading: Reading) -> str:
    """A zip file: an Office, OpenDocument or EPUB package, or an archive (a binary)."""
    try:
        package = reading.package
    except Refused:
        if reading.suffix in _PACKAGE_SUFFIXES:
            raise
        return "binary"
    main = main_part(package)
    if main:
        return _kind_of_office(main, reading)
    if package.has("mimetype"):
        mimetype = package.open("mimetype").read(100).decode("ascii", "replace")
        for word, kind in (("epub", "epub"), ("spreadsheet", "ods"), ("opendocument", "odt")):
            if word in mimetype:
                return kind
    if package.has("META-INF/container.xml"):
        return "epub"
    if package.has("[Content_Types].xml") and reading.suffix in _PACKAGE_SUFFIXES:
        raise Refused("damaged", "an Office package whose document part is missing")
    return "binary"


def _kind_of_office(main: str, reading: Reading) -> str:
    """Word, Excel or PowerPoint: by the folder of the main part, else by its content type."""
    folder = main.partition("/")[0].lower()
    if folder == "xl":
        return "xlsb" if main.endswith(".bin") else "xlsx"
    if folder in ("word", "ppt"):
        return {"word": "docx", "ppt": "pptx"}[folder]
    types = (
        reading.package.open("[Content_Types].xml").read(2**20) if reading.package.has("[Content_Types].xml") else b""
    )
    for word, kind in ((b"wordprocessingml", "docx"), (b"spreadsheetml", "xlsx"), (b"presentationml", "pptx")):
        if word in types:
            return kind
    return "binary"


def _kind_of_ole(reading: Reading) -> str:
    """A compound file: an old Excel workbook, an encrypted Office file, or a kind that is not read."""
    import olefile  # type: ignore[import-untyped]

    reading.file.seek(0)
    try:
        with olefile.OleFileIO(reading.file) as container:
            streams = {path[0].lower() for path in container.listdir()}
    except Exception as error:  # olefile raises many kinds on damaged files, all of them mean the same
        raise Refused("damaged", f"the compound file cannot be opened: {describe(error)}") from error
    if "encryptedpackage" in streams:
        raise Refused("encrypted", "an Office file protected by a password")
    if streams & {"workbook", "book"} and "encryption" in streams:
        raise Refused("encrypted", "the workbook needs a password")
    if streams & {"workbook", "book"}:
        return "xls"
    for stream, reason in _NOT_READ.items():
        if stream in streams:
            raise Refused("unsupported", reason)
    raise Refused("unsupported", "a compound (OLE) file of a kind that is not read")


def _kind_of_text(head: bytes, suffix: str) -> str:
    if _WORD_XML.search(head):
        return "word_xml"
    if _HTML.match(head):
        return "html"
    if suffix == ".ipynb" or (_NOTEBOOK.match(head) and b'"cell_type"' in head):
        return "notebook" if head.lstrip().startswith(b"{") else "json"
    if len({name.lower() for name in _MAIL_HEADER.findall(_first_paragraph(head))}) >= 3:
        return "email"
    if _XML.match(head) and suffix not in _CODE_SUFFIXES:
        return "html" if suffix == ".xhtml" else "xml"
    return _TEXT_SUFFIXES.get(suffix) or ("code" if suffix in _CODE_SUFFIXES else "text")


def _first_paragraph(head: bytes) -> bytes:
    """What stands before the first empty line: in an e-mail, its headers."""
    text = head.replace(b"\r\n", b"\n").lstrip()
    return text.partition(b"\n\n")[0] if _MAIL_HEADER.match(text) else b""
