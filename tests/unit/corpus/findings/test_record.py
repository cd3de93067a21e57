from doctune.corpus.findings.record import printable


def test_names_that_do_not_print_are_escaped():
    assert printable("a\nb") == r"a\nb"
    assert printable("caf\udce9 é").encode() == rb"caf\udce9 \xe9"
    assert printable("Müller “x”") == "Müller “x”"
