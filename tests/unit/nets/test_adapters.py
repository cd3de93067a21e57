import copy

import pytest
import torch
import transformers as hf

from doctune.errors import ConfigError
from doctune.labels import Labels
from doctune.nets.adapters import AdapterSettings, adapt, adapter_of, merge, saved_weights
from doctune.nets.assemble import classifier, reader
from doctune.nets.encoder import pretrained_config
from doctune.nets.parameters import parameter_counts, parameter_groups
from doctune.nets.quantised import Quantisation, dequantised, is_quantised, quantise

LORA = AdapterSettings(rank=4, alpha=8, dropout=0.0)
QLORA = AdapterSettings(rank=4, alpha=8, dropout=0.0, quantisation=Quantisation())
IDS = torch.tensor([[5, 7, 9, 11, 13, 8], [6, 8, 10, 12, 14, 9]])


@pytest.fixture
def make(tiny_encoder):
    def build(kind="bert"):
        folder = str(tiny_encoder(kind, width=64))
        torch.manual_seed(1)
        return classifier(pretrained_config(folder), Labels(("x", "y", "z")), folder).eval()

    return build


@pytest.fixture(scope="session")
def mistral(tmp_path_factory):
    """The folder of a tiny random causal language model."""
    torch.manual_seed(0)
    config = hf.MistralConfig(
        vocab_size=64, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=128, max_position_embeddings=64, sliding_window=None,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("mistral")
    hf.MistralForCausalLM(config).save_pretrained(folder)
    return folder


def learn_something(net):
    """Give the adapters other weights than those that leave the net as it was."""
    torch.manual_seed(2)
    for name, weight in net.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return net


def logits(net):
    with torch.inference_mode():
        return net(input_ids=IDS).logits


def learning(net):
    return {name for name, weight in net.named_parameters() if weight.requires_grad}


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_an_adapted_net_begins_as_the_net_that_it_was(make, kind):
    net = make(kind)
    before = logits(net)
    adapt(net, LORA)
    assert not net.training
    assert torch.equal(logits(net), before)
    assert not torch.equal(logits(learn_something(net)), before)


def test_adapters_head_and_pooler_learn_and_nothing_else(make):
    net = make("bert")
    adapt(net, LORA)
    attention = [f"bert.encoder.layer.{layer}.attention.self" for layer in (0, 1)]
    assert learning(net) == {
        "classifier.weight", "classifier.bias", "bert.pooler.dense.weight", "bert.pooler.dense.bias",
        *(f"{each}.{of}.lora_{ab}.default.weight" for each in attention for of in ("query", "value") for ab in "AB"),
    }  # fmt: skip
    assert saved_weights(net).keys() == learning(net)
    # 4 layers of (64 + 64) x rank 4, the pooler and three labels.
    assert parameter_counts(net)["trainable"] == 4 * 128 * 4 + (64 * 64 + 64) + (3 * 64 + 3)


def test_a_step_changes_what_learns_and_leaves_the_rest_bit_for_bit(make):
    net = make("bert").train()
    adapt(net, LORA)
    before = copy.deepcopy(net.state_dict())
    optimizer = torch.optim.AdamW(parameter_groups(net, lr=1e-2, head_lr_multiplier=2, weight_decay=0.1))
    for _ in range(2):
        net(input_ids=IDS, labels=torch.tensor([0, 2])).loss.backward()
        optimizer.step()
    after = net.state_dict()
    assert {name for name, weight in before.items() if not torch.equal(weight, after[name])} == learning(net)


def test_rates_fall_from_layer_to_layer_as_without_adapters(make):
    net = make("bert")
    adapt(net, LORA)
    groups = parameter_groups(net, lr=1.0, head_lr_multiplier=3.0, weight_decay=0.1, layer_decay=0.5)
    assert {group["name"]: group["lr"] for group in groups} == {
        "encoder/layer_00": 0.5, "encoder/layer_01": 1.0, "encoder/layer_01/no_decay": 1.0,
        "head": 3.0, "head/no_decay": 3.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "wanted", "targets"),
    [
        ("bert", None, ["query", "value"]),
        ("distilbert", None, ["k_lin", "lin1", "lin2", "out_lin", "q_lin", "v_lin"]),  # peft has no table for it
        ("roberta", "all-linear", ["dense", "key", "query", "value"]),
        ("roberta", ["dense"], ["dense"]),
        ("bert", ["0.attention.self.key"], ["0.attention.self.key"]),
    ],
)
def test_which_layers_get_an_adapter(make, kind, wanted, targets):
    net = make(kind)
    adapter = adapt(net, AdapterSettings(4, 8, 0.0, wanted))
    assert sorted(adapter.config.target_modules) == targets
    adapted = {name.rpartition(".lora_A")[0] for name in learning(net) if "lora_A" in name}
    assert adapted
    assert all(any(name.endswith(f".{target}") for target in targets) for name in adapted)
    # A head's layers may have the same names, and learn in full.
    assert not [name for name in adapted if "classifier" in name or "pooler" in name]


