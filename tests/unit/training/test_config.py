import pytest
from hydra.errors import ConfigCompositionException

from doctune.errors import ConfigError


def test_derived_batch_sizes(compose):
    trainer = compose("trainer.effective_batch_size=32", "trainer.micro_batch_size=8").trainer
    assert (trainer.device_batch_size(), trainer.accumulation()) == (8, 4)
    trainer = compose("trainer.effective_batch_size=32").trainer
    assert (trainer.device_batch_size(), trainer.accumulation()) == (32, 1)
    trainer = compose("trainer=ddp", "trainer.devices=4", "trainer.effective_batch_size=32").trainer
    assert (trainer.device_batch_size(), trainer.accumulation()) == (8, 1)
    trainer.micro_batch_size = 2
    assert (trainer.device_batch_size(), trainer.accumulation()) == (2, 4)


def test_seed_zero_is_a_seed(compose):
    assert compose("seed=0").seed == 0


def test_pretrained_encoders_have_the_usual_recipe(compose):
    config = compose("model=distilbert")
    assert (config.optim.lr, config.optim.weight_decay, config.schedule.warmup_ratio) == (2e-5, 0.01, 0.1)
    assert (config.schedule.name, config.trainer.gradient_clip_val, config.loss.class_weights) == (
        "linear",
        1,
        "balanced",
    )
    assert (config.monitor.metric, config.monitor.mode, config.trainer.precision) == ("val/f1_macro", "max", "auto")


