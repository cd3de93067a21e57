from doctune.corpus.account import AccountRow
from doctune.corpus.sieve import Sieve


def test_what_has_a_reason_is_left_out_once_with_the_reason():
    sieve = Sieve(["a", "bb", "ccc"], lambda word, part, *why: AccountRow(word, "label", part, *why, group=""))
    sieve.leave_out("long", lambda word: f"has {len(word)} letters" if len(word) > 2 else "")
    sieve.leave_out("named", lambda word: "is a" if word == "a" else "")
    assert sieve.kept == ["bb"]
    assert sieve.left_out == [
        AccountRow("ccc", "label", "left_out", "long", "has 3 letters", ""),
        AccountRow("a", "label", "left_out", "named", "is a", ""),
    ]
