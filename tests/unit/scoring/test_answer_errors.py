from __future__ import annotations

import dataclasses
import json
import random

import pytest

from doctune.scoring.answer_errors import (
    KINDS,
    GroupScore,
    JudgedAnswer,
    KindScore,
    analyse,
    answer_length,
    answer_position,
    answer_type,
    error_kind,
    question_word,
)
from doctune.scoring.squad import exact_match, token_f1

CONTEXT = "In 1912 the Grand Hotel was built by Anna Berg, a friend of Otto Lind. It had forty rooms. Tea cost 3 pence."


def judged(reference, prediction, *others, **changes):
    """An answer to a question about CONTEXT; scores and places are computed, as far as they are not given."""
    references = tuple(text for text in (reference, *others) if text is not None)
    start = CONTEXT.find(prediction) if prediction.strip() else -1
    values = {
        "id": "q",
        "question": "Who built the Grand Hotel?",
        "context": CONTEXT,
        "references": references,
        "reference_start": CONTEXT.index(reference) if reference else None,
        "prediction": prediction,
        "start": start if start >= 0 else None,
        "end": start + len(prediction) if start >= 0 else None,
        "num_windows": 1,
        "exact_match": exact_match(prediction, references, "2.0"),
        "f1": token_f1(prediction, references, "2.0"),
    }
    return JudgedAnswer(**{**values, **changes})


@pytest.mark.parametrize(
    ("question", "word"),
    [
        ("What was built?", "what"),
        ("WHO built it?", "who"),
        ("To whom did it belong?", "who"),
        ("Whose hotel was it?", "who"),
        ("When was it?", "when"),
        ("Where was it built?", "where"),
        ("In which year was it built?", "which"),
        ("Why was it built?", "why"),
        ("How many rooms had it?", "how many/much"),
        ("About how\nmuch did tea cost?", "how many/much"),
        ("How was it built, and how many came?", "how"),
        ("It was built by whom, and when?", "who"),
        ("What's its name?", "what"),
        ("Whatever is this", "other"),
        ("Name the builder.", "other"),
        ("other", "other"),
        ("", "other"),
    ],
)
def test_the_first_question_word_counts(question, word):
    assert question_word(question) == word


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("1912", "date"),
        ("the 1990s", "date"),
        ("2 August", "date"),
        ("Sept. 3", "date"),
        ("May 4", "date"),
        ("the 16th century", "date"),
        ("1066-1087", "date"),
        ("Theresa May", "name"),
        ("they may march", "other"),
        ("forty", "number"),
        ("Forty", "number"),
        ("$5 million", "number"),
        ("1,500", "number"),
        ("1912.5", "number"),
        ("about 3 pence", "number"),
        ("500 Euros", "number"),
        ("12 %", "number"),
        ("Apollo 11", "name"),
        ("The Three Musketeers", "name"),
        ("Anna Berg", "name"),
        ("city of Bonn", "name"),
        ("The hotel", "other"),
        ("a friend", "other"),
        ("?", "other"),
        ("", "other"),
    ],
)
def test_answers_have_a_coarse_type(text, kind):
    assert answer_type(text) == kind


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (judged("Anna Berg", "Anna Berg"), "exact"),
        (judged(None, ""), "exact"),
        (judged(None, "Anna Berg"), "answered the unanswerable"),
        (judged("Anna Berg", ""), "no answer given"),
        (judged("Anna Berg", " \n"), "no answer given"),
        (judged("Anna Berg", "by Anna"), "boundary"),
        (judged("Anna Berg", "Otto", "Otto Lind"), "boundary"),
        (judged("Anna Berg", "Grand Hotel"), "same sentence"),
        (judged("Anna Berg", "1912"), "same sentence"),
        (judged("Anna Berg", "forty"), "wrong type"),
        (judged("Anna Berg", "Tea"), "wrong sentence"),
        (judged("forty rooms", "3 pence"), "wrong sentence"),
        (judged("Anna Berg", "forty", "rooms", start=None, end=None), "wrong type"),
        (judged("Anna Berg", "Carl Moe"), "no overlap"),
        (judged("Anna Berg", "Carl Berg"), "boundary"),
        (judged("Anna Berg", "Otto Lind", reference_start=None), "no overlap"),
    ],
)
def test_each_answer_has_one_kind_of_error(answer, kind):
    assert error_kind(answer) == kind


def test_other_references_lie_where_their_text_is_nearest():
    context = "Rome fell. Much later Bonn and Rome grew. Rome won. Bonn lost."
    answer = judged(
        "Anna Berg",
        "Rome",
        context=context,
        references=("Bonn", "Rome"),
        reference_start=context.index("Bonn"),
        start=context.index("Rome won"),
        end=context.index("Rome won") + 4,
        exact_match=0.0,
    )
    assert error_kind(answer) == "wrong sentence"
    place = context.index("Rome grew")
    assert error_kind(dataclasses.replace(answer, start=place, end=place + 4)) == "boundary"


