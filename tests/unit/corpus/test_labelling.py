from __future__ import annotations

import pytest
import yaml

from doctune.corpus.labelling import (
    CERTAIN,
    DISPUTED,
    UNPROVEN,
    load_rules,
    parse_rules,
    shipped_rules,
    shipped_rules_text,
)
from doctune.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "type_"),
    [
        ("train.py", "python_script"),
        ("TRAIN.PY", "python_script"),
        ("train.pyi", "type_stub"),
        ("vector.hpp", "source_header"),
        ("main.c", "c_source"),
        ("main.cpython-311.pyc", "compiled_code"),
        ("libm.so", "shared_library"),
        ("libm.so.6", "shared_library"),
        ("site.css", "stylesheet"),
        ("index.html", "web_page"),
        ("setup.cfg", "config_file"),
        ("table.csv", "tabular_data"),
        ("data.json", "json_data"),
        ("a.xml", "xml_document"),
        ("README.md", "markdown"),
        ("README", "readme"),
        ("ChangeLog", "changelog"),
        ("LICENSE", "license_text"),
        ("LICENSE-APACHE", "license_text"),
        ("LGPL-2.1", "license_text"),
        ("copyright", "copyright_file"),
        ("ls.1", "manual_page"),
        ("run.sh", "shell_script"),
        ("app.d.ts", "typescript"),
        ("lib.rs", "rust_source"),
        ("A.java", "java_source"),
        ("A.pm", "perl_script"),
        ("work.ipynb", "notebook"),
        ("paper.pdf", "pdf_document"),
        ("letter.docx", "word_document"),
        ("sums.xlsx", "spreadsheet"),
        ("photo.jpeg", "image"),
        ("de.po", "translation_catalogue"),
        ("METADATA", "package_metadata"),
        ("page.html.j2", "template"),
        ("Makefile", "makefile"),
        ("CMakeLists.txt", "cmake_script"),
        ("fix.patch", "patch"),
        ("root.pem", "certificate"),
        ("notes.txt", "plain_text"),
        ("requirements-dev.txt", "requirements_list"),
        ("pom.xml", "maven_project"),
    ],
)
def test_the_shipped_table_names_the_common_types(name, type_):
    assert shipped_rules().label_of(name) == (type_, CERTAIN)


@pytest.mark.parametrize("name", ["unheard.of", "Untitled", ".hidden", ".py", "", "name."])
def test_a_name_without_a_rule_has_no_label(name):
    assert shipped_rules().label_of(name) == ("", 0.0)


def test_the_shipped_table_has_some_forty_types_and_names_each_suffix_on_purpose():
    assert len(shipped_rules().types) >= 40
    suffixes = [suffix for rule in shipped_rules().rules for suffix in rule.suffixes]
    assert sorted({suffix for suffix in suffixes if suffixes.count(suffix) > 1}) == [".m"]


TABLE = """
rules:
  - {type: stub, suffixes: [.d.ts]}
  - {type: script, suffixes: [.ts], looks_like: 'let|const'}
  - {type: first, suffixes: [.m], names: ['data*']}
  - {type: second, suffixes: [.m], names: ['*set']}
  - {type: exact, names: [dataset]}
signatures:
  - {pattern: '%PDF-', types: [stub]}
"""


def table():
    return parse_rules(TABLE, "test table")


def test_a_longer_suffix_is_stronger():
    assert table().label_of("a.d.ts") == ("stub", CERTAIN)
    assert table().label_of("a.ts") == ("script", CERTAIN)


def test_of_two_rules_of_equal_strength_the_first_wins_with_half_the_confidence():
    assert table().label_of("a.m") == ("first", DISPUTED)
    assert table().label_of("data-set") == ("first", DISPUTED)


def test_a_full_name_is_stronger_than_patterns_and_a_pattern_than_a_suffix():
    assert table().label_of("dataset") == ("exact", CERTAIN)
    assert table().label_of("data.d.ts") == ("first", CERTAIN)


def test_content_with_the_signature_of_another_type_is_disputed():
    assert table().confidence_in_content("script", b"%PDF-1.7 let") == DISPUTED
    assert table().confidence_in_content("stub", b"%PDF-1.7") == CERTAIN


def test_content_that_does_not_look_like_its_type_is_unproven():
    assert table().confidence_in_content("script", b"let x") == CERTAIN
    assert table().confidence_in_content("script", b"QT translation") == UNPROVEN
    assert table().confidence_in_content("first", b"anything") == CERTAIN


