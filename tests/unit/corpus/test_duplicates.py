from doctune.corpus.duplicates import conflicting_groups, text_groups


def test_texts_that_differ_in_whitespace_are_one_group():
    first, second, third = text_groups(["a  b\n", " a b", "a c"])
    assert first == second != third


def test_a_text_under_two_labels_is_a_conflict():
    assert conflicting_groups(["g", "h", "g"], ["y", "x", "x"]) == {"g": ("x", "y")}
