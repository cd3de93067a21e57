import pytest

from doctune.errors import ConfigError
from doctune.training.config import MultiTaskConfig, check


def problems(compose, *overrides):
    """The sentences of a refusal, in their order."""
    with pytest.raises(ConfigError) as caught:
        compose("data=emotions", *overrides)
    first, *lines = str(caught.value).splitlines()
    assert first == "The configuration cannot be run:"
    return [line.strip() for line in lines]


def test_emotions_has_three_targets_of_which_two_follow_from_the_first(compose):
    data = compose("data=emotions").data
    assert isinstance(data, MultiTaskConfig)
    targets = data.typed_targets()
    assert {name: (each.kind, each.source) for name, each in targets.items()} == {
        "emotion": ("multi", None),
        "sentiment": ("single", "emotion"),
        "ekman": ("multi", "emotion"),
    }
    assert [*targets["sentiment"].groups] == ["positive", "negative", "ambiguous", "neutral"]
    for name in ("sentiment", "ekman"):
        grouped = [label for labels in targets[name].groups.values() for label in labels]
        assert (len(grouped), len(set(grouped))) == (28, 28)


def test_the_reference_recipe_is_that_of_the_issue(compose):
    config = compose("experiment=emotions_enhanced")
    assert (config.data.kind, config.model.name) == ("multi_task", "minilm")
    assert (config.finetune.strategy, config.finetune.layers) == ("partial", 4)
    assert compose("model=roberta", "experiment=emotions_enhanced").model.name == "roberta"
    assert (config.model.dropout, config.model.head_dropout, config.seed) == (0.3, 0.3, 42)
    assert (config.loss.name, config.loss.gamma, config.loss.balance, config.loss.balance_lr) == (
        "focal", 2.0, "uncertainty", 0.01,
    )  # fmt: skip
    assert (config.schedule.name, config.callbacks.early_stopping.patience) == ("cosine", 3)


def test_a_target_can_be_added_and_taken_out_on_the_command_line(compose):
    data = compose("data=emotions", "~data.targets.ekman", "+data.targets.irony.column=is_ironic").data
    targets = data.typed_targets()
    assert [*targets] == ["emotion", "sentiment", "irony"]
    assert (targets["irony"].kind, targets["irony"].column, targets["irony"].weight) == ("single", "is_ironic", 1.0)


@pytest.mark.parametrize("finetune", ["full", "head", "partial", "gradual"])
def test_every_way_to_fine_tune_is_allowed(compose, finetune):
    assert compose("data=emotions", "model=minilm", f"finetune={finetune}").finetune.strategy == finetune


def test_folds_need_a_table_that_gives_all_parts(compose):
    assert compose("data=emotions", "data.test=[]", "split=kfold", "split.fold=0").split.fold == 0


@pytest.mark.parametrize("metric", ["val/f1_macro", "val/loss", "val/sentiment/f1_macro"])
def test_a_run_can_be_judged_by_the_mean_or_by_one_target(compose, metric):
    assert compose("data=emotions", f"monitor.metric={metric}").monitor.metric == metric


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["data.stratify=mood"], "data.stratify=mood is no target; targets: emotion, sentiment, ekman."),
        (["data.train=[]"], "data.train is empty; name at least one table: data.train=[train.tsv]."),
        (["data.duplicate_threshold=0"], "data.duplicate_threshold=0.0 must be between 0.6 and 1."),
        (["data.max_unusable=2"], "data.max_unusable=2.0 must be between 0 and 1."),
        (["data.max_train=0"], "data.max_train=0 must be at least 1."),
        (["data.vector=last"], "data.vector=last is not a choice: mean, cls."),
        (
            ["data.sampling.method=oversample"],
            "data.sampling.method=oversample is for data with one label per text; several targets have "
            "loss.class_weights.",
        ),
        (
            ["split=kfold", "split.fold=0"],
            "data.val and data.test name the texts that choose and judge, and split=kfold makes every fold judge: "
            "data.val=[] data.test=[].",
        ),
        (
            ["~data.targets.emotion", "~data.targets.sentiment", "~data.targets.ekman"],
            "data.targets is empty; name at least one column to learn, such as +data.targets.emotion.kind=multi.",
        ),
        (
            ["+data.targets.emotion.knd=multi"],
            "There is no key data.targets.emotion.knd; a target has kind, column, separator, names, source, groups, "
            "mixed, weight.",
        ),
        (
            ["+data.targets.mood=joy"],
            "data.targets.mood=joy must be keys with values, such as {kind: multi, column: mood}.",
        ),
        (
            ["+data.targets.emotion.weight=much"],
            "data.targets.emotion.weight: Value 'much' of type 'str' could not be converted to Float",
        ),
        (
            ["data.targets.emotion.kind=many"],
            "data.targets.emotion.kind='many' is not a choice: single (one label per text) or multi (any number of "
            "them).",
        ),
        (["~data.targets.ekman.source"], "data.targets.ekman.groups needs data.targets.ekman.source, the target whose "
            "labels are grouped."),
        (["+data.targets.emotion.mixed=x"], "data.targets.emotion.mixed=x is for a target with a source."),
        (
            ["+data.targets.ekman.column=x"],
            "data.targets.ekman follows from data.targets.ekman.source=emotion, so it has no column and no names of "
            "its own.",
        ),
        (
            ["~data.targets.emotion"],
            "data.targets.sentiment.source=emotion is no target that stands in a column; those are: none.",
        ),
        (["~data.targets.ekman.groups"], "data.targets.ekman.groups is empty; name the labels of each group."),
        (["+data.targets.emotion.weight=-1"], "data.targets.emotion.weight=-1.0 must be a number from 0."),
        (
            [f"+data.targets.{name}.weight=0" for name in ("emotion", "sentiment", "ekman")],
            "data.targets.emotion.weight, data.targets.sentiment.weight, data.targets.ekman.weight are all 0; nothing "
            "would be learnt.",
        ),
        (
            ["loss.balance=uncertainty", "+data.targets.ekman.weight=2"],
            "data.targets.ekman.weight=2.0 is for loss.balance=fixed; loss.balance=uncertainty learns the weights.",
        ),
        (["loss.balance=none"], "loss.balance=none is not a choice: fixed, uncertainty."),
        (["loss.balance_lr=0.1"], "loss.balance_lr=0.1 is for loss.balance=uncertainty only."),
        (["loss.balance=uncertainty", "loss.balance_lr=0"], "loss.balance_lr=0.0 must be larger than 0."),
        (
            ["monitor.metric=val/mood/f1_macro"],
            "monitor.metric=val/mood/f1_macro is not a choice: val/f1_macro, val/loss, val/emotion/f1_macro, "
            "val/sentiment/f1_macro, val/ekman/f1_macro.",
        ),
    ],
)  # fmt: skip
def test_a_contradiction_is_refused_in_one_sentence(compose, overrides, sentence):
    assert problems(compose, *overrides) == [sentence]


def test_one_target_has_nothing_to_balance(compose):
    with pytest.raises(ConfigError) as caught:
        compose("loss.balance=uncertainty")
    assert "  loss.balance=uncertainty weighs several targets; data=file_content has one." in str(caught.value)


def test_names_of_targets_have_no_slash(compose):
    config = compose("data=emotions")
    config.data.targets["a/b"] = {"kind": "multi"}
    with pytest.raises(ConfigError) as caught:
        check(config)
    assert str(caught.value).splitlines()[1:] == [
        "  data.targets.a/b: the name of a target must not be empty or have a slash, which metrics put behind it."
    ]
