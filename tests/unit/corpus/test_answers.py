import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from doctune.corpus.answers import N_BEST, answer_all, no_answer_threshold, write_answers
from doctune.corpus.squad import Question
from doctune.decode.answers import WindowSpans, joined
from doctune.scoring.squad import score_answers

CONTEXT = "one two three four"


def ask(name, *answers, start=0):
    return Question(name, "Numbers", CONTEXT, f"{name}?", answers, start if answers else None, not answers)


def window(*spans, null=0.0):
    """A window of (score, start, end); so many as there are, the rest is filled up."""
    scores, starts, ends = zip(*spans, *[(-np.inf, -1, -1)] * (4 - len(spans)), strict=True)
    return WindowSpans(np.array([scores], np.float32), np.array([starts], int), np.array([ends], int), np.array([null]))


def together(windows):
    """Windows of questions, place -> windows, and whose they are."""
    owned = [(place, each) for place, found in windows.items() for each in found]
    return joined([each for _, each in owned]), np.array([place for place, _ in owned])


ONE, TWO, THREE, FOUR = (0, 3), (4, 7), (8, 13), (14, 18)


def test_answers_come_in_the_order_of_the_questions():
    questions = [ask("a", "one"), ask("b", "two")]
    windows = {1: [window((1.0, *TWO))], 0: [window((1.0, *THREE), (0.5, *TWO)), window((2.0, *ONE))]}
    found = answer_all(questions, *together(windows), threshold=None)
    assert [question.id for question in found.questions] == ["a", "b"]
    assert (found.texts, found.num_windows.tolist()) == (["one", "two"], [2, 1])
    assert [CONTEXT[span.start : span.end] for span in found.spans.best(0, N_BEST)] == ["one", "three", "two"]


@pytest.mark.parametrize(("threshold", "text"), [(None, "one"), (2.0, "one"), (1.99, ""), (-5.0, ""), (9.0, "one")])
def test_no_answer_is_given_above_the_threshold(threshold, text):
    found = answer_all([ask("a")], *together({0: [window((1.0, *ONE), null=7.0), window(null=3.0)]}), threshold)
    assert (found.texts, found.spans.null_scores.tolist(), found.is_given.tolist()) == ([text], [3.0], [text != ""])
    assert found.spans.best(0, 1)[0].score == 1.0  # what would have been said is kept


def test_where_nothing_was_found_nothing_is_answered():
    found = answer_all([ask("a", "one")], *together({0: [window((-np.inf, -1, -1))]}), threshold=None)
    assert (found.spans.best(0, N_BEST), found.is_given.tolist(), found.texts) == ([], [False], [""])
    found = answer_all([ask("a")], *together({0: [window(null=1.0)]}), threshold=0.0)
    assert (found.is_given.tolist(), found.texts, found.spans.null_probabilities.tolist()) == ([False], [""], [1.0])


def test_what_was_found_for_one_question_is_no_answer_to_its_neighbour(tmp_path):
    found = [window(), window((1.0, *TWO)), window((-np.inf, *ONE)), window((2.0, *FOUR)), window()]
    windows = {place: [spans] for place, spans in enumerate(found)}
    answers = answer_all([ask(name, "two") for name in "abcde"], *together(windows), threshold=None)
    assert answers.texts == ["", "two", "", "four", ""]
    write_answers(answers, tmp_path / "val.parquet", "1.1")
    rows = pq.read_table(tmp_path / "val.parquet").to_pylist()
    assert [(row["start"], row["score"], row["probability"]) for row in rows] == [
        (None, None, 1.0), (4, 1.0, 1.0), (None, None, 1.0), (14, 2.0, 1.0), (None, None, 1.0),
    ]  # fmt: skip
    assert [[span["text"] for span in row["n_best"]] for row in rows] == [[], ["two"], [], ["four"], []]
    assert [row["exact_match"] for row in rows] == [0, 1, 0, 0, 0]


def test_the_probability_of_no_answer_is_what_all_spans_leave_over():
    spans = [(0.0, begin, begin + 1) for begin in range(7)]
    found = answer_all([ask("a")], *together({0: [window(*spans[:4]), window(*spans[4:])]}), threshold=-1.0).spans
    assert len(found.best(0, N_BEST)) == N_BEST == 5  # two more spans were found than are kept
    assert [span.probability for span in found.best(0, N_BEST)] == pytest.approx([1 / 8] * 5)
    assert found.null_probabilities == pytest.approx([1 / 8])