@pytest.mark.parametrize(
    ("words", "group"),
    [(1, "1"), (2, "2"), (3, "3-5"), (5, "3-5"), (6, "6-10"), (10, "6-10"), (11, "over 10")],
)
def test_length_is_that_of_the_first_reference(words, group):
    answer = dataclasses.replace(judged("Anna Berg", ""), references=("word " * words, "x"))
    assert answer_length(answer) == group


@pytest.mark.parametrize(
    ("start", "group"),
    [(0, "0-20 %"), (19, "0-20 %"), (20, "20-40 %"), (59, "40-60 %"), (60, "60-80 %"), (99, "80-100 %")],
)
def test_position_is_where_the_first_reference_begins(start, group):
    answer = dataclasses.replace(judged("Anna Berg", ""), context="x" * 100, reference_start=start)
    assert answer_position(answer) == group


def test_questions_without_an_answer_have_neither_length_nor_position():
    assert (answer_length(judged(None, "x")), answer_position(judged(None, "x"))) == ("no answer", "no answer")


def small_set():
    return [
        judged("Anna Berg", "Anna Berg", id="e"),
        judged("Anna Berg", "by Anna", id="d", num_windows=2),
        judged("1912", "In 1912", id="c", question="When was it built?", num_windows=4),
        judged("forty", "forty rooms", id="b", question="How many rooms?", num_windows=9),
        judged("forty", "had forty", id="a", question="How many rooms?", num_windows=2),
    ]


def test_groups_come_in_a_fixed_order_with_their_means():
    errors = analyse(small_set())
    assert errors.by_question_word == (
        GroupScore("who", 2, 0.5, 0.75),
        GroupScore("when", 1, 0.0, 2 / 3),
        GroupScore("how many/much", 2, 0.0, 2 / 3),
    )
    assert errors.by_answer_length == (
        GroupScore("1", 3, 0.0, 2 / 3),
        GroupScore("2", 2, 0.5, 0.75),
    )
    assert [(row.group, row.count) for row in errors.by_position] == [("0-20 %", 1), ("20-40 %", 2), ("60-80 %", 2)]
    assert [(row.group, row.count) for row in errors.by_num_windows] == [("1", 1), ("2", 2), ("4+", 2)]


def test_kinds_have_the_first_three_ids():
    assert analyse(small_set()).by_kind == (
        KindScore("exact", 1, 1.0, 1.0, ("e",)),
        KindScore("boundary", 4, 0.0, (0.5 + 3 * (2 / 3)) / 4, ("a", "b", "c")),
    )


def test_the_order_of_the_questions_does_not_matter():
    answers = small_set()
    expected = analyse(answers)
    random.Random(0).shuffle(answers)
    assert analyse(answers) == expected


def test_no_question_has_no_group():
    errors = analyse([])
    assert set(dataclasses.astuple(errors)) == {()}


def test_impossible_records_are_refused():
    with pytest.raises(ValueError, match=r"^question 'q': num_windows is 0, but there is at least 1\.$"):
        judged("Anna Berg", "", num_windows=0)
    with pytest.raises(ValueError, match=r"^question 'q': start and end belong together, one of them is None\.$"):
        judged("Anna Berg", "Otto", end=None)


def test_every_real_question_is_in_one_group_of_each_kind(real_data):
    path = real_data / "squad" / "dev.json"
    if not path.is_file():
        pytest.skip("no SQuAD data here")
    rng = random.Random(0)
    answers = []
    for article in json.loads(path.read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                references = tuple(answer["text"] for answer in question["answers"])
                start = rng.randrange(len(paragraph["context"]) - 1)
                end = min(len(paragraph["context"]), start + rng.randrange(1, 30))
                prediction = paragraph["context"][start:end]
                answers.append(
                    JudgedAnswer(
                        id=question["id"],
                        question=question["question"],
                        context=paragraph["context"],
                        references=references,
                        reference_start=question["answers"][0]["answer_start"],
                        prediction=prediction,
                        start=start,
                        end=end,
                        num_windows=1,
                        exact_match=exact_match(prediction, references),
                        f1=token_f1(prediction, references),
                    )
                )
    errors = analyse(answers)
    for rows in (errors.by_question_word, errors.by_answer_length, errors.by_position, errors.by_num_windows):
        assert sum(row.count for row in rows) == len(answers)
    assert sum(row.count for row in errors.by_kind) == len(answers)
    assert {row.group for row in errors.by_kind} <= {*KINDS}
