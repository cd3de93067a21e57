"""What Word, Excel and PowerPoint packages share: how their parts refer to each other."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from urllib.parse import unquote

from doctune.text.package import Package
from doctune.text.refusal import Refused
from doctune.text.xmlstream import Attributes, for_each_element


@dataclass(frozen=True)
class Relationship:
    """A reference from one part to another: `kind` is the last word of its type, such as "header" or "worksheet"."""

    id: str
    kind: str
    target: str


def relationships(package: Package, part: str = "") -> list[Relationship]:
    """References of a part ("" for the package itself) to other parts of the package, in their order.

    References that leave the package are left out: nothing outside is ever read. A missing or broken list is empty or
    short.
    """
    folder, _, name = part.rpartition("/")
    path = posixpath.join(folder, "_rels", f"{name}.rels")
    found: list[Relationship] = []

    def visit(element: str, attributes: Attributes) -> None:
        if element == "Relationship" and attributes.get("TargetMode") != "External":
            kind = attributes.get("Type", "").rpartition("/")[2]
            target = posixpath.normpath(posixpath.join("/", folder, unquote(attributes.get("Target", ""))))
            found.append(Relationship(attributes.get("Id", ""), kind, target.lstrip("/")))

    if package.has(path):
        try:
            for_each_element(package.open(path), visit)
        except Refused as refusal:
            if refusal.status != "damaged":
                raise
    return found


def main_part(package: Package) -> str:
    """The name of the part that the package says is its document; "" if it says none."""
    for reference in relationships(package):
        if reference.kind == "officeDocument" and package.has(reference.target):
            return reference.target
    for usual in ("word/document.xml", "xl/workbook.xml", "xl/workbook.bin", "ppt/presentation.xml"):
        if package.has(usual):
            return usual
    return ""
