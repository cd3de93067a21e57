"""What tells a resumed run that its documents are still the same."""

import pytest

from doctune.corpus.division import LabelledDocument, fingerprint


def document(number, label="a", part="train", content=None):
    return LabelledDocument(f"id{number}", f"/docs/{number}.txt", label, content or f"content{number}", part)


BEFORE = (document(1), document(2, part="val"))


@pytest.mark.parametrize(
    "now",
    [
        (document(1), document(2, part="test")),
        (document(1), document(2, part="val", label="b")),
        (document(1), document(2, part="val", content="changed")),
        (document(1),),
        (document(2, part="val"), document(1)),
        (document(1), document(2, part="val"), document(3)),
    ],
)
def test_other_documents_have_another_fingerprint(now):
    assert fingerprint(now) != fingerprint(BEFORE)
    assert fingerprint(BEFORE) == fingerprint((document(1), document(2, part="val")))


def test_where_a_document_lies_is_no_part_of_it():
    moved = LabelledDocument("id1", "/elsewhere/1.txt", "a", "content1", "train", remark="A remark.")
    assert fingerprint([moved]) == fingerprint([document(1)])
