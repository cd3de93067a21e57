"""What Word, Excel and PowerPoint packages share: how their parts refer to each other."""

from __future__ import annotations

import functools
import posixpath
import re
from dataclasses import dataclass
from urllib.parse import unquote

from doctune.text.package import Package
from doctune.text.refusal import Refused
from doctune.text.xmlscan import read_elements


@dataclass(frozen=True)
class Relationship:
    """A reference from one part to another: `kind` is the last word of its type, such as "header" or "worksheet"."""

    id: str
    kind: str
    target: str


def relationships(package: Package, part: str, kinds: tuple[str, ...]) -> list[Relationship]:
    """References of these kinds from a part ("" for the package itself) to other parts of it, in their order.

    References that leave the package are left out: nothing outside is ever read. A missing or broken list is empty or
    short.
    """
    folder, _, name = part.rpartition("/")
    path = f"{folder}/_rels/{name}.rels" if folder else f"_rels/{name}.rels"
    found: list[Relationship] = []
    if not package.has(path):
        return found
    try:
        for _, attributes in read_elements(lambda: package.open(path), ("Relationship",), _mention(kinds)):
            kind = attributes.get("Type", "").rpartition("/")[2]
            if kind in kinds and attributes.get("TargetMode") != "External":
                target = _resolve(folder, attributes.get("Target", ""))
                found.append(Relationship(attributes.get("Id", ""), kind, target))
    except Refused as refusal:
        if refusal.status != "damaged":
            raise
    return found


@functools.cache
def _mention(kinds: tuple[str, ...]) -> re.Pattern[str]:
    """Finds the end of a type that may be one of these."""
    return re.compile(rf"""/(?:{"|".join(kinds)})["']""")


@functools.lru_cache(maxsize=1024)
def _resolve(folder: str, target: str) -> str:
    """The name of the part that a target means; the usual names come again in every package."""
    return posixpath.normpath(posixpath.join("/", folder, unquote(target))).lstrip("/")


def main_part(package: Package) -> str:
    """The name of the part that the package says is its document; "" if it says none."""
    if package.main_part is None:
        package.main_part = _find_main_part(package)
    return package.main_part


def _find_main_part(package: Package) -> str:
    for reference in relationships(package, "", ("officeDocument",)):
        if package.has(reference.target):
            return reference.target
    for usual in ("word/document.xml", "xl/workbook.xml", "xl/workbook.bin", "ppt/presentation.xml"):
        if package.has(usual):
            return usual
    return ""
