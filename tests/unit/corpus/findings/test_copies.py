from dataclasses import replace

from doctune.corpus.account import AccountRow
from doctune.corpus.findings.record import SplitRow


def test_exact_copies_are_counted_once_less_than_they_occur(clean, only):
    documents = clean()
    first = documents[0]
    documents += [replace(first, path=f"/data/letter/copy{n}.txt", text=first.text + "\n" * n) for n in range(3)]
    finding = only(documents)
    assert (finding.kind, finding.severity, finding.count) == ("exact_duplicates", "warning", 3)
    assert finding.message.startswith("3 documents are exact copies of another (1 text more than once).")
    assert finding.examples == ("/data/letter/00.txt = /data/letter/copy0.txt = 2 more",)


def test_few_copies_are_a_note(clean, only):
    documents = clean(per_class=50)
    documents.append(replace(documents[0], path="/data/letter/copy.txt"))
    assert only(documents).severity == "info"


def test_near_copies_are_shown_with_their_similarity(make_text, clean, audited, only):
    documents = clean()
    documents.append(make_text("/data/letter/near.txt", "letter", documents[0].text + " changed", "test"))
    finding = only(documents)
    assert (finding.kind, finding.count) == ("near_duplicates", 1)
    assert finding.examples == ("/data/letter/00.txt ~ /data/letter/near.txt (0.98)",)
    assert audited(documents).different == 60


# --- the same under two names -------------------------------------------------------------------------------------


def test_the_same_content_under_two_labels_is_an_error(clean, found):
    documents = clean()
    documents.append(replace(documents[1], path="/data/order/swapped.txt", label="order"))
    finding = found(documents)["same_content_two_labels"]
    assert (finding.severity, finding.count) == ("error", 1)
    assert finding.examples == ("/data/letter/01.txt (letter) = /data/order/swapped.txt (order)",)


def test_near_copies_under_two_labels_are_a_warning(make_text, clean, found):
    documents = clean()
    documents.append(make_text("/data/order/near.txt", "order", documents[1].text + " changed", "train"))
    kinds = found(documents)
    assert "same_content_two_labels" not in kinds
    assert kinds["near_duplicates_two_labels"].severity == "warning"
    assert kinds["near_duplicates_two_labels"].examples == (
        "/data/letter/01.txt (letter) ~ /data/order/near.txt (order), 0.98",
    )


def test_a_path_under_two_labels_is_an_error(clean, found):
    rejected = [AccountRow("/data/x", label, "left_out", "rejected", "differs", "") for label in ("order", "letter")]
    kinds = found(clean(), left_out=rejected)
    assert (kinds["path_under_two_labels"].severity, kinds["path_under_two_labels"].count) == ("error", 1)
    assert kinds["path_under_two_labels"].examples == ("/data/x: letter, order",)
    assert kinds["rejected_rows"].count == 2


# --- parts --------------------------------------------------------------------------------------------------------


def test_a_near_copy_in_another_part_is_a_leak(make_text, clean, found):
    documents = clean()
    documents.append(make_text("/data/letter/near.txt", "letter", documents[0].text + " changed", "train"))
    finding = found(documents)["leak_between_parts"]
    assert (finding.severity, finding.count) == ("error", 1)
    assert finding.examples == ("/data/letter/00.txt (test) ~ /data/letter/near.txt (train)",)


def test_given_splits_are_checked_instead_of_the_own_parts(clean, found, splits_of):
    documents = [replace(d, part="") for d in clean()]
    documents.append(replace(documents[0], path="/data/letter/copy.txt"))
    rows = [replace(row, part="train", fold=0) for row in splits_of(documents)]
    assert "leak_between_parts" not in found(documents, splits=rows)
    moved = [*rows[:-1], replace(rows[-1], part="val", fold=1)]
    kinds = found(documents, splits=moved)
    assert kinds["leak_between_parts"].examples == ("/data/letter/00.txt (train) ~ /data/letter/copy.txt (val)",)
    assert kinds["leak_between_folds"].examples == ("/data/letter/00.txt (fold 0) ~ /data/letter/copy.txt (fold 1)",)


def test_splits_of_other_data_are_told(clean, found, splits_of):
    documents = clean()
    rows = splits_of(documents)
    wrong = [
        SplitRow("gone", "/data/gone.txt", "letter", "train"),
        *rows[3:],
        replace(rows[-1], path="/data/again.txt", part="train"),
        replace(rows[2], label="report"),
    ]
    kinds = found(documents, splits=wrong)
    assert {kind: (kinds[kind].severity, kinds[kind].count) for kind in kinds} == {
        "split_repeats": ("error", 2),
        "split_unknown": ("error", 2),
        "split_other_labels": ("error", 1),
        "split_missing": ("warning", 2),
    }
    assert kinds["split_unknown"].examples == ("/data/gone.txt", "/data/report/19.txt")
    assert kinds["split_other_labels"].examples == ("/data/letter/02.txt: report in the splits, letter here",)
    assert kinds["split_missing"].examples == ("/data/letter/00.txt", "/data/letter/01.txt")


def test_a_moved_file_is_known_by_its_id(clean, audited, splits_of):
    documents = clean()
    rows = [replace(row, path=f"/before{row.path}") for row in splits_of(documents)]
    assert audited(documents, splits=rows).findings == ()
