"""Layers through torch.compile, with the machine's own compiler."""

import shutil

import pytest
import torch
from transformers import DistilBertConfig, DistilBertForSequenceClassification

from doctune.errors import ConfigError
from doctune.nets.compiled import compile_layers

SMALL = DistilBertConfig(vocab_size=40, dim=16, hidden_dim=32, n_heads=2, n_layers=2, num_labels=3)


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_compiled_layers_give_the_same_loss_and_gradients_at_any_size_and_keep_their_names():
    torch.manual_seed(0)
    plain = DistilBertForSequenceClassification(SMALL).eval()
    compiled = DistilBertForSequenceClassification(SMALL).eval()
    compiled.load_state_dict(plain.state_dict())
    compile_layers(compiled)
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()  # of what other tests have compiled
    for rows, length in ((4, 9), (2, 17)):
        batch = {
            "input_ids": torch.randint(40, (rows, length)),
            "attention_mask": (torch.arange(length) < length - torch.arange(rows)[:, None]).long(),
            "labels": torch.arange(rows) % 3,
        }
        losses = []
        for net in (plain, compiled):
            net.zero_grad()
            losses.append(net(**batch).loss)
            losses[-1].backward()
        assert losses[1].item() == pytest.approx(losses[0].item(), abs=1e-6)
        for one, other in zip(plain.parameters(), compiled.parameters(), strict=True):
            torch.testing.assert_close(other.grad, one.grad, atol=1e-5, rtol=1e-4)
    # The first size may be compiled for itself; what follows is one graph for all sizes and both layers.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 2
    assert [*compiled.state_dict()] == [*plain.state_dict()]


def test_a_machine_without_a_compiler_is_named(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match=r"trainer\.compile=true needs the C\+\+ compiler no-such-compiler, which is"):
        compile_layers(DistilBertForSequenceClassification(SMALL))
