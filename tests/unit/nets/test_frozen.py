import copy

import pytest
import torch
from torch.nn import functional as F

from doctune.labels import Labels
from doctune.nets.assemble import classifier
from doctune.nets.encoder import Dropouts, pretrained_config, set_dropouts
from doctune.nets.frozen import first_token_features, head_logits, head_reads_first_token, keep_encoder_in_eval
from doctune.nets.parameters import freeze

TOKENS = torch.tensor([[2, 17, 9, 33, 3], [2, 8, 41, 3, 0], [2, 25, 3, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0], [1, 1, 1, 0, 0]])
TARGETS = torch.tensor([0, 1, 2])
ROWS = {"bert": 2, "roberta": 1, "distilbert": 1}


@pytest.fixture(params=["bert", "roberta", "distilbert"])
def kind(request):
    return request.param


@pytest.fixture
def net(kind, tiny_encoder):
    """Frozen encoder that tells the three texts well apart, new head, no dropout, in training mode."""
    config = pretrained_config(str(tiny_encoder(kind)))
    set_dropouts(config, Dropouts(encoder=0.0, head=0.0))
    torch.manual_seed(0)
    net = classifier(config, Labels(("x", "y", "z")), str(tiny_encoder(kind)))
    with torch.no_grad():
        for parameter in net.base_model.parameters():
            parameter.mul_(10 if parameter.ndim > 1 else 1)
    freeze(net, "head")
    return net


def full_logits(net):
    return net(input_ids=TOKENS, attention_mask=MASK).logits


def stored_logits(net):
    return head_logits(net, first_token_features(net, TOKENS, MASK))


def head_gradients(net, logits):
    net.zero_grad()
    F.cross_entropy(logits, TARGETS).backward()
    return {name: parameter.grad.clone() for name, parameter in net.named_parameters() if parameter.grad is not None}


def losses_of_training(net, logits_of):
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(5):
        loss = F.cross_entropy(logits_of(net), TARGETS)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_features_are_the_first_token_and_the_pooled_output(net, kind):
    net.eval()
    features = first_token_features(net, TOKENS, MASK)
    output = net.base_model(input_ids=TOKENS, attention_mask=MASK)
    assert features.shape == (3, ROWS[kind], 32)
    assert not features.requires_grad
    assert torch.equal(features[:, 0], output.last_hidden_state[:, 0])
    if kind == "bert":
        assert torch.equal(features[:, 1], output.pooler_output)


def test_logits_of_the_head_alone_are_those_of_the_whole_net(net):
    net.eval()
    torch.testing.assert_close(stored_logits(net), full_logits(net), rtol=0, atol=1e-6)
    assert stored_logits(net).std(dim=0).max() > 1e-3  # the texts differ, so that equality says something


def test_gradients_reach_the_head_and_only_the_head(net):
    net.base_model.requires_grad_(True)  # so that only the route keeps them away
    head_only = head_gradients(net, stored_logits(net))
    assert set(head_only) == {name for name, _ in net.named_parameters() if "classifier" in name}
    whole = head_gradients(net, full_logits(net))
    for name, gradient in head_only.items():
        torch.testing.assert_close(gradient, whole[name], rtol=0, atol=1e-6)


def test_training_on_stored_features_gives_the_losses_of_training_the_whole_net(net):
    features = first_token_features(net, TOKENS, MASK)
    stored = losses_of_training(copy.deepcopy(net), lambda twin: head_logits(twin, features))
    whole = losses_of_training(net, full_logits)
    assert stored == pytest.approx(whole, abs=1e-6)
    assert stored[-1] < stored[0]


def test_features_have_no_dropout_and_leave_each_mode_as_it_was(kind, tiny_encoder):
    folder = str(tiny_encoder(kind))
    net = classifier(pretrained_config(folder), Labels(("x", "y", "z")), folder)
    net.base_model.embeddings.eval()
    modes = [module.training for module in net.modules()]
    assert torch.equal(first_token_features(net, TOKENS, MASK), first_token_features(net, TOKENS, MASK))
    head_reads_first_token(net, TOKENS, MASK)
    assert [module.training for module in net.modules()] == modes


def test_the_heads_dropout_follows_its_mode_while_the_encoders_is_off(kind, tiny_encoder):
    folder = str(tiny_encoder(kind))
    config = pretrained_config(folder)
    set_dropouts(config, Dropouts(encoder=0.5, head=0.5))
    net = classifier(config, Labels(("x", "y", "z")), folder)
    keep_encoder_in_eval(net)
    assert not any(module.training for module in net.base_model.modules())
    outside = set(net.modules()) - set(net.base_model.modules())
    assert all(module.training for module in outside)
    features = first_token_features(net, TOKENS, MASK)
    assert not torch.equal(head_logits(net, features), head_logits(net, features))
    net.eval()
    keep_encoder_in_eval(net)
    assert not any(module.training for module in net.modules())
    assert torch.equal(head_logits(net, features), head_logits(net, features))


def test_the_net_is_never_taken_apart(net):
    modules, keys = dict(net.named_modules()), list(net.state_dict())
    asked = []
    net.base_model.register_forward_hook(lambda *_: asked.append("encoder"))
    features = first_token_features(net, TOKENS, MASK)
    assert asked == ["encoder"]
    head_logits(net, features)
    with pytest.raises(RuntimeError):
        head_logits(net, features[..., :5])
    assert asked == ["encoder"]
    assert dict(net.named_modules()) == modules
    assert list(net.state_dict()) == keys
    assert torch.equal(net(input_ids=TOKENS, attention_mask=MASK).logits, full_logits(net))
    assert asked == ["encoder"] * 3


def test_heads_of_the_three_architectures_read_the_first_token(net):
    assert head_reads_first_token(net, TOKENS, MASK)


@pytest.mark.parametrize("architecture", ["mean over tokens", "last token", "end of text"])
def test_a_head_that_reads_something_else_is_noticed(architecture):
    import transformers as hf

    if architecture == "mean over tokens":
        config = hf.ModernBertConfig(
            vocab_size=50,
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            classifier_pooling="mean",
            pad_token_id=0,
            bos_token_id=2,
            cls_token_id=2,
            eos_token_id=3,
            sep_token_id=3,
        )
    elif architecture == "last token":
        config = hf.GPT2Config(
            vocab_size=50, n_embd=32, n_layer=2, n_head=2, pad_token_id=0, bos_token_id=2, eos_token_id=3
        )
    else:
        config = hf.BartConfig(
            vocab_size=50,
            d_model=32,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=32,
            decoder_ffn_dim=32,
            pad_token_id=0,
            eos_token_id=3,
        )
    torch.manual_seed(0)
    net = hf.AutoModelForSequenceClassification.from_config(config)
    assert not head_reads_first_token(net, TOKENS, MASK)
