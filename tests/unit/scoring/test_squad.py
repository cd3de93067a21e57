"""SQuAD scores against the published definition, written here anew, and on cases worked out by hand."""

from __future__ import annotations

import json
import random
import re
import string
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doctune.scoring import squad
from doctune.scoring.squad import (
    SquadScores,
    bootstrap_intervals,
    exact_match,
    normalise_answer,
    official_scores,
    score_answers,
    summarise,
    token_f1,
)

# Few words, so that answers share some; articles, both kinds of punctuation, and white space of all kinds.
PIECES = ["the", "a", "An", "cat", "Cat", "dog", "s", "1", "2,000", "ab", "é", "İ", *" -.,'\"«»–\t\n\u00a0\u3000_$€"]
answers = st.lists(st.sampled_from(PIECES), max_size=8).map("".join) | st.text(max_size=12)
spaced = st.lists(st.sampled_from(PIECES), max_size=8).map(" ".join)
texts = answers | spaced


def words_by_definition(text):
    """Lower-case; drop ASCII punctuation; drop whole words a, an, the; part at white space."""
    kept = [letter for letter in text.lower() if letter not in string.punctuation]
    without_articles = re.sub(r"(?<!\w)(?:a|an|the)(?!\w)", " ", "".join(kept))
    return without_articles.split()


def f1_by_definition(predicted, truth):
    remaining, shared = list(truth), 0
    for word in predicted:
        if word in remaining:
            remaining.remove(word)
            shared += 1
    if shared == 0:
        return 0.0
    precision, recall = shared / len(predicted), shared / len(truth)
    return 2 * precision * recall / (precision + recall)


def v1_by_definition(prediction, references):
    predicted = words_by_definition(prediction)
    pairs = [(predicted == truth, f1_by_definition(predicted, truth)) for truth in map(words_by_definition, references)]
    return float(max(exact for exact, _ in pairs)), max(f1 for _, f1 in pairs)


def v2_by_definition(prediction, references):
    predicted = words_by_definition(prediction)
    truths = [words for words in map(words_by_definition, references) if words] or [[]]
    exact = float(any(predicted == truth for truth in truths))
    if not predicted or truths == [[]]:
        return exact, exact
    return exact, max(f1_by_definition(predicted, truth) for truth in truths)


@settings(deadline=None)
@given(texts, st.lists(texts, min_size=1, max_size=3))
def test_version_1_is_its_definition(prediction, references):
    assert (exact_match(prediction, references), token_f1(prediction, references)) == v1_by_definition(
        prediction, references
    )


@settings(deadline=None)
@given(texts, st.lists(texts, max_size=3))
def test_version_2_is_its_definition(prediction, references):
    ours = exact_match(prediction, references, "2.0"), token_f1(prediction, references, "2.0")
    assert ours == v2_by_definition(prediction, references)


@settings(deadline=None)
@given(st.lists(st.tuples(texts, st.lists(texts, min_size=1, max_size=2)), min_size=1, max_size=30))
def test_percentages_of_version_1_are_added_one_by_one(cases):
    total_exact = total_f1 = 0.0
    for prediction, references in cases:
        exact, f1 = v1_by_definition(prediction, references)
        total_exact += exact
        total_f1 += f1
    questions = [(str(number), references) for number, (_, references) in enumerate(cases)]
    predictions = {str(number): prediction for number, (prediction, _) in enumerate(cases)}
    expected = {"exact_match": 100.0 * total_exact / len(cases), "f1": 100.0 * total_f1 / len(cases)}
    assert official_scores(questions, predictions, "1.1") == expected


def test_percentages_keep_the_digits_of_the_scripts():
    seven_of_25 = [(str(number), ["cat"]) for number in range(25)]
    right = {str(number): "cat" if number < 7 else "dog" for number in range(25)}
    for version in ("1.1", "2.0"):  # where 100 * (7 / 25) is 28.000000000000004
        assert official_scores(seven_of_25, right, version)["exact_match"] == 28.0
        assert official_scores(seven_of_25, right, version)["f1"] == 28.0
    ten_of_04 = {str(number): "cat and black dog" for number in range(10)}  # added with correction: 40.0
    assert official_scores(seven_of_25[:10], ten_of_04, "1.1")["f1"] == 39.99999999999999


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("The Cat", "cat"),
        ("an apple a day", "apple day"),
        ("theatre, another", "theatre another"),
        ("well-known", "wellknown"),
        ("the-cat", "thecat"),
        ("U.S.A.", "usa"),
        ("1,000,000", "1000000"),
        ("$5.50", "550"),
        ("«Faust»", "«faust»"),
        ("the “cat”", "“cat”"),
        ("1914–1918", "1914–1918"),
        ("cat\u00a0and\u3000dog\n", "cat and dog"),
        ("a «the»", "« »"),
        ("O'Neil's", "oneils"),
        ("...", ""),
        ("A, the; an!", ""),
        ("", ""),
    ],
)
def test_answers_are_normalised(text, normalised):
    assert normalise_answer(text) == normalised


