"""What a search may vary, every refusal word for word, and the table of its trials."""

import json

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from doctune.errors import ConfigError
from doctune.reports.search import Search, Trial, write_search
from doctune.training.search import importance_of
from doctune.training.search_space import Choices, Range, override_of, parse_space, with_command_line


def parsed(*overrides):
    return OverridesParser.create().parse_overrides(list(overrides))


def test_nested_and_dotted_keys_become_ranges_and_choices():
    nested = {
        "optim": {"lr": {"low": 1e-6, "high": 1e-3, "log": True}},
        "model.head_dropout": {"low": 0, "high": 0.5},
        "trainer": {"effective_batch_size": {"choices": [8, 16, 8]}},
    }
    assert parse_space(nested) == {
        "optim.lr": Range(1e-6, 1e-3, log=True),
        "model.head_dropout": Range(0, 0.5),
        "trainer.effective_batch_size": Choices(("8", "16")),
    }


def test_choices_are_kept_as_they_are_typed():
    values = [None, True, 1e-5, "bf16-mixed", "32", "null", "it's two words"]
    assert parse_space({"key": {"choices": values}})["key"] == Choices(
        ("null", "true", "1e-05", "bf16-mixed", "'32'", "'null'", r"'it\'s two words'")
    )


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"low": 1, "high": 1}, "low=1 is not below high=1."),
        ({"low": 2e-3, "high": 1e-3}, "low=0.002 is not below high=0.001."),
        ({"low": 0, "high": 1, "log": True}, "log=true needs low above 0, and low=0."),
        ({"low": 0, "high": 1, "log": "yes"}, "log=yes is neither true nor false."),
        ({"low": 1}, "high is missing; a range is {low: …, high: …}."),
        ({"log": True, "high": 1}, "low is missing; a range is {low: …, high: …}."),
        ({"low": "small", "high": 1}, "low=small is not a number."),
        ({"low": True, "high": 2}, "low=True is not a number."),
        ({"low": 1, "high": float("inf")}, "high=inf is not a number."),
        ({"low": 1, "high": 2, "step": 1}, "step is not an option: low, high, log, choices."),
        ({"low": 1, "high": 2, "choices": [1]}, "choices and low, high exclude each other: give one of the two."),
        ({"choices": []}, "choices=[] is not a list of values."),
        ({"choices": "abc"}, "choices=abc is not a list of values."),
        ({"choices": [[1], 2]}, "choices has [1], which is not a single value."),
        (3, "3 is not {low: …, high: …}, with log: true where wanted, or {choices: […]}."),
        (None, "null is not {low: …, high: …}, with log: true where wanted, or {choices: […]}."),
        ({}, "{} is not {low: …, high: …}, with log: true where wanted, or {choices: […]}."),
    ],
)
def test_what_is_no_range_and_no_choices_is_refused_in_a_sentence(entry, sentence):
    with pytest.raises(ConfigError) as refusal:
        parse_space({"optim": {"lr": entry}})
    assert str(refusal.value) == f"hydra.sweeper.search_space cannot be searched:\n  optim.lr: {sentence}"


def test_all_mistakes_are_said_at_once():
    twice = {"low": 1, "high": 2}
    with pytest.raises(ConfigError) as refusal:
        parse_space({"a.b": twice, "a": {"b": twice}, "c": 1})
    assert [line.split(":")[0] for line in str(refusal.value).splitlines()[1:]] == ["  a.b", "  c"]
    assert "a.b: is given twice, dotted and nested." in str(refusal.value)


def test_the_command_line_fixes_replaces_and_adds():
    space = {"optim.lr": Range(1e-6, 1e-3, log=True), "model.dropout": Range(0, 0.5), "seed": Choices(("1", "2"))}
    overrides = ("sweep=optuna", "model.dropout=0.1", "seed=3,4,3", "optim.weight_decay=interval(0,0.1)")
    assert with_command_line(space, parsed(*overrides)) == (
        {"optim.lr": space["optim.lr"], "seed": Choices(("3", "4")), "optim.weight_decay": Range(0, 0.1)},
        ["sweep=optuna", "model.dropout=0.1"],
    )
    searched, _ = with_command_line({}, parsed("optim.lr=tag(log,interval(1e-5,1e-3))"))
    assert searched == {"optim.lr": Range(1e-5, 1e-3, log=True)}