@pytest.mark.parametrize(
    ("type_", "head", "confidence"),
    [
        ("python_script", b"#!/usr/bin/env python3\n", CERTAIN),
        ("python_script", b"#!/bin/bash\n", DISPUTED),
        ("plain_text", b"%PDF-1.4", DISPUTED),
        ("config_file", b'<?xml version="1.0"?>', DISPUTED),
        ("vector_image", b'\xef\xbb\xbf<?xml version="1.0"?><svg>', CERTAIN),
        ("json_data", b"not json", UNPROVEN),
        ("json_data", b'\xef\xbb\xbf{"a": 1}', CERTAIN),
        ("typescript", b'<?xml version="1.0"?><TS>', DISPUTED),
        ("manual_page", b".TH LS 1\n", CERTAIN),
        ("manual_page", b"1.0 released", UNPROVEN),
        ("spreadsheet", b"PK\x03\x04", CERTAIN),
        ("plain_text", b"\x7fELF", DISPUTED),
    ],
)
def test_what_the_shipped_table_makes_of_content(type_, head, confidence):
    assert shipped_rules().confidence_in_content(type_, head) == confidence


def test_the_printed_table_reads_back_as_the_shipped_one(tmp_path):
    copy = tmp_path / "rules.yaml"
    copy.write_text(shipped_rules_text(), encoding="utf-8")
    edited = load_rules(copy)
    assert edited.rules == shipped_rules().rules
    assert (edited.sha256, edited.source) == (shipped_rules().sha256, str(copy))


def test_every_type_of_a_signature_has_a_rule():
    table = yaml.safe_load(shipped_rules_text())
    assert {t for entry in table["signatures"] for t in entry["types"]} <= set(shipped_rules().types)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rules: [", "t.yaml is not YAML: "),
        ("- a", "t.yaml must be a YAML mapping with a list under `rules`."),
        ("", "t.yaml must be a YAML mapping with a list under `rules`."),
        ("rules: []", "t.yaml has no rules; `doctune scan --print-rules` shows how they look."),
        ("rules: 3", "t.yaml: `rules` must be a list."),
        ("rules: [a]", "t.yaml: entry 1 of `rules` must be a mapping; found 'a'."),
        ("rule: []", "t.yaml: there is no key 'rule'; the keys are rules, signatures."),
        (
            "rules: [{type: a, suffix: [.a]}]",
            "t.yaml, rule 1: there is no key 'suffix'; the keys are looks_like, names, suffixes, type.",
        ),
        (
            "rules: [{type: no, suffixes: [.a]}]",
            "t.yaml, rule 1: `type` must be a name, such as python_script; found False.",
        ),
        ("rules: [{type: a}]", "t.yaml, rule 1 (a) has neither `names` nor `suffixes`, so that it fits no file."),
        (
            "rules: [{type: a, suffixes: [py]}]",
            "t.yaml, rule 1 (a): the suffix 'py' must start with a dot, as in '.py'.",
        ),
        ("rules: [{type: a, suffixes: [.1]}]", "t.yaml, rule 1: `suffixes` must be a list of texts; found [0.1]."),
        (
            "rules: [{type: a, names: [a], looks_like: '('}]",
            "t.yaml, rule 1 (a): `looks_like` is not a regular expression: missing ), unterminated subpattern",
        ),
        (
            "rules: [{type: a, names: [a], looks_like: [b]}]",
            "t.yaml, rule 1 (a): `looks_like` must be a regular expression; found ['b'].",
        ),
        (
            "rules: [{type: a, names: [a]}]\nsignatures: [{pattern: x, types: [b]}]",
            "t.yaml, signature 1: no rule gives the type 'b'.",
        ),
        (
            "rules: [{type: a, names: [a]}]\nsignatures: [{types: [a]}]",
            "t.yaml, signature 1 needs a `pattern` and a list of `types`.",
        ),
    ],
)
def test_a_bad_rules_file_is_refused_in_a_sentence(text, message):
    with pytest.raises(ConfigError) as refused:
        parse_rules(text, "t.yaml")
    assert str(refused.value).startswith(message)


def test_a_missing_rules_file_says_how_to_make_one(tmp_path):
    path = tmp_path / "mine.yaml"
    with pytest.raises(ConfigError) as refused:
        load_rules(path)
    assert str(refused.value) == (
        f"The rules file {path} cannot be read: No such file or directory. "
        "`doctune scan --print-rules > mine.yaml` makes one."
    )


def test_a_rules_file_that_is_not_utf8_is_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"rules: \xff")
    with pytest.raises(ConfigError, match=r"mine\.yaml cannot be read: not UTF-8\."):
        load_rules(path)