@pytest.mark.parametrize(
    ("prediction", "references", "exact", "f1"),
    [
        ("the cat", ["Cat!"], 1.0, 1.0),
        ("cat dog", ["dog cat"], 0.0, 1.0),
        ("in the summer of 1990", ["summer 1990", "1990"], 0.0, 2 * 0.5 * 1.0 / 1.5),
        ("1990", ["in 1990", "1990"], 1.0, 1.0),
        ("cat cat", ["cat"], 0.0, 2 * 0.5 * 1.0 / 1.5),
        ("cat cat dog", ["cat dog dog"], 0.0, 2 * (2 / 3) * (2 / 3) / (2 / 3 + 2 / 3)),
        ("1,000", ["1000"], 1.0, 1.0),
        ("twenty-one", ["twenty one"], 0.0, 0.0),
        ("«cat»", ["cat"], 0.0, 0.0),
        ("", ["cat"], 0.0, 0.0),
        ("the", ["cat"], 0.0, 0.0),
    ],
)
@pytest.mark.parametrize("version", ["1.1", "2.0"])
def test_answers_are_scored_alike_by_both_versions(version, prediction, references, exact, f1):
    assert exact_match(prediction, references, version) == exact
    assert token_f1(prediction, references, version) == f1


@pytest.mark.parametrize(
    ("prediction", "references", "version", "exact", "f1"),
    [
        ("the", ["An"], "1.1", 1.0, 0.0),
        ("the", ["An"], "2.0", 1.0, 1.0),
        ("", ["the", "cat"], "1.1", 1.0, 0.0),
        ("", ["the", "cat"], "2.0", 0.0, 0.0),
        ("", [], "2.0", 1.0, 1.0),
        ("the", [], "2.0", 1.0, 1.0),
        ("cat", [], "2.0", 0.0, 0.0),
    ],
)
def test_the_versions_differ_where_no_word_is_left(prediction, references, version, exact, f1):
    assert exact_match(prediction, references, version) == exact
    assert token_f1(prediction, references, version) == f1


@pytest.mark.parametrize("function", [exact_match, token_f1])
def test_version_1_needs_a_reference(function):
    with pytest.raises(ValueError, match=r"^question '' has no reference; only version 2\.0 knows unanswerable"):
        function("cat", [])


def test_every_question_has_its_scores_in_order():
    references = {"z": ["cat"], "m": ["the dog", "dog house"], "a": ["1990"]}
    scores = score_answers({"a": "in 1990", "z": "Cat", "other": "x"}, references)
    assert scores.ids == ("z", "m", "a")
    assert scores.exact_match.tolist() == [1.0, 0.0, 0.0]
    assert scores.f1.tolist() == [1.0, 0.0, 2 * 0.5 * 1.0 / 1.5]
    assert scores.has_answer.tolist() == [True, True, True]
    assert scores.unanswered == ("m",)
    assert summarise(scores) == SquadScores(1 / 3, (1 + 2 / 3) / 3, 3, 1)
    assert summarise(scores).to_dict() == {"exact_match": 1 / 3, "f1": (1 + 2 / 3) / 3, "questions": 3, "unanswered": 1}


def test_no_question_has_arrays_but_no_mean():
    scores = score_answers({}, {})
    assert (scores.exact_match.shape, scores.f1.shape, scores.has_answer.shape) == ((0,), (0,), (0,))
    with pytest.raises(ValueError, match=r"^scores: there is no question\.$"):
        summarise(scores)
    with pytest.raises(ValueError, match=r"^questions: there is none\.$"):
        official_scores([], {}, "1.1")


def test_intervals_are_those_of_the_mean_and_share_their_resamples():
    references = {str(number): ["cat"] for number in range(40)}
    scores = score_answers({str(number): "cat" if number < 30 else "dog" for number in range(40)}, references)
    intervals = bootstrap_intervals(scores, seed=3)
    assert intervals["exact_match"] == intervals["f1"]
    half_width = 1.96 * np.sqrt(0.75 * 0.25 / 40)
    assert intervals["f1"] == pytest.approx((0.75 - half_width, 0.75 + half_width), abs=0.03)
    assert bootstrap_intervals(scores, seed=3) == intervals


