import pytest
import torch
import transformers as hf
from torch.nn import functional as F

from doctune.nets import attention
from doctune.nets.attention import NAME, dropout_attention, use_dropout_in_blocks

B, H, T, D = 3, 4, 10, 8


@pytest.fixture
def given():
    torch.manual_seed(0)
    return [torch.randn(B, H, T, D, requires_grad=True) for _ in range(3)]


@pytest.fixture
def mask():
    wanted = torch.ones(B, 1, T, T, dtype=torch.bool)
    wanted[0, ..., 6:] = False
    wanted[2, ..., 3:] = False
    return wanted


def plain(query, key, value, mask, kept, share):
    """The same, written down as it is defined, with a mask of dropout from elsewhere."""
    scores = query @ key.transpose(-1, -2) * D**-0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return (scores.softmax(-1) * kept / share) @ value


def what_was_kept(monkeypatch, size):
    """A list that the mask of each block is appended to."""
    masks, draw = [], attention.draw_kept

    def note(random, rate, mask):
        draw(random, rate, mask)
        masks.append(mask.clone())

    monkeypatch.setattr(attention, "draw_kept", note)
    monkeypatch.setattr(attention, "_BLOCK", size)
    return masks


@pytest.mark.parametrize("size", [1, 2 * T * T, H * T * T, 2 * H * T * T, 1 << 20])
@pytest.mark.parametrize("masked", [True, False])
def test_values_and_gradients_are_those_of_the_definition(given, mask, monkeypatch, size, masked):
    mask = mask if masked else None
    masks = what_was_kept(monkeypatch, size)
    outward = torch.randn(B, H, T, D)
    found = dropout_attention(*given, mask, 0.25, D**-0.5)
    kept = torch.cat(masks).view(B, H, T, T)
    found.backward(outward)
    gradients = [each.grad.clone() for each in given]
    assert torch.equal(torch.cat(masks[len(masks) // 2 :]).view(B, H, T, T), kept)  # drawn again for the backward pass
    for each in given:
        each.grad = None
    expected = plain(*given, mask, kept, 0.75)
    expected.backward(outward)
    assert torch.allclose(found, expected, atol=1e-6)
    for gradient, each in zip(gradients, given, strict=True):
        assert torch.allclose(gradient, each.grad, atol=1e-5)


def test_a_mask_of_numbers_is_added(given, mask, monkeypatch):
    torch.manual_seed(1)
    found = dropout_attention(*given, mask, 0.25, D**-0.5)
    torch.manual_seed(1)
    added = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
    assert torch.equal(dropout_attention(*given, added, 0.25, D**-0.5), found)


def test_the_default_generator_decides_what_is_dropped(given):
    torch.manual_seed(5)
    first, second = (dropout_attention(*given, None, 0.5, 1.0) for _ in range(2))
    torch.manual_seed(5)
    again = dropout_attention(*given, None, 0.5, 1.0)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_half_precision_stays_close_to_single(given, mask):
    outward = torch.randn(B, H, T, D)
    results = []
    for kind in (torch.float32, torch.bfloat16):
        cast = [each.detach().to(kind).requires_grad_() for each in given]
        torch.manual_seed(2)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=kind == torch.bfloat16):
            found = dropout_attention(*cast, mask, 0.25, D**-0.5)
        found.backward(outward.to(kind))
        assert found.dtype == kind
        results.append([found, *(each.grad for each in cast)])
    for single, half in zip(*results, strict=True):
        assert half.dtype == torch.bfloat16
        assert (single - half.float()).norm() < 0.02 * single.norm()


def encoder(kind):
    """Two layers whose attention alone has dropout, of so small a share that it drops nothing."""
    torch.manual_seed(0)
    small, shape = 1e-9, {"vocab_size": 50}
    if kind == "distilbert":
        sizes = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "dropout": 0.0, "attention_dropout": small}
        return hf.DistilBertModel(hf.DistilBertConfig(**shape, **sizes))
    config, model = {"bert": (hf.BertConfig, hf.BertModel), "roberta": (hf.RobertaConfig, hf.RobertaModel)}[kind]
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return model(config(**shape, **sizes, hidden_dropout_prob=0.0, attention_probs_dropout_prob=small))


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta"])
def test_an_encoder_computes_the_same(kind, monkeypatch):
    net = encoder(kind)
    given = {
        "input_ids": torch.randint(3, 50, (2, 9)),
        "attention_mask": (torch.arange(9) < torch.tensor([[9], [5]])).long(),
    }
    expected = net.eval()(**given).last_hidden_state
    use_dropout_in_blocks(net)
    assert net.config._attn_implementation == NAME
    assert torch.equal(net(**given).last_hidden_state, expected)
    rates = []
    monkeypatch.setattr(
        attention, "dropout_attention", lambda *parts: rates.append(parts[4]) or dropout_attention(*parts)
    )
    assert torch.allclose(net.train()(**given).last_hidden_state, expected, atol=1e-6)
    assert rates == [1e-9, 1e-9]


def test_files_do_not_speak_of_it(tmp_path):
    net = encoder("bert")
    use_dropout_in_blocks(net)
    net.save_pretrained(tmp_path)
    assert NAME not in (tmp_path / "config.json").read_text()
    assert hf.BertModel.from_pretrained(tmp_path).config._attn_implementation == "sdpa"


def test_a_net_with_an_attention_of_its_own_stays_as_it_is():
    net = encoder("bert")
    net.set_attn_implementation("eager")
    use_dropout_in_blocks(net)
    assert net.config._attn_implementation == "eager"


def test_what_it_does_not_know_is_left_to_pytorch(given, monkeypatch):
    seen = []
    monkeypatch.setattr(attention, "dropout_attention", lambda *parts: seen.append(parts))
    module = torch.nn.Module()
    query, key, value = given
    few = [each[:, :2] for each in (key, value)]
    whole = torch.ones(1, 1, T, T, dtype=torch.bool)
    grouped = torch.nn.Module()
    grouped.num_key_value_groups = 2
    for layer, keys, values, mask, options in (
        (module, key, value, None, {"dropout": 0.1, "is_causal": True}),
        (module, key, value, None, {"dropout": 0.0, "is_causal": False}),
        (module, key, value, None, {"dropout": 0.1, "is_causal": False, "position_bias": torch.zeros(1, H, T, T)}),
        (module, key, value, whole, {"dropout": 0.1, "is_causal": False}),
        (grouped, *few, None, {"dropout": 0.1, "is_causal": False}),
    ):
        found, _ = attention._attention(layer, query, keys, values, mask, **options)
        assert found.shape == (B, T, H, D)
    assert seen == []
    expected = F.scaled_dot_product_attention(query, key, value).transpose(1, 2)
    assert torch.allclose(attention._attention(module, query, key, value, None, is_causal=False)[0], expected)
