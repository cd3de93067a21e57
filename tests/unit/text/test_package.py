"""Parts of zip packages: what the lean directory reader gives is what zipfile gives, and damage is named."""

import io
import zipfile

import pytest

from doctune.text.package import Package
from doctune.text.refusal import Refused


def archive(parts, comment=b"", compression=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, content in parts.items():
            file.writestr(name, content)
        file.comment = comment
    return buffer.getvalue()


PARTS = {"a.xml": b"first" * 50_000, "empty": b"", "Wörter/b.xml": b"second", "C.bin": bytes(range(256)) * 1000}


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
@pytest.mark.parametrize("prefix", [b"", b"#!/bin/sh\n"])
@pytest.mark.parametrize("comment", [b"", b"a comment" * 1000])
def test_every_part_is_read_whole_and_in_pieces(compression, prefix, comment):
    package = Package(io.BytesIO(prefix + archive(PARTS, comment, compression)))
    assert package.names == list(PARTS)
    assert package.declared_bytes() == sum(map(len, PARTS.values()))
    for name, content in PARTS.items():
        assert package.open(name).read() == content
        part = package.open(name)
        assert b"".join(iter(lambda part=part: part.read(1000), b"")) == content


def test_two_parts_may_be_read_in_turns():
    package = Package(io.BytesIO(archive(PARTS)))
    first, second = package.open("a.xml"), package.open("C.bin")
    read = [(first.read(70_000), second.read(70_000)) for _ in range(5)]
    assert b"".join(block for block, _ in read) == PARTS["a.xml"]
    assert b"".join(block for _, block in read) == PARTS["C.bin"]


def test_case_and_slashes_of_names_do_not_matter():
    package = Package(io.BytesIO(archive({"Word\\Document.xml": b"x"})))
    assert package.open("word/document.xml").read() == b"x"
    assert not package.has("word/other.xml")


def test_a_wrong_checksum_is_damage():
    content = archive({"a.xml": b"words words"}, compression=zipfile.ZIP_STORED).replace(b"words words", b"words w0rds")
    with pytest.raises(Refused) as caught:
        Package(io.BytesIO(content)).open("a.xml").read()
    assert (caught.value.status, str(caught.value)) == ("damaged", "compressed data is broken: its checksum is wrong")


def test_a_directory_that_points_elsewhere_is_damage():
    content = archive({"a.xml": b"words"}).replace(b"a.xml", b"b.xml", 1)
    with pytest.raises(Refused) as caught:
        Package(io.BytesIO(content)).open("a.xml")
    assert "its header is not where the directory says" in str(caught.value)


def test_a_package_without_its_directory_is_read_by_its_headers():
    content = archive(PARTS)
    package = Package(io.BytesIO(content[: content.index(b"PK\x01\x02")]))
    assert package.open("C.bin").read() == PARTS["C.bin"]
