import time
from itertools import pairwise, permutations, product

import numpy as np
import pytest

from doctune.errors import ConfigError
from doctune.inference.cascade_tuning import (
    GRID,
    TIMED_TEXTS,
    Option,
    StageRecord,
    choose,
    frontier,
    judge,
    record_stage,
    replay,
    threshold_grid,
)
from doctune.inference.stages import StageAnswer, no_answer

TRUTH = ["a", "a", "b", "b"]


def record(name, latency_ms, *answers):
    found = [no_answer("down") if answer is None else StageAnswer(*answer) for answer in answers]
    return StageRecord(name, tuple(found), latency_ms)


# Right of the first two and sure of it, wrong of one of the others and unsure.
CHEAP = record("forest", 1.0, ("a", 0.9), ("a", 0.8), ("b", 0.4), ("a", 0.3))
DEAR = record("transformer", 10.0, ("a", 0.9), ("b", 0.6), ("b", 0.9), ("b", 0.9))
BROKEN = record("http", 100.0, None, None, None, None)


def made_records(seed, num_documents=40):
    """Three stages of rising accuracy and cost that are surer where they are right, one of them sometimes silent."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(["a", "b", "c"], num_documents).tolist()
    records = []
    for name, skill, latency_ms in [("forest", 0.6, 1.0), ("transformer", 0.75, 8.0), ("http", 0.9, 50.0)]:
        answers = []
        for label in truth:
            is_right = rng.random() < skill
            if name == "http" and rng.random() < 0.2:
                answers.append(None)
            else:
                answers.append((label if is_right else "d", round(float(rng.beta(4 if is_right else 2, 2)), 3)))
        records.append(record(name, latency_ms, *answers))
    return records, truth


def measure(option, records, truth):
    """Accuracy and latency, one text after the other, by what the cascade says that it did."""
    latencies = {each.name: each.latency_ms for each in records}
    answers = replay(option, records)
    right = sum(answer.label == label for answer, label in zip(answers, truth, strict=True))
    asked = [name for answer in answers for name in (answer.stage, *(each.stage for each in answer.passed)) if name]
    return right / len(truth), sum(latencies[name] for name in asked) / len(truth)


def test_the_frontier_of_two_stages():
    found = frontier([CHEAP, DEAR], TRUTH)
    assert [(option.stages, option.thresholds) for option in found] == [
        (("forest",), ()),
        (("forest", "transformer"), (0.4,)),
    ]
    assert [(option.accuracy, option.latency_ms) for option in found] == [(0.75, 1.0), (1.0, 1.0 + 10.0 / 4)]
    assert [option.shares for option in found] == [(1.0,), (0.75, 0.25)]


@pytest.mark.parametrize("seed", range(5))
def test_every_option_does_what_the_cascade_itself_does(seed):
    records, truth = made_records(seed)
    for option in frontier(records, truth):
        accuracy, latency_ms = measure(option, records, truth)
        assert option.accuracy == pytest.approx(accuracy)
        assert option.latency_ms == pytest.approx(latency_ms)
        given = [answer.stage for answer in replay(option, records)]
        assert option.shares == tuple(given.count(name) / len(truth) for name in option.stages)


@pytest.mark.parametrize("seed", range(3))
def test_no_cascade_of_the_grid_beats_the_frontier(seed, monkeypatch):
    monkeypatch.setattr("doctune.inference.cascade_tuning.GRID", 4)
    records, truth = made_records(seed, num_documents=15)
    found = frontier(records, truth)
    assert all(a.latency_ms < b.latency_ms and a.accuracy < b.accuracy for a, b in pairwise(found))
    grids = {each.name: threshold_grid(each.scores()[each.is_answered()]) for each in records}
    for size in (1, 2, 3):
        for names in permutations(grids, size):
            for thresholds in product(*(grids[name] for name in names[:-1])):
                accuracy, latency_ms = measure(Option(names, thresholds, 0, 0, ()), records, truth)
                assert any(o.accuracy >= accuracy - 1e-9 and o.latency_ms <= latency_ms + 1e-9 for o in found)


def test_a_stage_that_never_answers_is_in_no_chosen_cascade():
    found = frontier([BROKEN, CHEAP, DEAR], TRUTH)
    assert {name for option in found for name in option.stages} == {"forest", "transformer"}


def test_stages_that_never_answer_alone_have_a_frontier_of_nothing():
    (option,) = frontier([BROKEN], TRUTH)
    assert (option.accuracy, option.shares) == (0.0, (0.0,))


def test_the_grid_has_scores_that_occurred_rounded_down():
    assert threshold_grid(np.array([0.123456, 0.9, 0.9])).tolist() == [0.1234, 0.9]
    assert threshold_grid(np.array([])).tolist() == [1.0]
    assert len(threshold_grid(np.random.default_rng(0).random(1000))) == GRID


def test_without_an_aim_the_most_accurate_is_chosen():
    found = frontier([CHEAP, DEAR], TRUTH)
    assert choose(found, None, None) is found[-1]


def test_an_accuracy_asks_for_the_fastest_and_a_latency_for_the_most_accurate():
    found = frontier([CHEAP, DEAR], TRUTH)
    assert choose(found, 0.75, None) is found[0]
    assert choose(found, 0.76, None) is found[1]
    assert choose(found, None, 3.4) is found[0]
    assert choose(found, None, 3.5) is found[1]


def test_an_aim_that_cannot_be_reached_is_refused_with_the_nearest():
    found = frontier([CHEAP], TRUTH)
    with pytest.raises(ConfigError) as caught:
        choose(found, 0.9, None)
    assert str(caught.value) == (
        "--target-accuracy 0.9 is not reached on the validation documents: the most accurate cascade has 0.7500, "
        "at 1.0 ms a document."
    )
    with pytest.raises(ConfigError) as caught:
        choose(found, None, 0.5)
    assert str(caught.value) == "--max-latency-ms 0.5 is too little: the fastest cascade takes 1.0 ms a document."


def test_the_choice_is_judged_beside_each_stage_alone():
    option = frontier([CHEAP, DEAR], TRUTH)[-1]
    cascade, cheap, dear = judge(option, [CHEAP, DEAR], TRUTH)
    assert (cascade.name, cascade.accuracy, cascade.ci95, cascade.latency_ms) == ("cascade", 1.0, (1.0, 1.0), 3.5)
    assert (cascade.advantage, cascade.advantage_ci95) == (None, None)
    assert (cheap.name, cheap.accuracy, cheap.advantage, cheap.latency_ms) == ("forest", 0.75, 0.25, 1.0)
    assert cheap.ci95 == (0.25, 1.0)
    assert cheap.advantage_ci95 == (0.0, 0.75)
    assert (dear.name, dear.accuracy, dear.advantage) == ("transformer", 0.75, 0.25)


class Slow:
    """A stage that takes 20 ms for each text, and 200 ms more at its first."""

    name = "slow"

    def __init__(self):
        self.asked = []

    def predict(self, texts):
        time.sleep(0.02 * len(texts) + (0 if self.asked else 0.2))
        self.asked.append(texts)
        return [StageAnswer(text, 0.5) for text in texts]


def test_a_stage_is_asked_once_for_each_text_and_timed_on_some_after_the_first():
    stage, texts = Slow(), [str(number) for number in range(40)]
    found = record_stage(stage, texts)
    assert [answer.label for answer in found.answers] == texts
    assert sorted(text for asked in stage.asked for text in asked) == sorted(texts)
    assert [len(asked) for asked in stage.asked] == [1] * TIMED_TEXTS + [40 - TIMED_TEXTS]
    assert stage.asked[0] == ["0"]
    assert stage.asked[TIMED_TEXTS - 1] == ["39"]
    assert 20 <= found.latency_ms < 200  # without the first one


def test_a_single_text_is_timed_too():
    assert record_stage(Slow(), ["x"]).latency_ms >= 220


def test_the_commonest_reason_for_no_answer():
    assert BROKEN.commonest_reason() == ("down", 4)
    assert CHEAP.commonest_reason() is None