def test_version_2_has_parts_with_and_without_answers():
    questions = [("a", ["the cat"]), ("b", ["black dog"]), ("c", []), ("d", [])]
    predictions = {"a": "cat", "b": "dog", "c": "", "d": "fish"}
    assert official_scores(questions, predictions, "2.0") == {
        "exact_match": 50.0,
        "exact": 50.0,
        "f1": 100.0 * (1.0 + 2 * 1.0 * 0.5 / 1.5 + 1 + 0) / 4,
        "total": 4,
        "HasAns_exact": 50.0,
        "HasAns_f1": 100.0 * (1.0 + 2 * 1.0 * 0.5 / 1.5) / 2,
        "HasAns_total": 2,
        "NoAns_exact": 50.0,
        "NoAns_f1": 50.0,
        "NoAns_total": 2,
    }


def test_version_2_leaves_out_a_part_that_has_no_question():
    report = official_scores([("a", ["cat"])], {"a": "cat"}, "2.0")
    assert list(report) == ["exact_match", "exact", "f1", "total", "HasAns_exact", "HasAns_f1", "HasAns_total"]


def test_an_id_that_comes_twice_counts_as_the_scripts_count_it():
    questions = [("a", ["cat"]), ("a", ["dog"])]
    assert official_scores(questions, {"a": "cat"}, "1.1")["exact_match"] == 50.0
    twice = official_scores(questions, {"a": "dog"}, "2.0")
    assert (twice["exact"], twice["total"]) == (100.0, 1)


def test_ten_thousand_questions_take_less_than_a_second():
    rng = random.Random(0)
    vocabulary = [f"word{number}" for number in range(50)]

    def phrase():
        return " ".join(rng.choices(vocabulary, k=4))

    references = {str(number): [phrase(), phrase(), phrase()] for number in range(10_000)}
    predictions = {name: phrase() for name in references}
    squad._reference_tokens.cache_clear()
    started = time.process_time()
    score_answers(predictions, references)
    assert time.process_time() - started < 1


def write(path, value):
    path.write_text(json.dumps(value), encoding="utf-8")
    return str(path)


def dataset(questions, version="1.1"):
    qas = [{"id": name, "answers": [{"text": text, "answer_start": 0} for text in texts]} for name, texts in questions]
    return {"version": version, "data": [{"paragraphs": [{"context": "", "qas": [qa]} for qa in qas]}]}


def test_the_command_prints_the_json_of_version_1(tmp_path, capsys):
    data = write(tmp_path / "dev.json", dataset([("q1", ["the cat"]), ("q2", ["black dog"]), ("q3", ["fish"])]))
    predictions = write(tmp_path / "predictions.json", {"q1": "Cat", "q2": "dog", "more": None})
    assert squad.main([data, predictions]) == 0
    printed = capsys.readouterr()
    assert printed.out == '{"exact_match": 33.333333333333336, "f1": 55.55555555555555}\n'
    assert printed.err == "Unanswered question q3 will receive score 0.\n"


@pytest.mark.parametrize("version", ["v2.0", "2.0", None])
def test_the_command_prints_the_json_of_version_2(tmp_path, capsys, version):
    data = write(tmp_path / "dev.json", dataset([("q1", ["the cat"]), ("q2", [])], version))
    predictions = write(tmp_path / "predictions.json", {"q1": "Cat"})
    assert squad.main([data, predictions]) == 0
    printed = capsys.readouterr()
    assert printed.out == (
        '{\n  "exact_match": 50.0,\n  "exact": 50.0,\n  "f1": 50.0,\n  "total": 2,\n'
        '  "HasAns_exact": 100.0,\n  "HasAns_f1": 100.0,\n  "HasAns_total": 1,\n'
        '  "NoAns_exact": 0.0,\n  "NoAns_f1": 0.0,\n  "NoAns_total": 1\n}\n'
    )
    assert printed.err == "Unanswered question q2 will receive score 0.\n"


def test_data_of_an_unknown_version_whose_questions_all_have_answers_is_version_1(tmp_path, capsys):
    data = write(tmp_path / "dev.json", dataset([("q1", ["cat"])], "mine"))
    assert squad.main([data, write(tmp_path / "p.json", {"q1": "cat"})]) == 0
    assert capsys.readouterr().out == '{"exact_match": 100.0, "f1": 100.0}\n'


