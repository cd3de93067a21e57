import numpy as np
import pytest
import torch
from torch import nn

from doctune.nets.dropout import Dropout, draw_kept, use_dropout


@pytest.mark.parametrize("rate", [0.001, 0.1, 0.5])
def test_the_share_that_is_dropped_is_the_rate_on_average(rate):
    random, mask, shares = np.random.SFC64(0), torch.empty(50, 41), []
    for _ in range(2000):
        draw_kept(random, rate, mask)
        shares.append(1 - mask.mean().item())
    assert set(mask.unique().tolist()) <= {0.0, 1.0}
    # 4 standard deviations of the mean: of the draws, and of the share that a call rounds to.
    spread = (rate * (1 - rate) / mask.numel() + (1 / 512) ** 2) ** 0.5 / len(shares) ** 0.5
    assert np.mean(shares) == pytest.approx(rate, abs=4 * spread)


def test_neighbours_are_dropped_independently():
    mask = torch.empty(1000, 1001)
    draw_kept(np.random.SFC64(1), 0.5, mask)
    flat = mask.flatten() - 0.5
    for distance in (1, 8, 1001):
        assert (flat[distance:] * flat[:-distance]).mean().abs() < 4 * 0.25 / 1000


def test_what_is_kept_is_scaled_and_the_gradient_goes_the_same_way():
    torch.manual_seed(0)
    given = torch.ones(200, 100, requires_grad=True)
    found = Dropout(0.25)(given)
    found.sum().backward()
    assert found.detach().unique().tolist() == pytest.approx([0, 4 / 3])
    assert found.mean().item() == pytest.approx(1, abs=0.02)
    assert torch.equal(given.grad, found)


def test_the_default_generator_decides_what_is_dropped():
    layer, given = Dropout(0.5), torch.ones(64)
    torch.manual_seed(3)
    first, second = layer(given), layer(given)
    torch.manual_seed(3)
    assert torch.equal(layer(given), first)
    assert not torch.equal(first, second)


def test_evaluation_and_the_ends_are_those_of_pytorch():
    given = torch.ones(64, dtype=torch.bfloat16)
    assert torch.equal(Dropout(0.5).eval()(given), given)
    assert torch.equal(Dropout(0.0)(given), given)
    assert torch.equal(Dropout(1.0)(given), torch.zeros_like(given))
    assert Dropout(0.5)(given).dtype == torch.bfloat16


def test_every_dropout_of_a_net_is_replaced_and_keeps_its_rate_and_mode():
    shared = nn.Dropout(0.3)
    net = nn.ModuleDict({"a": nn.Sequential(nn.Linear(2, 2), shared), "b": nn.Sequential(shared, nn.Dropout1d(0.2))})
    net["b"].eval()
    use_dropout(net)
    assert type(net["a"][1]) is Dropout
    assert type(net["b"][0]) is Dropout
    assert type(net["b"][1]) is nn.Dropout1d
    assert net["a"][1].p == 0.3
    assert not net["b"][0].training
    assert Dropout(0.3).extra_repr() == nn.Dropout(0.3).extra_repr()
