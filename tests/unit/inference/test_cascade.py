import errno
import itertools
import json
import os
import shutil
import time

import pytest

from doctune.errors import ArtifactError, ConfigError
from doctune.inference import cascade as cascade_module
from doctune.inference.artifact import load_artifact
from doctune.inference.cascade import (
    Cascade,
    CascadeAnswer,
    CascadeSettings,
    Passed,
    StageSettings,
    endpoint_settings,
    load_cascade,
    read_settings,
)
from doctune.inference.endpoint import ChatEndpoint, EndpointSettings
from doctune.inference.engine import load
from doctune.inference.forest import FOREST_FILE, ForestSettings, fit_forest
from doctune.inference.stages import StageAnswer, no_answer
from doctune.labels import Labels


class Table:
    """A stage that looks its answers up, and remembers what it was asked."""

    def __init__(self, name, **answers):
        self.name = name
        self.answers = answers
        self.asked = []

    def predict(self, texts):
        self.asked.append(list(texts))
        return [self.answers[text] for text in texts]


def sure(label, score=0.9):
    return StageAnswer(label, score, (score, 1 - score))


def test_the_first_stage_that_is_confident_enough_answers():
    first = Table("first", x=sure("a", 0.8), y=sure("a", 0.62), z=no_answer("timed out after 10 s"))
    last = Table("last", y=sure("b", 0.3), z=sure("c", 0.4))
    answers = [*Cascade([(first, 0.8), (last, None)]).predict(["x", "y", "z"])]
    assert answers == [
        CascadeAnswer("a", 0.8, "first", (0.8, 1 - 0.8), ()),
        CascadeAnswer("b", 0.3, "last", (0.3, 0.7), (Passed("first", "0.62 below 0.80"),)),
        CascadeAnswer("c", 0.4, "last", (0.4, 0.6), (Passed("first", "timed out after 10 s"),)),
    ]
    assert [answer.reason for answer in answers] == ["", "first: 0.62 below 0.80", "first: timed out after 10 s"]


def test_only_what_a_stage_passed_goes_to_the_next():
    first = Table("first", x=sure("a"), y=sure("a", 0.1), z=sure("b"))
    second = Table("second", y=sure("a", 0.2))
    last = Table("last", y=sure("b", 0.3))
    assert [*Cascade([(first, 0.5), (second, 0.5), (last, None)]).predict("xyz")][1].stage == "last"
    assert (first.asked, second.asked, last.asked) == ([["x", "y", "z"]], [["y"]], [["y"]])


def test_a_stage_that_nothing_comes_to_is_not_asked():
    last = Table("last")
    assert next(Cascade([(Table("first", x=sure("a")), 0.5), (last, None)]).predict(["x"])).label == "a"
    assert last.asked == []


def test_a_last_stage_with_a_threshold_abstains_below_it():
    stages = [(Table("first", x=sure("a", 0.4)), 0.5), (Table("last", x=sure("b", 0.3)), 0.7)]
    assert [*Cascade(stages).predict(["x"])] == [
        CascadeAnswer(None, None, None, None, (Passed("first", "0.40 below 0.50"), Passed("last", "0.30 below 0.70")))
    ]


def test_where_the_last_stage_has_no_answer_the_one_before_it_answers():
    stages = [
        (Table("first", x=sure("a", 0.4)), 0.5),
        (Table("second", x=sure("b", 0.3)), 0.5),
        (Table("last", x=no_answer("could not be reached: down")), None),
    ]
    assert [*Cascade(stages).predict(["x"])] == [
        CascadeAnswer(
            "b",
            0.3,
            "second",
            (0.3, 0.7),
            (Passed("first", "0.40 below 0.50"), Passed("last", "could not be reached: down")),
        )
    ]


def test_where_no_stage_has_an_answer_there_is_none():
    answer = next(Cascade([(Table("only", x=no_answer("down")), None)]).predict(["x"]))
    assert (answer.label, answer.score, answer.stage, answer.reason) == (None, None, None, "only: down")


def test_scores_that_look_like_their_threshold_are_shown_in_full():
    stages = [(Table("first", x=sure("a", 0.7999999)), 0.8), (Table("last", x=sure("b")), None)]
    assert next(Cascade(stages).predict(["x"])).reason == "first: 0.800000 below 0.800000"
    stages = [(Table("first", x=sure("a", 0.7996)), 0.8), (Table("last", x=sure("b")), None)]
    assert next(Cascade(stages).predict(["x"])).reason == "first: 0.799600 below 0.800000"