def test_a_target_that_matches_nothing_is_refused_with_those_that_exist(make):
    with pytest.raises(ConfigError) as refused:
        adapt(make("bert"), AdapterSettings(4, 8, 0.0, ["query", "q_proj"]))
    assert str(refused.value) == (
        "finetune.target_modules: a BertForSequenceClassification has no linear layer 'q_proj'. It has dense, key, "
        "query, value; all of them: finetune.target_modules=all-linear."
    )


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
@pytest.mark.parametrize("settings", [LORA, QLORA], ids=["lora", "qlora"])
def test_a_merged_net_gives_the_same_and_has_the_weights_of_a_stock_one(make, kind, settings):
    stock, net = make(kind), make(kind)
    adapt(net, settings)
    before = logits(learn_something(net))
    merge(net)
    assert adapter_of(net) is None
    assert torch.allclose(logits(net), before, rtol=0, atol=1e-6)
    assert {n: t.shape for n, t in net.state_dict().items()} == {n: t.shape for n, t in stock.state_dict().items()}
    assert all(weight.dtype == torch.float32 for weight in net.parameters())


def test_a_net_without_adapters_is_merged_already(make):
    net = make()
    before = logits(net)
    merge(net)
    assert torch.equal(logits(net), before)


def test_readers_learn_their_answers_layer_in_full(tiny_encoder):
    folder = str(tiny_encoder("bert"))
    net = reader(pretrained_config(folder), folder)
    adapter = adapt(net, LORA)
    assert (adapter.config.task_type, adapter.config.modules_to_save) == ("QUESTION_ANS", ["qa_outputs"])


def test_four_bits_hold_the_encoders_layers_and_count_as_many_parameters(make):
    whole, net = make("bert"), make("bert")
    before = logits(whole)
    adapt(net, QLORA)
    four_bit = [name for name, layer in net.named_modules() if is_quantised(layer) and "base_layer" in name]
    assert len(four_bit) == 4
    key = net.bert.encoder.layer[0].attention.self.key
    assert is_quantised(key)
    assert key.weight.dtype == torch.uint8
    # Each weight moves by at most half of the widest gap between two of NF4's values, times its block's largest weight.
    exact = whole.bert.encoder.layer[0].attention.self.key.weight
    assert (dequantised(key).weight - exact).abs().max() < 0.16 * exact.abs().max()
    assert 0 < (logits(net) - before).abs().max() < 0.05
    extra = 4 * 128 * 4
    assert parameter_counts(net)["total"] == parameter_counts(whole)["total"] + extra


def test_evaluation_in_between_changes_nothing_of_a_four_bit_layer():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(64, 32))
    quantise(net, ["0"], Quantisation())
    assert net[0].support_avx512bf16_for_cpu is False
    given = torch.randn(3, 64)
    first = net.train()(given)
    with torch.inference_mode():
        assert torch.equal(net.eval()(given), first)
    assert torch.equal(net.train()(given), first)


