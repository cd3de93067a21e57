import random
from dataclasses import replace


def test_a_clean_corpus_has_no_findings(clean, audited, splits_of):
    documents = clean()
    audit = audited(documents, splits=splits_of(documents), labels=("letter", "order", "report"))
    assert audit.findings == ()
    assert (audit.source, audit.root, audit.rows, audit.documents, audit.different) == ("made up", "/data", 60, 60, 60)
    assert list(audit.classes) == ["letter", "order", "report"]
    assert {(c["rows"], c["documents"], c["different"], c["cut_share"]) for c in audit.classes.values()} == {
        (20, 20, 20, 0.0)
    }


def test_errors_come_before_warnings_before_notes(audited, planted):
    documents = planted(lambda n, text: f"{text} regards")
    documents.append(replace(documents[1], path="/data/order/swapped.txt", label="order"))
    audit = audited(documents)
    assert [(f.severity, f.kind) for f in audit.findings] == [
        ("error", "same_content_two_labels"),
        ("warning", "exact_duplicates"),
        ("info", "telling_features"),
    ]
    assert audit.to_dict()["totals"] == {"error": 1, "warning": 1, "info": 1}
    assert audit.to_dict()["schema"] == 1


def test_findings_do_not_depend_on_the_order_of_the_documents(found, planted):
    documents = planted(lambda n, text: f"X-Category: letter\n{text}")
    documents += [replace(documents[n], path=f"/data/order/{n}x.txt", label="order", part="val") for n in (3, 4)]
    documents.sort(key=lambda document: document.path)
    shuffled = random.Random(1).sample(documents, len(documents))
    counts = [{kind: finding.count for kind, finding in found(order).items()} for order in (documents, shuffled)]
    assert counts[0] == counts[1]
    assert set(counts[0]) == {"leak_between_parts", "same_content_two_labels", "exact_duplicates", "give_aways"}


def test_nothing_at_all_is_no_error(audited):
    audit = audited([])
    assert (audit.findings, audit.documents, audit.lengths["characters"]) == ((), 0, {})
