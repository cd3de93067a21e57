import pytest

from doctune.errors import ConfigError
from doctune.training.config import PretrainedConfig, ScratchConfig, SquadConfig


def problems(compose, *overrides):
    """The sentences of a refusal, in their order."""
    with pytest.raises(ConfigError) as caught:
        compose("data=squad", *overrides)
    first, *lines = str(caught.value).splitlines()
    assert first == "The configuration cannot be run:"
    return [line.strip() for line in lines]


def test_the_recipe_is_that_of_berts_authors(compose):
    config = compose("data=squad", "model=distilbert")
    assert isinstance(config.data, SquadConfig)
    assert isinstance(config.model, PretrainedConfig)
    assert (config.data.path, config.data.test_path) == ("rajpurkar/squad", None)
    assert (config.data.max_length, config.data.doc_stride, config.data.max_question_length) == (384, 128, 64)
    assert (config.data.max_answer_length, config.data.empty_windows) == (30, 1.0)
    assert (config.optim.lr, config.optim.head_lr_multiplier, config.schedule.warmup_steps) == (3e-5, 1.0, 100)
    assert (config.trainer.effective_batch_size, config.monitor.metric, config.monitor.mode) == (8, "val/f1", "max")


def test_a_model_from_scratch_reads_windows_of_questions(compose):
    config = compose("data=squad", "model=distilbert_mini")
    assert isinstance(config.model, ScratchConfig)
    assert config.data.max_length <= config.model.max_position_embeddings


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            ["data.doc_stride=316"],
            "data.doc_stride=316 leaves windows no room to move on: with data.max_length=384 and questions of up to "
            "data.max_question_length=64 tokens it must be below 316.",
        ),
        (
            ["data.max_length=64"],
            "data.max_length=64 leaves no room for a context beside questions of up to data.max_question_length=64 "
            "tokens: raise it above 68, or lower data.max_question_length.",
        ),
        (["data.doc_stride=-1"], "data.doc_stride=-1 must not be negative."),
        (["loss=focal"], "loss=focal is for classes; data=squad needs loss=cross_entropy."),
        (
            ["data.sampling.method=oversample"],
            "data.sampling.method=oversample is for classes; data=squad has none.",
        ),
        (
            ["data.augment.random_window=0.5"],
            "data.augment.random_window is for classifiers; data=squad shows all windows of a context anyway.",
        ),
        (
            ["split=kfold", "split.fold=0", "data.test_path=dev.json"],
            "data.test_path names the questions that judge, and split=kfold makes every fold judge: leave one out.",
        ),
        (
            ["monitor.metric=val/f1_macro"],
            "monitor.metric=val/f1_macro is not a choice: val/f1, val/exact_match, val/loss.",
        ),
        (["data.empty_windows=1.5"], "data.empty_windows=1.5 must be between 0 and 1."),
        (["data.empty_windows=-0.1"], "data.empty_windows=-0.1 must be between 0 and 1."),
        (["data.max_question_length=0"], "data.max_question_length=0 must be at least 1."),
        (["data.max_answer_length=0"], "data.max_answer_length=0 must be at least 1."),
        (["data.max_questions=0"], "data.max_questions=0 must be at least 1."),
        (["data.max_judge_questions=0"], "data.max_judge_questions=0 must be at least 1."),
    ],
)
def test_each_contradiction_has_its_sentence(compose, overrides, sentence):
    assert problems(compose, *overrides) == [sentence]


def test_all_problems_are_said_at_once(compose):
    found = problems(compose, "data.doc_stride=-1", "data.augment.random_window=0.5", "monitor.metric=val/accuracy")
    assert found == [
        "monitor.metric=val/accuracy is not a choice: val/f1, val/exact_match, val/loss.",
        "data.doc_stride=-1 must not be negative.",
        "data.augment.random_window is for classifiers; data=squad shows all windows of a context anyway.",
    ]


def test_every_metric_of_a_reader_can_be_monitored(compose):
    for metric, mode in {"val/f1": "max", "val/exact_match": "max", "val/loss": "min"}.items():
        monitor = compose("data=squad", f"monitor.metric={metric}", f"monitor.mode={mode}").monitor
        assert (monitor.metric, monitor.mode) == (metric, mode)


def test_classifiers_have_no_metric_of_readers(compose):
    with pytest.raises(ConfigError, match=r"monitor\.metric=val/f1 is not a choice: val/f1_macro, val/accuracy"):
        compose("monitor.metric=val/f1")


def test_folds_are_made_of_the_training_file(compose):
    assert compose("data=squad", "split=kfold", "split.fold=0").split.fold == 0
