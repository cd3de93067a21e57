import json

import pyarrow.parquet as pq
import pytest

from doctune.corpus import answer_baselines
from doctune.corpus.answer_baselines import add_baselines, judge_cheap_answers
from doctune.corpus.lexical import lexical_answers
from doctune.corpus.squad import Question
from doctune.scoring.squad import bootstrap_intervals, score_answers


def ask(name, context, answer):
    start = context.index(answer) if answer else None
    return Question(name, "Towns", context, "Where does Anna live?", (answer,) if answer else (), start, not answer)


class Corpus:
    """Six questions of each part; the second of each part has no answer where `is_v2`."""

    def __init__(self, is_v2):
        self.parts = {}
        for part in ("train", "val", "test"):
            contexts = [f"Anna{n} lives in {part}town{n}. Otto{n} sleeps a lot." for n in range(6)]
            self.parts[part] = tuple(
                ask(f"{part}{n}", context, "" if is_v2 and n == 1 else f"{part}town{n}")
                for n, context in enumerate(contexts)
            )

    def part(self, name):
        return self.parts[name]


def read(run):
    judged = json.loads((run / "data/baselines.json").read_text())
    return judged, pq.read_table(run / "predictions/baselines_test.parquet").to_pydict()


def test_counted_words_are_judged_with_intervals(tmp_path):
    corpus = Corpus(is_v2=False)
    judge_cheap_answers(corpus, "1.1", tmp_path)
    judged, answers = read(tmp_path)
    assert [*judged] == ["lexical"]
    known = [question.context for question in corpus.part("train")]
    for part in ("val", "test"):
        questions = corpus.part(part)
        given = lexical_answers(questions, known)
        scores = score_answers(
            {question.id: answer for question, answer in zip(questions, given, strict=True)},
            {question.id: question.answers for question in questions},
            "1.1",
        )
        assert judged["lexical"][part] == {
            "exact_match": scores.exact_match.mean(),
            "f1": pytest.approx(scores.f1.mean()),
            "questions": 6,
            "unanswered": 0,
            "ci95": {name: list(bounds) for name, bounds in bootstrap_intervals(scores).items()},
        }
    assert answers == {"id": [f"test{n}" for n in range(6)], "lexical": list(given)}


def test_silence_is_a_baseline_where_questions_may_have_no_answer(tmp_path):
    judge_cheap_answers(Corpus(is_v2=True), "2.0", tmp_path)
    judged, answers = read(tmp_path)
    assert [*judged] == ["lexical", "no_answer"]
    assert judged["no_answer"]["test"]["f1"] == judged["no_answer"]["val"]["exact_match"] == 1 / 6
    assert answers["no_answer"] == [""] * 6


def test_a_baseline_joins_those_that_are_there_and_replaces_itself(tmp_path):
    corpus = Corpus(is_v2=False)
    judge_cheap_answers(corpus, "1.1", tmp_path)
    before, columns = read(tmp_path)
    parts = {part: corpus.part(part) for part in ("val", "test")}
    for answers in (["x"] * 6, [question.answers[0] for question in parts["test"]]):
        add_baselines(tmp_path, parts, {"untrained": {"val": ["x"] * 6, "test": answers}}, "1.1")
        judged, found = read(tmp_path)
        assert judged["lexical"] == before["lexical"]
        assert found == columns | {"untrained": answers}
    assert (judged["untrained"]["val"]["f1"], judged["untrained"]["test"]["f1"]) == (0, 1)


def test_a_run_that_is_killed_on_the_way_has_all_cheap_baselines_or_none(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(answer_baselines, "write_json", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            judge_cheap_answers(Corpus(is_v2=True), "2.0", tmp_path)
    assert not (tmp_path / "data/baselines.json").exists()
    judge_cheap_answers(Corpus(is_v2=True), "2.0", tmp_path)
    judged, answers = read(tmp_path)
    assert [*judged] == ["lexical", "no_answer"]
    assert [*answers] == ["id", "lexical", "no_answer"]
