"""Real documents, well-formed and hostile: every file gets one row, and nothing crashes or hangs."""

import csv
from collections import Counter

import pytest

from doctune.documents import STATUSES
from doctune.text.extract import ExtractSettings
from doctune.text.sandbox import Limits, extract_files
from doctune.text.walk import walk_files


@pytest.fixture(scope="module")
def documents(real_data):
    paths = list(walk_files([real_data / "documents"]))
    found = list(extract_files(paths, ExtractSettings(), Limits(timeout_s=20)))
    assert [document.path for document in found] == [str(path) for path in paths]
    return {
        str(path.relative_to(real_data / "documents")): document for path, document in zip(paths, found, strict=True)
    }


def test_every_file_has_a_status_and_what_has_no_text_has_a_reason(documents):
    assert {document.status for document in documents.values()} <= set(STATUSES)
    assert all(bool(document.text) == (document.status == "ok") for document in documents.values())
    assert all(document.text or document.reason for document in documents.values())
    assert not [
        name for name, document in documents.items() if document.status in ("crashed", "timeout", "out_of_memory")
    ]


def test_whatever_the_plain_libraries_read_is_not_refused(documents, real_data):
    with (real_data / "documents/manifest.csv").open(newline="", encoding="utf-8") as file:
        fine = [row["path"] for row in csv.DictReader(file) if row["plain_library_outcome"] == "ok"]
    refused = {name: documents[name].reason for name in fine if documents[name].status not in ("ok", "empty")}
    assert all("page" in reason or "password" in reason or "document type" in reason for reason in refused.values()), (
        refused
    )


def test_kinds_that_are_not_read_are_unsupported_by_name(documents):
    legacy = Counter(document.status for name, document in documents.items() if name.endswith((".doc", ".msg")))
    assert legacy == {"unsupported": 8}


def test_the_path_is_in_no_text_and_no_reason(documents):
    assert not [
        name
        for name, document in documents.items()
        if name in document.text + document.reason and name != "manifest.csv"
    ]