def test_a_chosen_trainer_wins_over_what_the_model_sets(compose):
    assert compose().trainer.max_epochs == 10
    assert compose("trainer=smoke").trainer.max_epochs == 1
    assert compose("trainer=smoke", "trainer.max_epochs=4").trainer.max_epochs == 4


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["trainer.precision=8"], "trainer.precision=8 is not a choice: auto, 32, 16-mixed, bf16-mixed."),
        (["trainer.accelerator=tpu"], "trainer.accelerator=tpu is not a choice: auto, cpu, gpu, mps."),
        (
            ["finetune.strategy=most"],
            "finetune.strategy=most is not a choice: full, head, partial, gradual, lora, qlora.",
        ),
        (["prepare.engine=spark"], "prepare.engine=spark is not a choice: local, ray."),
        (["prepare.ray_address=auto"], "prepare.ray_address=auto is for prepare.engine=ray only."),
        (
            ["data=squad", "prepare.engine=ray"],
            "prepare.engine=ray reads the files of a manifest, and data=squad has none: leave it out.",
        ),
        (["loss.class_weights=heavy"], "loss.class_weights=heavy is not a choice: none, balanced, effective."),
        (["schedule.name=step"], "schedule.name=step is not a choice: linear, cosine, one_cycle, constant."),
        (["split.small_classes=mix"], "split.small_classes=mix is not a choice: fail, drop, merge."),
        (["split.kind=random"], "split.kind=random is not a choice: holdout, kfold."),
        (["split.fold=1"], "split.fold=1 is for split=kfold only."),
        (
            ["split=kfold"],
            "split=kfold needs split.fold; all of them: python train.py -m split=kfold split.fold=0,1,2,3,4",
        ),
        (["split=kfold", "split.fold=5"], "split.fold=5 is not one of the split.folds=5 folds: 0,1,2,3,4."),
        (["split=kfold", "split.fold=0", "split.folds=1"], "split.folds=1 must be at least 2."),
        (["split=kfold", "split.fold=0", "split.file=a.parquet"], "split.file is for split=holdout"),
        (["monitor.mode=best"], "monitor.mode=best is not a choice: min, max."),
        (["data.extract.pdf_backend=x"], "data.extract.pdf_backend=x is not a choice: pymupdf, pypdfium2."),
        (["optim.lr=0"], "optim.lr=0.0 must be larger than 0."),
        (["optim.lr=inf"], "optim.lr=inf must be larger than 0."),
        (["trainer.max_epochs=0"], "trainer.max_epochs=0 must be larger than 0."),
        (["split.test=0"], "split.test=0.0 must be larger than 0."),
        (["split.val=0.6", "split.test=0.4"], "split.val=0.6 and split.test=0.4 leave nothing to train on."),
        (["loss.label_smoothing=1"], "loss.label_smoothing=1.0 must be at least 0 and below 1."),
        (["model.dropout=-0.1"], "model.dropout=-0.1 must be at least 0 and below 1."),
        (["optim.weight_decay=-1"], "optim.weight_decay=-1.0 must not be negative."),
        (["data.max_length=2"], "data.max_length=2 must be at least 8 tokens."),
        (["data.prune_unused_days=-1"], "data.prune_unused_days=-1.0 must not be negative."),
        (["data.duplicate_threshold=0"], "data.duplicate_threshold=0.0 must be between 0.6 and 1."),
        (
            ["monitor.metric=val/nope"],
            "monitor.metric=val/nope is not a choice: val/f1_macro, val/accuracy, val/loss, val/f1_mix.",
        ),
        (["model.num_layers=0"], "model.num_layers=0 must be at least 1."),
        (["model.vocab_size=0"], "model.vocab_size=0 must be at least 1."),
        (["model=minilm", "finetune=partial", "finetune.layers=-1"], "finetune.layers=-1 must be at least 1."),
        (["callbacks.checkpoint.save_top_k=0"], "callbacks.checkpoint.save_top_k=0 must be at least 1."),
        (["trainer.log_every_n_steps=0"], "trainer.log_every_n_steps=0 must be at least 1."),
        (["data.extract.workers=0"], "data.extract.workers=0 must be at least 1."),
        (["data.num_workers=-1"], "data.num_workers=-1 must not be negative."),
        (["trainer.gradient_clip_val=-1"], "trainer.gradient_clip_val=-1.0 must not be negative."),
        (["seed=-1"], "seed=-1 must be between 0 and 4294967295."),
        (["data.min_confidence=1.5"], "data.min_confidence=1.5 must be between 0 and 1."),
        (["data.query='SELECT 1'"], "data.query is for an SQLite database (.db, .sqlite, .sqlite3); data.manifest="),
        (
            ["trainer.effective_batch_size=10", "trainer.micro_batch_size=4"],
            "trainer.effective_batch_size=10 is not a multiple of trainer.micro_batch_size=4: choose 8 or 12.",
        ),
        (["trainer.micro_batch_size=0"], "trainer.micro_batch_size=0 must be at least 1."),
        (
            ["trainer.devices=0"],
            "trainer.devices=0 must be at least 1: say how many GPUs, or processes on a CPU, are to work together.",
        ),
        (["trainer=ddp", "trainer.devices=-1"], "trainer.devices=-1 must be at least 1: say how many GPUs, or"),
        (
            ["trainer.devices=2"],
            "trainer.devices=2 needs trainer=ddp, where each has the whole model, or trainer=fsdp, where they share "
            "it.",
        ),
        (["trainer.strategy=ring"], "trainer.strategy=ring is not a choice: auto, ddp, fsdp."),
        (
            ["trainer=ddp", "trainer.accelerator=mps"],
            "trainer.devices=2: trainer.accelerator=mps has one device.",
        ),
        (
            ["trainer=ddp", "trainer.devices=3"],
            "trainer.effective_batch_size=16 is not a multiple of trainer.devices=3: choose 15 or 18.",
        ),
        (
            ["trainer=ddp", "trainer.devices=200"],
            "trainer.effective_batch_size=16 is not a multiple of trainer.devices=200: choose 200.",
        ),
        (
            ["trainer.effective_batch_size=3", "trainer.micro_batch_size=4"],
            "trainer.effective_batch_size=3 is not a multiple of trainer.micro_batch_size=4: choose 4.",
        ),
        (
            ["trainer=ddp", "trainer.micro_batch_size=3"],
            "trainer.effective_batch_size=16 is not a multiple of trainer.devices=2 times trainer.micro_batch_size=3: "
            "choose 12 or 18.",
        ),
        (
            ["trainer=fsdp", "data=squad"],
            "trainer=fsdp is for classifiers of one window (data=ifmos); data=squad needs trainer=ddp.",
        ),
        (
            ["model=minilm", "trainer=fsdp", "finetune=head"],
            "trainer=fsdp shares what the optimiser holds, and finetune=head leaves little of it: use trainer=ddp.",
        ),
        (
            ["model=minilm", "trainer=fsdp", "finetune=gradual"],
            "trainer=fsdp cannot release layers while it trains, as finetune=gradual does: use trainer=ddp.",
        ),
        (
            ["trainer=fsdp", "trainer.precision=16-mixed"],
            "trainer=fsdp has no gradient scaler for trainer.precision=16-mixed: use bf16-mixed or 32.",
        ),
        (
            ["model=minilm", "finetune.strategy=partial"],
            "finetune=partial needs finetune.layers, the number of encoder layers to freeze from the bottom.",
        ),
        (["finetune.layers=2"], "finetune.layers=2 is for finetune=partial only."),
        (["finetune=head"], "finetune=head would freeze the random weights of model=distilbert_mini."),
        (
            ["data.max_length=600"],
            "data.max_length=600 is more than distilbert_mini can read: model.max_position_embeddings=512.",
        ),
        (["model.num_heads=3"], "model.hidden_size=128 is not a multiple of model.num_heads=3."),
        (["data=chunks", "data.keep=middle"], "data.keep=middle is not a choice: head, spread, head_tail."),
        (["data=chunks", "data.pooling=sum"], "data.pooling=sum is not a choice: attention, mean, max, transformer."),
        (["data=chunks", "data.chunk_vector=last"], "data.chunk_vector=last is not a choice: cls, mean."),
        (["data=chunks", "data.max_chunks=0"], "data.max_chunks=0 must be at least 1."),
        (["data=chunks", "data.chunks_per_pass=0"], "data.chunks_per_pass=0 must be at least 1."),
        (
            ["data=chunks", "data.max_length=64", "data.chunk_stride=62"],
            "data.chunk_stride=62 must be from 0 to 61: a chunk of data.max_length=64 has 62 tokens besides the "
            "special ones, and each must bring a new one.",
        ),
        (["data=chunks", "data.chunk_stride=-1"], "data.chunk_stride=-1 must be from 0 to 509"),
        (
            ["data=chunks", "data.augment.random_window=0.5"],
            "data.augment.random_window is for data that shows one window; data=chunks shows up to data.max_chunks.",
        ),
        (["optim.pooling_lr_multiplier=2"], "optim.pooling_lr_multiplier=2.0 is for data=chunks only."),
        (
            ["data=chunks", "optim.pooling_lr_multiplier=0"],
            "optim.pooling_lr_multiplier=0.0 must be larger than 0.",
        ),
        (
            ["monitor.metric=val/f1_mix"],
            "monitor.metric=val/f1_mix mixes the F1 of the labels in the shares that metric.class_weights gives, and "
            "it gives none: 'metric.class_weights={General: 0.3, Teen: 0.3, Mature: 0.4}'.",
        ),
        (
            ["data=squad", "metric.class_weights={a: 1}"],
            "metric.class_weights are for classes; data=squad has none.",
        ),
        (
            ["metric.class_weights={a: -1}"],
            "metric.class_weights={'a': -1} must give each label a number from 0, and one more than 0",
        ),
        (["metric.class_weights={a: 0}"], "metric.class_weights={'a': 0} must give each label a number from 0"),
        (["metric.class_weights={a: much}"], "metric.class_weights={'a': 'much'} must give each label a number"),
        (["cascade.trees=0"], "cascade.trees=0 must be at least 1."),
        (["cascade.max_features=0"], "cascade.max_features=0 must be at least 1."),
        (["data=squad", "cascade.forest=true"], "cascade.forest=true is for classes; data=squad has none."),
        (["metric.class_weights=0.3"], "metric.class_weights=0.3 must give each label a number from 0"),
    ],
)
def test_contradictions_are_refused_in_a_sentence(compose, overrides, sentence):
    with pytest.raises(ConfigError) as caught:
        compose(*overrides)
    assert sentence in str(caught.value)