def test_texts_are_read_ahead_a_bounded_number_at_a_time(monkeypatch):
    monkeypatch.setattr(cascade_module, "TEXTS_AT_ONCE", 3)
    stage = Table("only", x=sure("a"))
    taken = itertools.count()
    texts = ("x" for _ in iter(lambda: next(taken), 100))
    answers = Cascade([(stage, None)]).predict(texts)
    assert next(answers).label == "a"
    assert next(taken) == 3
    assert stage.asked == [["x"] * 3]
    assert [*Cascade([(stage, None)]).predict([])] == []


def test_nothing_is_lost_while_an_endpoint_is_slow_wrong_limited_and_down_in_turn(stand_in, completion):
    """Ten texts for each of its moods; what the endpoint does not label, the next stage does, in order."""

    def slowly():
        time.sleep(0.5)
        return completion("a")

    moods = [
        lambda: completion("a"),
        slowly,
        lambda: completion("foo"),
        lambda: (200, {}, "<html>"),
        lambda: (429, {"Retry-After": "0"}, ""),
        lambda: (503, {}, ""),
    ]
    server = stand_in(lambda text, number: moods[int(text) // 10]())
    settings = EndpointSettings(
        server.url, "m", timeout_s=0.3, retries=1, backoff_s=0.01, concurrency=5, max_failures=1000
    )
    texts = [str(number) for number in range(70)]
    last = Table("last", **{text: sure(f"last {text}") for text in texts})
    cascade = Cascade([(ChatEndpoint(settings, Labels(("a", "b"))), 0.5), (last, None)])
    answers = [*cascade.predict(texts[:60])]
    assert len(server.requests) == 10 + 20 + 10 + 20 + 20 + 20
    server.stop()
    answers += cascade.predict(texts[60:])
    assert [answer.label for answer in answers] == ["a"] * 10 + [f"last {text}" for text in texts[10:]]
    assert [{answer.reason for answer in answers[place : place + 10]} for place in range(0, 70, 10)] == [
        {""},
        {"http: timed out after 0.3 s (2 attempts)"},
        {"http: answered 'foo', which is no label"},
        {"http: answered with something that is not JSON (2 attempts)"},
        {"http: answered HTTP 429 Too Many Requests (2 attempts)"},
        {"http: answered HTTP 503 Service Unavailable (2 attempts)"},
        {f"http: could not be reached: {os.strerror(errno.ECONNREFUSED)} (2 attempts)"},
    ]


def test_settings_are_read_as_they_were_written(tmp_path):
    endpoint = EndpointSettings("https://host/v1", "m", key_variable="KEY", timeout_s=10.0, body={"seed": 1})
    stages = (StageSettings("forest", 0.6), StageSettings("http", 0.8, endpoint), StageSettings("transformer", None))
    settings = CascadeSettings(stages, {"aim": "x"})
    settings.save(tmp_path / "cascade.json")
    assert read_settings(tmp_path / "cascade.json") == settings
    assert json.loads((tmp_path / "cascade.json").read_text())["stages"][0] == {"name": "forest", "threshold": 0.6}


def test_a_missing_cascade_says_what_makes_one(tmp_path):
    with pytest.raises(ArtifactError) as caught:
        read_settings(tmp_path / "cascade.json")
    assert (
        str(caught.value) == f"{tmp_path / 'cascade.json'}: there is no cascade. `doctune cascade-tune RUN` makes one."
    )


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is not JSON: "),
        ("[]", "is no cascade (TypeError: list indices must be integers or slices, not str): it needs a schema and"),
        ('{"schema": 1}', "is no cascade (KeyError: 'stages'): it needs a schema and stages, each with a name and a"),
        ('{"schema": 1, "stages": [{"name": "forest"}]}', "is no cascade (KeyError: 'threshold'): "),
        ('{"schema": 2, "stages": []}', "has schema 2; this version of doctune knows up to 1."),
    ],
)
def test_a_file_that_is_no_cascade_is_refused(tmp_path, content, sentence):
    (tmp_path / "cascade.json").write_text(content)
    with pytest.raises(ArtifactError) as caught:
        read_settings(tmp_path / "cascade.json")
    assert str(caught.value).startswith(f"{tmp_path / 'cascade.json'} {sentence}")