def test_an_interval_that_is_none_is_refused():
    with pytest.raises(ConfigError) as refusal:
        with_command_line({}, parsed("optim.lr=interval(2,1)"))
    assert str(refusal.value) == "optim.lr=interval(2.0,1.0): low=2.0 is not below high=1.0."


def test_a_search_over_nothing_is_refused():
    with pytest.raises(ConfigError) as refusal:
        with_command_line({"optim.lr": Range(1e-6, 1e-3)}, parsed("optim.lr=1e-5"))
    assert str(refusal.value) == (
        "There is nothing to search: hydra.sweeper.search_space is empty, or the command line fixes all of it. Give a "
        "key several values, such as optim.lr=1e-5,3e-5."
    )


def test_numbers_are_passed_on_to_the_last_digit():
    assert override_of("optim.lr", 0.1 + 0.2) == "optim.lr=0.30000000000000004"
    assert override_of("model", "minilm") == "model=minilm"


def made_search(mode, importance=()):
    trials = (
        Trial(0, 0.5, {"optim.lr": 0.123456789, "seed": "1"}, "trial-0", None),
        Trial(1, None, {"optim.lr": 0.2, "seed": "2"}, None, "It broke."),
        Trial(2, 0.75, {"optim.lr": 0.3, "seed": "1"}, "trial-2", None),
    )
    return Search("val/f1_macro", mode, 4, ("data.manifest=a b.csv",), trials, dict(importance), "there is no reason")


def test_the_table_ranks_the_trials_and_names_what_failed(tmp_path):
    shown = write_search(made_search("max", [("optim.lr", 0.9), ("seed", 0.1)]), tmp_path)
    assert shown.read_text(encoding="utf-8") == (
        "Search by val/f1_macro (higher is better): 3 of 4 trials done, 2 finished, 1 failed.\n"
        "\n"
        "rank  trial  val/f1_macro  optim.lr  seed  status    folder\n"
        "1     2      0.7500        0.3       1     finished  trial-2\n"
        "2     0      0.5000        0.1235    1     finished  trial-0\n"
        "–     1      –             0.2       2     failed    –\n"
        "\n"
        "Failed:\n"
        "  trial 1: It broke.\n"
        "\n"
        "Best: trial 2. To train it again:\n"
        "  python train.py 'data.manifest=a b.csv' optim.lr=0.3 seed=1\n"
        "\n"
        "Importance (fANOVA: share of the variation of the score):\n"
        "  optim.lr   90.0 %\n"
        "  seed       10.0 %\n"
    )


def test_a_loss_is_ranked_from_below_and_the_json_has_every_digit(tmp_path):
    assert write_search(made_search("min"), tmp_path).read_text().splitlines()[-1] == (
        "Importance: not available, there is no reason."
    )
    found = json.loads((tmp_path / "search.json").read_text())
    assert [(trial["rank"], trial["trial"]) for trial in found["trials"]] == [(1, 0), (2, 2), (None, 1)]
    assert found["best"] == {
        "trial": 0, "value": 0.5, "overrides": ["data.manifest=a b.csv", "optim.lr=0.123456789", "seed=1"],
    }  # fmt: skip
    assert (found["finished"], found["failed"], found["importance"]) == (2, 1, None)


@pytest.mark.parametrize(
    ("scores", "reason"), [([0.5], "fewer than 2 trials have finished"), ([0.5, 0.5, 0.5], "all trials scored alike")]
)
def test_why_the_importance_is_not_known(scores, reason):
    assert importance_of(made_study(scores)) == ({}, reason)


def test_the_sentence_of_the_library_is_given_without_its_full_stop(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise RuntimeError("Encountered zero total variance in all trees.")

    monkeypatch.setattr("optuna.importance.get_param_importances", refuse)
    missing = "RuntimeError: Encountered zero total variance in all trees"
    assert importance_of(made_study([0.5, 0.6])) == ({}, missing)


def made_study(scores):
    optuna = pytest.importorskip("optuna")
    study = optuna.create_study()
    for number, score in enumerate(scores):
        distribution = optuna.distributions.FloatDistribution(0, 10)
        study.add_trial(
            optuna.create_trial(
                params={"optim.lr": float(number)}, distributions={"optim.lr": distribution}, value=score
            )
        )
    return study
