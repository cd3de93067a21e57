"""EPUB books: the chapters in reading order, each read as HTML."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from doctune.text.encoding import decode
from doctune.text.markup import html_text
from doctune.text.package import Package
from doctune.text.reading import Reading, describe
from doctune.text.refusal import Refused


def read(reading: Reading) -> Iterator[str]:
    """Title and chapters; chapters that fail are left out with a remark.

    Raises:
        Refused: the book does not say where its chapters are, or is encrypted.
    """
    package = reading.package
    if package.has("META-INF/rights.xml"):
        raise Refused("encrypted", "the book is protected (DRM)")
    package_file = _package_file(package)
    book = _xml(package, package_file)
    yield "".join(f"{title}\n" for title in book.xpath("//*[local-name()='metadata']/*[local-name()='title']/text()"))
    for chapter in _chapters(book, posixpath.dirname(package_file)):
        try:
            yield from html_text([decode(package.open(chapter).read())])
        except Refused as refusal:
            reading.lose(chapter, refusal)


def _package_file(package: Package) -> str:
    paths = _xml(package, "META-INF/container.xml").xpath("//*[local-name()='rootfile']/@full-path")
    if not paths:
        raise Refused("damaged", "the book does not name its package file")
    return str(paths[0])


def _chapters(book: Any, folder: str) -> Iterator[str]:
    """Parts of the book in the order of its spine."""
    targets = {item.get("id"): item.get("href", "") for item in book.xpath("//*[local-name()='item']")}
    for reference in book.xpath("//*[local-name()='itemref']/@idref"):
        target = unquote(targets.get(reference, "").partition("#")[0])
        if target:
            yield posixpath.normpath(posixpath.join(folder, target))


def _xml(package: Package, name: str) -> Any:
    from lxml import etree  # type: ignore[import-untyped]

    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, recover=True)
    content = package.open(name).read()
    try:
        root = etree.fromstring(content, parser)
    except etree.XMLSyntaxError as error:
        raise Refused("damaged", f"{name}: {describe(error)}") from error
    if root is None:
        raise Refused("damaged", f"{name} holds no XML")
    return root
