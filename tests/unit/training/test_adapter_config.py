import pytest
import torch

from doctune.errors import ConfigError
from doctune.nets.quantised import Quantisation
from doctune.training import build, config_checks
from doctune.training.optim import adamw


@pytest.mark.parametrize("strategy", ["lora", "qlora"])
def test_the_usual_recipe(compose, strategy):
    config = compose("model=minilm", f"finetune={strategy}")
    wanted = config.finetune
    assert (wanted.strategy, wanted.rank, wanted.alpha, wanted.dropout) == (strategy, 8, 16, 0.05)
    assert (wanted.target_modules, config.optim.lr) == (None, 2e-4)
    assert compose("model=minilm", f"finetune={strategy}", "optim.lr=1e-3").optim.lr == 1e-3


def test_targets_are_a_word_or_names(compose):
    given = "finetune.target_modules"
    assert compose("model=minilm", "finetune=lora", f"{given}=all-linear").finetune.target_modules == "all-linear"
    names = compose("model=minilm", "finetune=lora", f"{given}=[query,key]").finetune.target_modules
    assert names == ["query", "key"]


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["finetune.rank=0"], "finetune.rank=0 must be at least 1."),
        (["finetune.alpha=0"], "finetune.alpha=0.0 must be larger than 0."),
        (["finetune.alpha=-1"], "finetune.alpha=-1.0 must be larger than 0."),
        (["finetune.dropout=1"], "finetune.dropout=1.0 must be at least 0 and below 1."),
        (["finetune.dropout=-0.1"], "finetune.dropout=-0.1 must be at least 0 and below 1."),
        (
            ["finetune.target_modules=query"],
            "finetune.target_modules=query must be null, all-linear or a list of names such as [query,value].",
        ),
        (["finetune.target_modules=[]"], "finetune.target_modules=[] must be null, all-linear or a list of names"),
        (["finetune.layers=2"], "finetune.layers=2 is for finetune=partial only."),
        (["finetune.cache_encoder=false"], "finetune.cache_encoder=false is for finetune=head only."),
        (["finetune.rank=null"], "finetune.strategy=lora needs finetune.rank; finetune=lora sets it."),
    ],
)
def test_what_contradicts_itself_is_refused(compose, overrides, sentence):
    with pytest.raises(ConfigError) as refused:
        compose("model=minilm", "finetune=lora", *overrides)
    assert sentence in str(refused.value)


@pytest.mark.parametrize("key", ["rank=4", "alpha=8.0", "dropout=0.1", "target_modules=all-linear"])
def test_what_adapters_have_is_refused_without_them(compose, key):
    with pytest.raises(ConfigError, match=rf"finetune\.{key} is for finetune=lora and finetune=qlora only\."):
        compose("model=minilm", f"finetune.{key}")


@pytest.mark.parametrize("strategy", ["lora", "qlora"])
def test_random_weights_are_neither_adapted_nor_quantised(compose, strategy):
    with pytest.raises(ConfigError) as refused:
        compose("model=distilbert_mini", f"finetune={strategy}")
    assert f"finetune={strategy} would freeze the random weights of model=distilbert_mini." in str(refused.value)


@pytest.mark.parametrize(("strategy", "library"), [("lora", "peft"), ("qlora", "peft"), ("qlora", "bitsandbytes")])
def test_a_missing_library_is_said_before_anything_starts(compose, monkeypatch, strategy, library):
    monkeypatch.setattr(config_checks, "_is_installed", lambda package: package != library)
    with pytest.raises(ConfigError, match=rf"finetune={strategy} needs {library}: pip install 'doctune\[lora\]'"):
        compose("model=minilm", f"finetune={strategy}")


def test_without_a_gpu_qlora_computes_in_single_precision_with_plain_adamw(compose, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = compose("model=minilm", "finetune=qlora")
    assert build.adapter_settings(config).quantisation == Quantisation("cpu", torch.float32)
    plan = build.optimisation(config, steps_per_epoch=5, precision="32")
    assert plan.paged is False
    assert type(adamw([{"params": [torch.nn.Parameter(torch.ones(1))]}], plan.fused, plan.paged)) is torch.optim.AdamW
    assert build.optimiser_fallback(config) == (
        "finetune=qlora: without a CUDA device there is nothing to page, so plain AdamW is used."
    )
    assert build.optimiser_fallback(compose("model=minilm", "finetune=lora")) is None


@pytest.mark.parametrize(("has_bf16", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
def test_on_a_gpu_qlora_computes_in_sixteen_bits_and_pages(compose, monkeypatch, has_bf16, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: has_bf16)
    config = compose("model=minilm", "finetune=qlora")
    assert build.adapter_settings(config).quantisation == Quantisation("cuda", expected)
    assert build.optimisation(config, steps_per_epoch=5, precision="16-mixed").paged is True
    assert build.optimisation(compose("model=minilm", "finetune=lora"), 5, "16-mixed").paged is False
    assert build.optimiser_fallback(config) is None
    on_cpu = compose("model=minilm", "finetune=qlora", "trainer=cpu")
    assert build.adapter_settings(on_cpu).quantisation == Quantisation("cpu", torch.float32)
