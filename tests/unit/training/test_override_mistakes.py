"""What a mistyped override is answered with, word for word."""

import pytest
from hydra.errors import HydraException

from doctune.training.key_names import nearest_keys
from doctune.training.override_mistakes import mistake_in


def mistake(compose, *overrides):
    with pytest.raises(HydraException) as caught:
        compose(*overrides)
    return mistake_in(caught.value, ["experiment", "sweep"])


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("optim.lrr=1e-3", "There is no key optim.lrr. Did you mean optim.lr?"),
        ("optm.lr=1", "There is no key optm.lr. Did you mean optim.lr?"),
        ("lr=3", "There is no key lr. Did you mean optim.lr?"),
        ("epochs=3", "There is no key epochs. Did you mean trainer.max_epochs?"),
        ("dropout=0.1", "There is no key dropout. Did you mean model.dropout or finetune.dropout?"),
        ("modl=minilm", "There is no key modl. Did you mean model?"),
        ("experimnt=demo", "There is no key experimnt. Did you mean experiment?"),
        ("hydra.run.dirr=x", "There is no key hydra.run.dirr. Did you mean hydra.run.dir?"),
        ("hydra/launchr=joblib", "There is no key hydra/launchr."),
        (
            "split.xyzzy=3",
            "There is no key split.xyzzy. split has kind, val, test, folds, fold, file, seed, small_classes.",
        ),
        ("xyzzy=3", "There is no key xyzzy."),
        ("learning_rate=1e-3", "There is no key learning_rate."),
        (
            "batch_size=8",
            "There is no key batch_size. Did you mean trainer.micro_batch_size or trainer.effective_batch_size?",
        ),
        ("metric.class_weights.a=3", "There is no key metric.class_weights.a."),
        ("model.path=x", "There is no key model.path with model.kind=scratch, only with pretrained or causal."),
        ("data.doc_stride=3", "There is no key data.doc_stride with data.kind=file_content, only with squad."),
        ("optim.lr.x=3", "There is no key optim.lr.x: optim.lr has a value and no keys of its own."),
    ],
)
def test_a_misspelled_key_is_answered_with_the_nearest(compose, override, sentence):
    assert mistake(compose, override) == sentence


def test_keys_are_those_of_the_chosen_kind(compose):
    assert mistake(compose, "data=squad", "data.doc_strid=3") == (
        "There is no key data.doc_strid. Did you mean data.doc_stride?"
    )


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("optim.lr=abc", "optim.lr must be a number, and 'abc' was given."),
        ("optim.lr=", "optim.lr must be a number, and '' was given."),
        ("optim.lr=null", "optim.lr must be a number, and 'null' was given."),
        ("trainer.max_epochs=3.5", "trainer.max_epochs must be a whole number, and '3.5' was given."),
        ("finetune.layers=few", "finetune.layers must be a whole number or null, and 'few' was given."),
        ("callbacks.gap.stop=maybe", "callbacks.gap.stop must be true or false, and 'maybe' was given."),
        ("data.manifest=[1]", "data.manifest must be a text, and '[1]' was given."),
        ("trainer.extra_callbacks=3", "trainer.extra_callbacks must be a list, and '3' was given."),
        ("monitor=val/loss", "monitor takes no value, its keys do: monitor.metric, monitor.mode."),
        ("~optim.lr", "optim.lr cannot be left out; it can be given another value."),
    ],
)
def test_a_value_of_the_wrong_type_is_answered_with_the_type(compose, override, sentence):
    assert mistake(compose, override) == sentence


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (
            "model=minilmm",
            "There is no model=minilmm. Did you mean model=minilm? Choices: distilbert, distilbert_mini, minilm, "
            "mistral, roberta.",
        ),
        ("sweep=foo", "There is no sweep=foo. Choices: kfold, optuna."),
        ("logger=cvs", "There is no logger=cvs. Did you mean logger=csv? Choices: csv, mlflow, tensorboard, wandb."),
    ],
)
def test_a_choice_that_is_none_is_answered_with_the_choices(compose, override, sentence):
    assert mistake(compose, override) == sentence


def test_a_key_is_near_by_the_whole_and_by_its_last_name():
    known = ["optim.lr", "loss.balance_lr", "split.test", "data.max_test"]
    assert nearest_keys("optim.lr_", known) == ["optim.lr"]
    assert nearest_keys("test", known) == ["split.test"]
    assert nearest_keys("nothing.alike", known) == []


def test_not_more_than_three_keys_are_offered():
    assert nearest_keys("name", [f"{group}.name" for group in "abcd"]) == ["a.name", "b.name", "c.name"]
