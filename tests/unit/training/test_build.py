import pytest
import torch

from doctune.errors import ConfigError
from doctune.training import build, sources
from doctune.training.config import TrainerConfig


@pytest.mark.parametrize(
    ("precision", "has_bf16", "expected"),
    [
        ("auto", True, "bf16-mixed"),
        ("auto", False, "32"),
        ("32", True, "32"),
        ("bf16-mixed", False, "bf16-mixed"),
    ],
)
def test_precision_on_a_cpu(monkeypatch, precision, has_bf16, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(build, "has_bf16_instructions", lambda: has_bf16)
    assert build.resolve_precision(TrainerConfig(precision=precision)) == (expected, None)


def test_16_mixed_on_a_cpu_falls_back_and_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    precision, sentence = build.resolve_precision(TrainerConfig(precision="16-mixed"))
    assert precision == "32"
    assert sentence == "trainer.precision=16-mixed needs a CUDA device, and there is none: 32 is used."


def test_auto_is_16_mixed_on_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert build.resolve_precision(TrainerConfig()) == ("16-mixed", None)
    assert build.resolve_precision(TrainerConfig(accelerator="cpu"))[0] != "16-mixed"


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({}, r"trainer\.extra_callbacks\[0\] needs a _target_ such as"),
        ({"_target_": "nothing"}, "needs a _target_ such as"),
        ({"_target_": "no.such.Class"}, "no.such.Class cannot be imported"),
        ({"_target_": "lightning.pytorch.callbacks.Missing"}, "cannot be imported"),
        ({"_target_": "subprocess.Popen", "args": "ls"}, "subprocess.Popen is not a Lightning Callback"),
        ({"_target_": "lightning.pytorch.callbacks.Timer", "speed": 3}, "does not take these arguments"),
    ],
)
def test_brought_callbacks_are_checked(entry, sentence):
    from lightning import Callback

    with pytest.raises(ConfigError, match=sentence):
        build.brought_parts([entry], Callback, "trainer.extra_callbacks")


def test_a_brought_callback_gets_its_arguments():
    from lightning import Callback

    entry = {"_target_": "lightning.pytorch.callbacks.Timer", "duration": "00:12:00:00"}
    (timer,) = build.brought_parts([entry], Callback, "trainer.extra_callbacks")
    assert timer._duration == 12 * 3600


def test_extraction_stops_where_no_window_reaches(compose):
    assert sources.extract_settings(compose("data.max_length=512").data).max_chars == 4096
    assert sources.extract_settings(compose("data.max_length=32").data).max_chars == 1024


def test_long_documents_are_extracted_whole(compose):
    assert sources.extract_settings(compose("data=chunks").data).max_chars is None


def test_the_default_callbacks(compose):
    names = [type(callback).__name__ for callback in build.stock_callbacks(compose("trainer.progress=false"))]
    assert names == ["LearningRateMonitor"]
    assert build.early_stopping(compose()).patience == 3
    assert build.early_stopping(compose("callbacks.early_stopping.enabled=false")) is None


def test_warmup_may_be_given_in_steps(compose):
    plan = build.optimisation(
        compose("trainer.max_epochs=4", "schedule.warmup_steps=7"), steps_per_epoch=50, precision="32"
    )
    assert plan.warmup_steps == 7
    plan = build.optimisation(
        compose("trainer.max_epochs=1", "schedule.warmup_steps=70"), steps_per_epoch=50, precision="32"
    )
    assert plan.warmup_steps == 50


def test_warmup_is_a_share_of_all_steps(compose):
    plan = build.optimisation(
        compose("trainer.max_epochs=4", "schedule.warmup_ratio=0.25"), steps_per_epoch=50, precision="32"
    )
    assert (plan.warmup_steps, plan.total_steps) == (50, 200)


def test_a_window_that_the_encoder_cannot_read_is_refused(compose, tiny_encoder):
    config = compose("model=roberta", f"model.path={tiny_encoder('roberta')}", "data.max_length=66")
    with pytest.raises(ConfigError, match=r"data\.max_length=66 is more than roberta can read: 64 tokens\."):
        build.pretrained_encoder(config.model, config.data.max_length)