FORM = "A SQuAD file is {'data': [{'paragraphs': [{'qas': [{'id': …, 'answers': [{'text': …}]}]}]}]}."


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([], f": the file must be an object, not a list. {FORM}"),
        ({}, f": the file has no 'data'. {FORM}"),
        ({"data": 3}, f": 'data' of the file must be a list, not a number. {FORM}"),
        ({"data": [None]}, f": data[0] must be an object, not null. {FORM}"),
        ({"data": [{"paragraphs": [{}]}]}, f": data[0].paragraphs[0] has no 'qas'. {FORM}"),
        (
            {"data": [{"paragraphs": [{"qas": [{"id": 7}]}]}]},
            f": 'id' of data[0].paragraphs[0].qas[0] must be a text, not a number. {FORM}",
        ),
        (
            {"data": [{"paragraphs": [{"qas": [{"id": "q", "answers": [{"text": True}]}]}]}]},
            f": 'text' of data[0].paragraphs[0].qas[0].answers[0] must be a text, not true. {FORM}",
        ),
        ({"data": []}, " holds no question."),
        (
            dataset([("q1", [])]),
            " says that it is version 1.1, but question 'q1' has no answer; only version 2.0 knows unanswerable "
            "questions. Set its 'version' to 'v2.0', or give the question an answer.",
        ),
    ],
)
def test_data_of_a_wrong_shape_is_named(tmp_path, capsys, content, sentence):
    data = write(tmp_path / "dev.json", content)
    assert squad.main([data, write(tmp_path / "p.json", {})]) == 2
    assert capsys.readouterr().err == f"doctune: {data}{sentence}\n"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("[]", " must be an object of question id -> answer text, not a list."),
        ('{"q1": ["cat"]}', ": the answer to question 'q1' must be a text, not a list."),
        ('{"q1": null}', ": the answer to question 'q1' must be a text, not null."),
        ('{"q1": }', " is not JSON: Expecting value, line 1, column 8."),
        ("", " is not JSON: Expecting value, line 1, column 1."),
    ],
)
def test_predictions_of_a_wrong_shape_are_named(tmp_path, capsys, content, sentence):
    data = write(tmp_path / "dev.json", dataset([("q1", ["cat"])]))
    predictions = tmp_path / "p.json"
    predictions.write_text(content, encoding="utf-8")
    assert squad.main([data, str(predictions)]) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", f"doctune: {predictions}{sentence}\n")


def test_files_that_are_missing_or_not_text_are_named(tmp_path, capsys):
    data = write(tmp_path / "dev.json", dataset([("q1", ["cat"])]))
    binary = tmp_path / "p.json"
    binary.write_bytes(b'{"\xff')
    missing = tmp_path / "no.json"
    assert [squad.main([data, str(path)]) for path in (missing, tmp_path, binary)] == [2, 2, 2]
    assert capsys.readouterr().err.splitlines() == [
        f"doctune: {missing} does not exist.",
        f"doctune: {tmp_path} cannot be read: Is a directory.",
        f"doctune: {binary} is not JSON: byte 2 is not UTF-8.",
    ]


def test_the_module_is_a_command_that_needs_no_torch(tmp_path):
    data = write(tmp_path / "dev.json", dataset([("q1", ["cat"])]))
    predictions = write(tmp_path / "p.json", {"q1": "cat"})
    command = [sys.executable, "-W", "error", "-X", "importtime", "-m", "doctune.scoring.squad"]
    done = subprocess.run([*command, data, predictions], capture_output=True, text=True, check=True)
    assert done.stdout == '{"exact_match": 100.0, "f1": 100.0}\n'
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not {"torch", "lightning", "hydra"} & imported


def test_help_shows_an_example(capsys):
    with pytest.raises(SystemExit) as stopped:
        squad.main(["--help"])
    assert stopped.value.code == 0
    assert "example:\n  python -m doctune.scoring.squad dev-v1.1.json predictions.json\n" in capsys.readouterr().out


def test_real_questions_are_scored_by_the_definition(real_data):
    path = real_data / "squad" / "dev.json"
    if not path.is_file():
        pytest.skip("no SQuAD data here")
    content = json.loads(path.read_text(encoding="utf-8"))
    paragraphs = [paragraph for article in content["data"] for paragraph in article["paragraphs"]]
    rng = np.random.default_rng(0)
    references, predictions = {}, {}
    for paragraph in paragraphs:
        for question in paragraph["qas"]:
            references[question["id"]] = [answer["text"] for answer in question["answers"]]
            begin = max(0, question["answers"][0]["answer_start"] + int(rng.integers(-20, 20)))
            predictions[question["id"]] = paragraph["context"][begin : begin + int(rng.integers(0, 40))]
    scores = score_answers(predictions, references)
    expected = [v1_by_definition(predictions[name], references[name]) for name in references]
    assert list(zip(scores.exact_match.tolist(), scores.f1.tolist(), strict=True)) == expected
