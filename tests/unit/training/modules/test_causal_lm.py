import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from doctune.errors import ArtifactError
from doctune.nets.causal import causal_lm, is_decoder, next_token_losses, packs_apart
from doctune.training.modules.causal_lm import CausalLMModule
from doctune.training.optim import Optimisation

PLAN = Optimisation(1e-3, 1.0, 0.01, "linear", warmup_steps=2, total_steps=10)


@pytest.fixture
def module(tiny_mistral):
    torch.manual_seed(0)
    module = CausalLMModule(causal_lm(AutoConfig.from_pretrained(tiny_mistral), str(tiny_mistral)), PLAN)
    module.log = module.log_dict = lambda *_, **__: None
    return module


def sequences():
    """Eight of different lengths, a prompt of three tokens before each completion."""
    torch.manual_seed(1)
    return [torch.randint(2, 90, (length,)) for length in (6, 9, 4, 12, 7, 5, 10, 8)]


def batch(rows, scale):
    longest = max(map(len, rows))
    ids = torch.stack([torch.cat([row, row.new_ones(longest - len(row))]) for row in rows])
    mask = torch.stack([torch.arange(longest) < len(row) for row in rows]).long()
    labels = torch.where((mask == 1) & (torch.arange(longest) >= 3), ids, -100)
    return {
        "input_ids": ids, "attention_mask": mask, "labels": labels, "index": torch.arange(len(rows)),
        "losses": int((labels != -100).sum()), "scale": scale,
    }  # fmt: skip


def packed(rows, scale):
    made = [batch([row], 0) for row in rows]
    joined = {name: torch.cat([each[name] for each in made], dim=1) for name in ("input_ids", "labels")}
    positions = torch.cat([torch.arange(len(row)) for row in rows])[None]
    return joined | {
        "position_ids": positions, "index": torch.arange(1), "scale": scale,
        "losses": sum(each["losses"] for each in made),
    }  # fmt: skip


def gradients(module, batches):
    """What an optimiser step would see: Lightning divides each loss by the accumulation."""
    module.zero_grad()
    found = [module.training_step(micro, 0) for micro in batches]
    for each in found:
        (each["loss"] / len(batches)).backward()
    learnt = [parameter.grad.flatten() for parameter in module.parameters() if parameter.grad is not None]
    return torch.cat(learnt), sum(each["objective"].item() for each in found)


def test_four_micro_batches_of_two_equal_one_of_eight_with_completions_of_different_lengths(module):
    rows = sequences()
    total = sum(len(row) - 3 for row in rows)
    once, whole = gradients(module, [batch(rows, 1 / total)])
    parts = [batch(rows[start : start + 2], 4 / total) for start in (0, 2, 4, 6)]
    accumulated, added = gradients(module, parts)
    torch.testing.assert_close(accumulated, once, atol=1e-6, rtol=1e-4)
    assert once.abs().max() > 0
    assert added == pytest.approx(whole, rel=1e-5)


def test_packed_sequences_have_the_losses_and_gradients_that_they_have_alone(module):
    rows = sequences()
    apart, whole = gradients(module, [batch([row], 8.0) for row in rows])
    together, added = gradients(module, [packed(rows, 1.0)])
    assert added == pytest.approx(whole, rel=1e-5)
    torch.testing.assert_close(together, apart, atol=1e-4, rtol=1e-4)


def test_the_loss_is_that_of_transformers(module, tiny_mistral):
    net = AutoModelForCausalLM.from_pretrained(tiny_mistral)
    made = batch(sequences(), 1.0)
    with torch.no_grad():
        theirs = net(made["input_ids"], made["attention_mask"], labels=made["labels"]).loss.item()
        losses, rows = next_token_losses(module.eval()(made), made["labels"])
    assert losses.mean().item() == pytest.approx(theirs, rel=1e-6)
    assert torch.bincount(rows).tolist() == [len(row) - 3 for row in sequences()]


def test_both_losses_of_the_gap_are_means_over_tokens_and_perplexity_is_their_exponential(module):
    logged = {}
    module.log_dict = lambda values, **__: logged.update(values)
    module.log = lambda name, value, **__: logged.update({name: value})
    module.eval()
    rows = sequences()
    module.on_validation_epoch_start()
    for chosen in (rows[:3], rows[3:]):
        found = module.validation_step(batch(chosen, 1.0), 0, 0)
        assert found["counts"].tolist() == [len(row) - 3 for row in chosen]
    module.validation_step(batch(rows[:2], 1.0), 0, 1)
    module.on_validation_epoch_end()
    with torch.no_grad():
        every, few = (
            next_token_losses(module(batch(each, 1)), batch(each, 1)["labels"])[0] for each in (rows, rows[:2])
        )
    assert module.val_loss.compute().item() == pytest.approx(every.mean().item(), rel=1e-5)
    assert logged["gap"].item() == pytest.approx((every.mean() - few.mean()).item(), abs=1e-5)
    assert logged["val/perplexity"].item() == pytest.approx(every.mean().exp().item(), rel=1e-4)


def test_label_smoothing_is_of_the_objective_only(module):
    module.label_smoothing = 0.1
    found = module.training_step(batch(sequences(), 1.0), 0)
    assert found["objective"] != found["cross_entropy"]


def test_a_net_is_loaded_in_training_mode_and_one_without_its_weights_is_refused(tiny_mistral, tiny_encoder, tmp_path):
    config = AutoConfig.from_pretrained(tiny_mistral)
    assert causal_lm(config, str(tiny_mistral)).training
    bare = AutoModelForCausalLM.from_pretrained(tiny_mistral).model
    bare.save_pretrained(tmp_path)
    with pytest.raises(ArtifactError) as caught:
        causal_lm(config, str(tmp_path))
    assert str(caught.value) == (
        f"The weights of {tmp_path} lack 1 of the language model, among them lm_head.weight: it is no causal language "
        "model, or one without its output layer."
    )


def test_decoders_are_told_from_encoders(tiny_mistral, tiny_encoder):
    assert is_decoder(AutoConfig.from_pretrained(tiny_mistral))
    assert not any(is_decoder(AutoConfig.from_pretrained(tiny_encoder(kind))) for kind in ("bert", "roberta"))


def test_a_net_that_lets_packed_sequences_see_each_other_is_found_out(module, tiny_mistral):
    assert packs_apart(module.net, 90)
    assert module.net.training
    half = AutoModelForCausalLM.from_pretrained(tiny_mistral, dtype=torch.bfloat16)
    assert packs_apart(half, 90)

    class Blind(torch.nn.Module):
        """Takes no positions."""

        device = torch.device("cpu")

        def forward(self, input_ids, use_cache):
            return None

    assert not packs_apart(Blind(), 90)
    module.net.model.forward, forward = lambda position_ids=None, **inputs: forward(**inputs), module.net.model.forward
    assert not packs_apart(module.net, 90)
    assert not packs_apart(module.net.to(torch.bfloat16), 90)