def test_the_threshold_gives_the_highest_f1():
    questions = [ask("a", "one"), ask("b"), ask("c", "two"), ask("d")]
    windows = {
        0: [window((5.0, *ONE), null=1.0)],  # right, -4
        1: [window((1.0, *ONE), null=2.0)],  # nothing to find, 1
        2: [window((1.0, *TWO), null=1.5)],  # right, 0.5
        3: [window((0.0, *ONE), null=3.0)],  # nothing to find, 3
    }
    threshold = no_answer_threshold(questions, *together(windows))
    assert threshold == 0.5
    assert answer_all(questions, *together(windows), threshold).texts == ["one", "", "two", ""]


def test_one_row_per_question(tmp_path):
    questions = [ask("a", "one two", "one"), ask("b"), ask("c", "four", start=14)]
    windows = {
        0: [window((2.0, *ONE), (1.0, *TWO), null=-1.0)],
        1: [window((0.0, *THREE), null=4.0), window((1.0, *FOUR), null=5.0)],
        2: [window((1.0, *THREE), null=1.0)],
    }
    answered = answer_all(questions, *together(windows), threshold=0.0)
    write_answers(answered, tmp_path / "predictions" / "val.parquet", "2.0")
    first, second, third = pq.read_table(tmp_path / "predictions" / "val.parquet").to_pylist()
    total = math.exp(2) + math.exp(1) + math.exp(-1)
    assert first == {
        "id": "a",
        "article": "Numbers",
        "question": "a?",
        "context": CONTEXT,
        "references": ["one two", "one"],
        "reference_start": 0,
        "prediction": "one",
        "start": 0,
        "end": 3,
        "score": 2.0,
        "probability": pytest.approx(math.exp(2) / total),
        "null_score": -1.0,
        "windows": 1,
        "n_best": [
            {"text": "one", "start": 0, "end": 3, "score": 2.0, "probability": pytest.approx(math.exp(2) / total)},
            {"text": "two", "start": 4, "end": 7, "score": 1.0, "probability": pytest.approx(math.exp(1) / total)},
        ],
        "exact_match": 1.0,
        "f1": 1.0,
    }
    total = 1 + math.exp(1) + math.exp(4)
    assert (second["references"], second["reference_start"], second["prediction"]) == ([], None, "")
    assert (second["start"], second["end"], second["score"]) == (None, None, None)
    assert (second["probability"], second["windows"]) == (pytest.approx(math.exp(4) / total), 2)
    assert [each["text"] for each in second["n_best"]] == ["four", "three"]
    assert [(row["exact_match"], row["f1"]) for row in (second, third)] == [(1.0, 1.0), (0.0, 0.0)]


def test_the_columns_have_these_types(tmp_path):
    write_answers(answer_all([ask("a")], *together({0: [window(null=1.0)]}), 0.0), tmp_path / "val.parquet", "2.0")
    span = [("text", pa.string()), ("start", pa.int32()), ("end", pa.int32())]
    span += [("score", pa.float32()), ("probability", pa.float32())]
    assert pq.read_schema(tmp_path / "val.parquet") == pa.schema(
        [
            ("id", pa.string()),
            ("article", pa.string()),
            ("question", pa.string()),
            ("context", pa.string()),
            ("references", pa.list_(pa.string())),
            ("reference_start", pa.int32()),
            ("prediction", pa.string()),
            ("start", pa.int32()),
            ("end", pa.int32()),
            ("score", pa.float32()),
            ("probability", pa.float32()),
            ("null_score", pa.float32()),
            ("windows", pa.int32()),
            ("n_best", pa.list_(pa.struct(span))),
            ("exact_match", pa.float32()),
            ("f1", pa.float32()),
        ]
    )


@pytest.mark.parametrize("version", ["1.1", "2.0"])
def test_scores_are_those_of_the_official_rules(version, tmp_path):
    questions = [ask("a", "one two three", "two"), ask("b", "The four."), ask("c", "a")]
    spans = [(0, 7), (8, 18), ONE]
    windows = {place: [window((1.0, *span))] for place, span in enumerate(spans)}
    write_answers(answer_all(questions, *together(windows), None), tmp_path / "test.parquet", version)
    rows = pq.read_table(tmp_path / "test.parquet").to_pylist()
    predictions = {name: CONTEXT[begin:end] for name, (begin, end) in zip("abc", spans, strict=True)}
    expected = score_answers(predictions, {each.id: each.answers for each in questions}, version)
    assert [row["exact_match"] for row in rows] == expected.exact_match.tolist() == [0, 0, 0]
    assert [row["f1"] for row in rows] == pytest.approx(expected.f1.tolist(), abs=1e-7)
    assert [row["f1"] for row in rows] == pytest.approx([0.8, 2 / 3, 0.0], abs=1e-7)
