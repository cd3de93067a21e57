"""Attributions are the true ones where these can be written down, and otherwise add up."""

import pytest
import torch
from torch import nn

from doctune.inference.attribution import MAX_STEPS, attribute, integrated_gradients

IDS = torch.tensor([1, 4, 2, 4, 3])
BASELINE = torch.tensor([1, 0, 0, 0, 3])
WEIGHTS = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]])


@pytest.fixture
def embeddings():
    layer = nn.Embedding(5, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(15).reshape(5, 3) / 8)
    return layer


def projections(embeddings):
    """What the weights make of every token's difference from the baseline, (T, K)."""
    with torch.no_grad():
        return (embeddings(IDS) - embeddings(BASELINE)) @ WEIGHTS.T


@pytest.mark.parametrize("index", [0, 1])
def test_in_a_linear_model_a_token_adds_its_weight_times_its_difference(embeddings, index):
    found = integrated_gradients(
        lambda ids: embeddings(ids).sum(dim=1) @ WEIGHTS.T, embeddings, IDS, BASELINE, index, steps=3
    )
    assert found.values.tolist() == pytest.approx(projections(embeddings)[:, index].tolist(), abs=1e-6)
    assert found.values[0] == found.values[4] == 0
    assert found.completeness.delta == pytest.approx(0, abs=1e-5)


def test_in_a_squared_model_a_token_adds_its_difference_times_the_sum_of_both_ends(embeddings):
    def scores(ids):
        return (embeddings(ids).sum(dim=1) @ WEIGHTS.T) ** 2

    found = integrated_gradients(scores, embeddings, IDS, BASELINE, 0, steps=2)
    with torch.no_grad():
        ends = sum(float(embeddings(ids).sum(dim=0) @ WEIGHTS[0]) for ids in (IDS, BASELINE))
        at_text, at_baseline = float(scores(IDS[None])[0, 0]), float(scores(BASELINE[None])[0, 0])
    assert found.values.tolist() == pytest.approx((ends * projections(embeddings)[:, 0]).tolist(), rel=1e-5)
    assert found.completeness.score == pytest.approx(at_text)
    assert found.completeness.baseline_score == pytest.approx(at_baseline)


def test_what_else_depends_on_the_ids_stays_that_of_the_text(embeddings):
    """As the positions do in RoBERTa, which counts none for padding."""

    def scores(ids):
        return embeddings(ids).sum(dim=1) @ WEIGHTS.T + 100 * (ids == 0).sum(dim=1, keepdim=True)

    found = integrated_gradients(scores, embeddings, IDS, BASELINE, 0, steps=3)
    assert found.completeness.delta == pytest.approx(0, abs=1e-5)


def steep(embeddings, slope):
    """A score that rises with a slope at the middle of the path, which few steps miss."""
    middle = float((embeddings(IDS).sum() + embeddings(BASELINE).sum()) / 2) + 0.1
    return lambda ids: torch.sigmoid(slope * (embeddings(ids).sum(dim=(1, 2)) - middle)).unsqueeze(1)


def test_steps_are_doubled_until_attributions_add_up(embeddings):
    scores = steep(embeddings, 20.0)
    assert not integrated_gradients(scores, embeddings, IDS, BASELINE, 0, steps=3).completeness.holds
    check = attribute(scores, embeddings, IDS, BASELINE, 0, steps=3).completeness
    assert check.holds
    assert check.steps in (6, 12, 24, 48, 96, 192, 384)


def test_steps_are_not_doubled_without_end_nor_lowered(embeddings):
    scores = steep(embeddings, 1e6)
    check = attribute(scores, embeddings, IDS, BASELINE, 0, steps=50).completeness
    assert (check.steps, check.holds) == (MAX_STEPS, False)
    assert attribute(scores, embeddings, IDS, BASELINE, 0, steps=401).completeness.steps == 401


def test_steps_in_several_passes_give_what_one_gives(embeddings, monkeypatch):
    def scores(ids):
        return torch.tanh(embeddings(ids).sum(dim=1) @ WEIGHTS.T / 8)

    whole = integrated_gradients(scores, embeddings, IDS, BASELINE, 1, steps=20).values
    monkeypatch.setattr("doctune.inference.attribution._TOKENS_PER_PASS", 15)
    assert integrated_gradients(scores, embeddings, IDS, BASELINE, 1, steps=20).values == pytest.approx(whole, abs=1e-6)