def test_a_forest_without_skops_is_refused_before_anything_starts(compose, monkeypatch):
    monkeypatch.setattr("doctune.training.config_checks.find_spec", lambda package: None)
    with pytest.raises(ConfigError, match=r"cascade\.forest=true needs skops: pip install 'doctune\[cascade\]'"):
        compose("cascade.forest=true")
    compose()


def test_a_frozen_encoder_of_random_weights_is_the_only_complaint(compose):
    with pytest.raises(ConfigError) as caught:
        compose("finetune=head")
    assert str(caught.value) == (
        "The configuration cannot be run:\n  finetune=head would freeze the random weights of model=distilbert_mini."
    )
    with pytest.raises(ConfigError) as caught:
        compose("finetune=head", "model=minilm", "data.augment.token_dropout=0.1")
    assert str(caught.value) == (
        "The configuration cannot be run:\n"
        "  data.augment shows other tokens in each epoch; with finetune=head it needs finetune.cache_encoder=false."
    )


def test_all_problems_are_said_at_once(compose):
    with pytest.raises(ConfigError) as caught:
        compose("optim.lr=0", "seed=-1")
    assert len(str(caught.value).splitlines()) == 3


def test_a_misspelled_key_is_refused_with_its_path(compose):
    with pytest.raises(ConfigCompositionException, match=r"optim\.lrr"):
        compose("optim.lrr=1")
    with pytest.raises(ConfigError, match=r"There is no key optim\.lrr\."):
        compose("+optim.lrr=1")


def test_a_missing_value_is_named(compose):
    with pytest.raises(ConfigError, match=r"data\.manifest"):
        compose("data.manifest=???")


def test_long_documents_have_a_recipe_of_their_own(compose):
    config = compose("model=roberta", "data=chunks")
    data, early = config.data, config.callbacks.early_stopping
    assert (data.max_length, data.max_chunks, data.chunk_stride, data.keep, data.pooling) == (
        512, 20, 0, "head", "attention",
    )  # fmt: skip
    assert (early.patience, early.min_delta, config.loss.class_weights) == (5, 0.001, "balanced")
    assert (config.monitor.metric, config.optim.lr) == ("val/f1_macro", 2e-5)
    assert (config.optim.pooling_lr_multiplier, config.optim.head_lr_multiplier) == (1.0, 2.0)


def test_books_are_rated_four_at_a_time(compose):
    config = compose("model=roberta", "experiment=content_rating")
    assert config.data.kind == "chunks"
    assert (config.trainer.device_batch_size(), config.trainer.accumulation()) == (4, 4)
    assert (config.trainer.max_epochs, config.schedule.name, config.schedule.warmup_ratio) == (15, "cosine", 0.1)
    assert config.loss.label_smoothing == 0.1
    assert compose("experiment=content_rating", "schedule=linear").schedule.name == "linear"


def test_class_weights_of_the_metric_come_from_the_command_line(compose):
    config = compose("data=chunks", "metric.class_weights={General: 0.3, Mature: 1}", "monitor.metric=val/f1_mix")
    assert config.metric.weights() == {"General": 0.3, "Mature": 1.0}
    assert compose().metric.weights() == {}