@pytest.mark.parametrize(
    ("stages", "sentence"),
    [
        ([], "The cascade cannot be used: it has no stage; name at least one of transformer, forest, http."),
        ([("svm", None)], "The cascade cannot be used: there is no stage 'svm'; there are transformer, forest, http."),
        ([("forest", 0.5), ("forest", None)], "The cascade cannot be used: it has the stage 'forest' 2 times."),
        (
            [("forest", None), ("transformer", None)],
            "The cascade cannot be used: only the last stage may have the threshold null, and 'forest' is not: give it "
            "a number.",
        ),
        ([("forest", 1.5)], "The cascade cannot be used: the threshold of 'forest' is 1.5 and must be a number from 0"),
        ([("forest", "x")], "The cascade cannot be used: the threshold of 'forest' is 'x' and must be a number from 0"),
        ([("http", None)], "The cascade cannot be used: the stage 'http' needs an endpoint with url and model."),
    ],
)
def test_stages_that_contradict_each_other_are_refused(tmp_path, stages, sentence):
    values = {"schema": 1, "stages": [{"name": name, "threshold": threshold} for name, threshold in stages]}
    (tmp_path / "cascade.json").write_text(json.dumps(values))
    with pytest.raises(ConfigError) as caught:
        read_settings(tmp_path / "cascade.json")
    assert str(caught.value).startswith(f"{tmp_path / 'cascade.json'}: {sentence}")


def test_unknown_and_missing_keys_are_named(tmp_path):
    (tmp_path / "cascade.json").write_text('{"schema": 1, "stages": [{"name": "forest", "treshold": 1}]}')
    with pytest.raises(
        ConfigError, match=r"There is no key treshold of a stage; there are name, threshold, endpoint\."
    ):
        read_settings(tmp_path / "cascade.json")
    with pytest.raises(
        ConfigError, match="There is no key api_key of an endpoint; there are url, model, key_variable,"
    ):
        endpoint_settings({"url": "https://host", "model": "m", "api_key": "x"})
    with pytest.raises(ConfigError, match=r"The endpoint lacks url and model\."):
        endpoint_settings({})
    with pytest.raises(ConfigError, match=r"the stage 'forest' has no endpoint; only 'http' has one\."):
        CascadeSettings((StageSettings("forest", None, EndpointSettings("https://host", "m")),))


def test_the_cascade_of_a_run_is_its_model_forest_and_endpoint(tiny_model, stand_in, completion, tmp_path):
    folder = shutil.copytree(tiny_model(), tmp_path / "model")
    labels = load_artifact(folder).labels
    texts, ids = ["def f(x): return x", "invoice 13;9.00;EUR", "Take two eggs."], [0, 1, 2]
    forest = fit_forest(texts * 5, ids * 5, labels, ForestSettings(trees=30))
    forest.save(folder / FOREST_FILE)
    server = stand_in(lambda text, number: completion("recipe" if "eggs" in text else "?"))
    stages = (
        StageSettings("http", 0.5, EndpointSettings(server.url, "m")),
        StageSettings("forest", forest.predict(texts)[0].score),
        StageSettings("transformer", None),
    )
    CascadeSettings(stages).save(folder / "cascade.json")
    answers = [*load_cascade(tmp_path).predict([*reversed(texts), "nothing known"])]
    assert [(answer.label, answer.stage) for answer in answers[::2]] == [("recipe", "http"), ("code", "forest")]
    assert answers[2].passed == (Passed("http", "answered '?', which is no label"),)
    (own,) = load(tmp_path).predict(["nothing known"])
    assert answers[3].probabilities == own.probabilities
    assert (answers[3].label, answers[3].stage) == (own.label, "transformer")
    assert [passed.stage for passed in answers[3].passed] == ["http", "forest"]


def test_a_cascade_in_another_file_with_a_loaded_model(tiny_model, tmp_path):
    CascadeSettings((StageSettings("transformer", None),)).save(tmp_path / "mine.json")
    engine = load(tiny_model())
    (answer,) = load_cascade(tiny_model(), file=tmp_path / "mine.json", engine=engine).predict(["Take two eggs."])
    assert answer.probabilities == next(engine.predict(["Take two eggs."])).probabilities


def test_a_reader_has_no_cascade(known_reader):
    with pytest.raises(ArtifactError, match=r"was trained for question_answering; a cascade needs a classifier\."):
        load_cascade(known_reader)