def test_a_base_stored_in_half_precision_is_quantised_as_one_in_single_precision(mistral, tmp_path):
    stored = hf.MistralForCausalLM.from_pretrained(mistral, dtype=torch.bfloat16)
    stored.save_pretrained(tmp_path)
    from_half = hf.MistralForCausalLM.from_pretrained(tmp_path, dtype="auto")
    from_single = hf.MistralForCausalLM.from_pretrained(tmp_path, dtype="float32")
    assert from_half.dtype == torch.bfloat16
    for net in (from_half, from_single):
        torch.manual_seed(3)
        adapt(net.eval(), QLORA)
    assert {weight.dtype for weight in from_half.parameters()} == {torch.float32, torch.uint8}
    assert all(torch.equal(a, b) for a, b in zip(from_half.parameters(), from_single.parameters(), strict=True))
    assert torch.equal(logits(from_half), logits(from_single))


def test_a_net_with_nothing_to_quantise_is_refused():
    with pytest.raises(ConfigError) as refused:
        quantise(torch.nn.Embedding(2, 2), [], Quantisation())
    assert str(refused.value) == (
        "finetune=qlora: a Embedding has no linear layer that could be quantised. Use finetune=lora."
    )


def test_a_layer_whose_rows_are_no_whole_blocks_is_not_quantised(caplog):
    net = torch.nn.Sequential(torch.nn.Linear(96, 64), torch.nn.Linear(64, 96), torch.nn.Linear(96, 2))
    given = torch.randn(3, 96)
    first = net[0](given)
    quantise(net, ["0", "1"], Quantisation())
    assert [is_quantised(layer) for layer in net] == [False, True, False]
    assert torch.equal(net[0](given), first)
    assert caplog.messages == [
        "finetune=qlora: 1 of 2 linear layers stay in full precision: the number of their inputs is no multiple of 64."
    ]
    with pytest.raises(ConfigError) as refused:
        quantise(net, ["0", "2"], Quantisation())
    assert str(refused.value) == (
        "finetune=qlora: a Sequential has no linear layer that could be quantised: the inputs of its 2 are no multiple "
        "of 64. Use finetune=lora."
    )


def test_four_bits_stand_for_the_same_weights_on_every_processor():
    """As bitsandbytes' native code reads them, and by the definition: quantile times the scale of a block of 64."""
    from bitsandbytes.functional import dequantize_blockwise

    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(192, 40))
    quantise(net, ["0"], Quantisation())
    state, packed = net[0].weight.quant_state, net[0].weight.data.flatten()
    places = torch.stack([packed >> 4, packed & 15], 1).flatten().long()
    scales = dequantize_blockwise(state.absmax, state.state2) + state.offset
    expected = state.code[places].view(-1, 64) * scales[:, None]
    assert torch.allclose(dequantised(net[0]).weight, expected.view(40, 192), atol=1e-6)


@pytest.mark.parametrize("settings", [LORA, QLORA], ids=["lora", "qlora"])
def test_a_causal_language_model_learns_through_its_adapters_alone(mistral, settings):
    torch.manual_seed(0)
    net = hf.AutoModelForCausalLM.from_pretrained(mistral, dtype="float32").train()
    adapter = adapt(net, settings)
    assert (adapter.config.task_type, adapter.config.modules_to_save) == ("CAUSAL_LM", None)
    assert sorted(adapter.config.target_modules) == ["q_proj", "v_proj"]
    assert all("lora_" in name for name in learning(net))
    optimizer = torch.optim.AdamW([weight for weight in net.parameters() if weight.requires_grad], lr=1e-2)
    losses = []
    for _ in range(3):
        loss = net(input_ids=IDS, labels=IDS).loss
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[0] > losses[1] > losses[2]
    before = logits(net.eval())
    merge(net)
    assert torch.allclose(logits(net), before, rtol=0, atol=1e-5)
    assert type(net.lm_head) is torch.nn.Linear
