import pytest

from doctune.errors import ConfigError

TUNE = ("model=mistral", "data=instructions")


def problem_of(compose, *overrides):
    with pytest.raises(ConfigError) as caught:
        compose(*overrides)
    head, *problems = str(caught.value).splitlines()
    assert head == "The configuration cannot be run:"
    return [problem.strip() for problem in problems]


def test_what_is_chosen_by_default_is_the_lowest_loss(compose):
    config = compose(*TUNE)
    assert (config.monitor.metric, config.monitor.mode) == ("val/loss", "min")
    assert config.optim.head_lr_multiplier == 1
    assert (config.data.too_long, config.data.packing) == ("leave_out", False)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            ("model=mistral", "data=squad"),
            "model=mistral is a decoder, which writes text, and data=squad needs an encoder, such as "
            "model=minilm. A decoder is tuned with data=instructions.",
        ),
        (
            ("model=minilm", "data=instructions"),
            "data=instructions tunes a decoder, which writes text, and model=minilm is an encoder. Choose "
            "model=mistral; model.path=FOLDER_OR_NAME takes any other causal language model.",
        ),
        (
            (*TUNE, "finetune=head"),
            "finetune=head is for a new head on an encoder; data=instructions has none, the decoder's own "
            "output layer is as trained as the rest. Choose finetune=full, partial, lora or qlora.",
        ),
        (
            (*TUNE, "finetune=gradual"),
            "finetune=gradual is for a new head on an encoder; data=instructions has none, the decoder's own "
            "output layer is as trained as the rest. Choose finetune=full, partial, lora or qlora.",
        ),
        ((*TUNE, "loss=focal"), "loss=focal is for classes; data=instructions needs loss=cross_entropy."),
        (
            (*TUNE, "model.head_dropout=0.1"),
            "model.head_dropout=0.1 is for a head on an encoder; data=instructions has none. model.dropout is "
            "that of the decoder.",
        ),
        ((*TUNE, "data.train=[]"), "data.train is empty; name at least one file: data.train=[train.jsonl]."),
        ((*TUNE, "data.too_long=cut"), "data.too_long=cut is not a choice: leave_out, truncate."),
        ((*TUNE, "data.duplicate_threshold=2"), "data.duplicate_threshold=2.0 must be between 0.6 and 1."),
        ((*TUNE, "data.max_unusable=2"), "data.max_unusable=2.0 must be between 0 and 1."),
        ((*TUNE, "data.generate=-1"), "data.generate=-1 must not be negative; 0 generates nothing."),
        ((*TUNE, "data.max_new_tokens=0"), "data.max_new_tokens=0 must be at least 1."),
        ((*TUNE, "data.max_train=0"), "data.max_train=0 must be at least 1."),
        (
            (*TUNE, "data.sampling.method=oversample"),
            "data.sampling.method=oversample is for classes; data=instructions has none.",
        ),
        (
            (*TUNE, "data.augment.token_dropout=0.1"),
            "data.augment changes what an encoder reads; data=instructions shows conversations as they are.",
        ),
        (
            (*TUNE, "split=kfold", "split.fold=0", "data.val=[v.jsonl]"),
            "data.val and data.test name the conversations that choose and judge, and split=kfold makes every "
            "fold judge: data.val=[] data.test=[].",
        ),
        ((*TUNE, "monitor.metric=val/f1"), "monitor.metric=val/f1 is not a choice: val/loss, val/perplexity."),
        ((*TUNE, "trainer.check_every_n_steps=0"), "trainer.check_every_n_steps=0 must be at least 1."),
        ((*TUNE, "callbacks.checkpoint.every_n_steps=0"), "callbacks.checkpoint.every_n_steps=0 must be at least 1."),
    ],
)  # fmt: skip
def test_a_contradiction_is_a_sentence(compose, overrides, sentence):
    assert problem_of(compose, *overrides) == [sentence]


def test_a_path_to_the_other_kind_of_model_is_refused_once_its_architecture_is_known(
    compose, tiny_mistral, tiny_encoder
):
    from doctune.training import build

    bert = tiny_encoder("bert")
    with pytest.raises(ConfigError) as caught:
        build.pretrained_decoder(compose(*TUNE, f"model.path={bert}").model, 32)
    assert str(caught.value) == (
        f"model.path={bert} is an encoder (bert), which reads text; data=instructions needs a decoder, which writes "
        "it, such as mistralai/Mistral-7B-Instruct-v0.3."
    )
    with pytest.raises(ConfigError) as caught:
        build.pretrained_encoder(compose("model=minilm", f"model.path={tiny_mistral}").model, 32)
    assert str(caught.value) == (
        f"model.path={tiny_mistral} is a decoder (mistral), whose tokens see only what stands before them; this data "
        f"needs an encoder, such as model=minilm. A decoder is tuned with model=mistral model.path={tiny_mistral} "
        "data=instructions."
    )


def test_an_architecture_is_refused_before_any_weights_are_read(compose, tiny_mistral, tmp_path):
    from doctune.training.run import train

    (tmp_path / "config.json").write_text((tiny_mistral / "config.json").read_text())
    with pytest.raises(ConfigError, match=r"is a decoder \(mistral\)"):
        train(compose("model=minilm", "data=squad", f"model.path={tmp_path}"), tmp_path / "run")


def test_partial_freezes_the_embeddings_and_the_first_layers_of_a_decoder(tiny_mistral):
    from transformers import AutoModelForCausalLM

    from doctune.nets.parameters import freeze

    net = AutoModelForCausalLM.from_pretrained(tiny_mistral)
    freeze(net, "partial", 1)
    assert not any(p.requires_grad for p in net.model.embed_tokens.parameters())
    assert not any(p.requires_grad for p in net.model.layers[0].parameters())
    assert all(p.requires_grad for p in net.model.layers[1].parameters())


@pytest.mark.parametrize(
    ("name", "adapters", "lr", "batch"),
    [("qlora_v1", (8, 0.0), 5e-4, (4, 8)), ("qlora_v2", (6, 0.08), 2e-4, (2, 8))],
)
def test_the_recipes_are_those_of_the_reference(compose, name, adapters, lr, batch):
    config = compose(f"experiment={name}")
    assert (config.model.name, config.data.kind, config.finetune.strategy) == ("mistral", "instructions", "qlora")
    assert (config.finetune.rank, config.finetune.dropout) == adapters
    assert config.optim.lr == lr
    assert (config.trainer.micro_batch_size, config.trainer.effective_batch_size) == batch


def test_the_careful_recipe_stops_early(compose):
    stopping = compose("experiment=qlora_v2").callbacks.early_stopping
    assert (stopping.patience, stopping.min_delta) == (5, 0.001)
