import pytest

from doctune.corpus.account import AccountRow


def test_an_empty_class_says_why_it_is_empty(clean, found):
    lost = [AccountRow("/data/song/1", "song", "left_out", "damaged", "no end", "")]
    lost += [AccountRow(f"/data/song/{n}", "song", "left_out", "empty", "no text", "") for n in (2, 3)]
    finding = found(clean(), left_out=lost, labels=["letter", "order", "report", "photo"])["empty_classes"]
    assert (finding.severity, finding.count) == ("warning", 2)
    assert finding.examples == ("photo: no files", "song: 2 empty, 1 damaged")


def test_copies_do_not_make_a_class_large_enough(make_text, prose, clean, found):
    documents = clean()
    documents += [make_text(f"/data/memo/{n}.txt", "memo", prose("memo"), "train") for n in range(5)]
    finding = found(documents)["tiny_classes"]
    assert finding.severity == "warning"
    assert finding.examples == ("memo: 1 different document",)


@pytest.mark.parametrize(("size", "severity"), [(29, None), (30, "info"), (150, "warning")])
def test_imbalance_is_the_ratio_of_different_documents(make_text, prose, found, size, severity):
    documents = [make_text(f"/data/a/{n}", "a", prose(f"a{n}", 20)) for n in range(size)]
    documents += [make_text(f"/data/b/{n}", "b", prose(f"b{n}", 20)) for n in range(3)]
    finding = found(documents).get("imbalance")
    assert (finding and finding.severity) == severity
    if finding:
        assert finding.count == size // 3
        assert finding.examples == (f"a: {size} different documents", "b: 3 different documents")


def test_what_gave_no_document_is_listed_by_reason(clean, audited, found):
    statuses = ("rejected", "low_confidence", "damaged", "damaged", "unreadable", "small_class")
    lost = [AccountRow(f"/data/{n}", "letter", "left_out", status, "why", "") for n, status in enumerate(statuses)]
    kinds = found(clean(), left_out=lost)
    assert {kind: (kinds[kind].severity, kinds[kind].count) for kind in kinds} == {
        "rejected_rows": ("warning", 1),
        "damaged_files": ("warning", 2),
        "unreadable_files": ("warning", 1),
        "low_confidence": ("info", 1),
        "small_class": ("info", 1),
    }
    assert kinds["damaged_files"].examples == ("/data/2: why", "/data/3: why")
    assert audited(clean(), left_out=lost).classes["letter"]["rows"] == 26
